//! Fewer points for the same curve.
//!
//! The first and the last are kept, and of each of the equal stretches between them the points where the curve is lowest
//! and highest. Every point that is left is a step that happened: no mean hides a spike.

use std::cmp::Ordering;

/// Thins a series while it is read, in order. Holds no more than it will give.
pub(super) struct Thinning<T> {
    n_stretches: u64,
    last_step: u64,
    first: Option<(u64, f64, T)>,
    latest: Option<(u64, f64, T)>,
    stretch: Stretch<T>,
    kept: Vec<T>,
}

/// The extremes of one stretch so far.
struct Stretch<T> {
    number: u64,
    lowest: Option<(u64, f64, T)>,
    highest: Option<(u64, f64, T)>,
}

impl<T: Clone> Thinning<T> {
    /// Of a series whose steps end at `last_step`, to at most `max_points` points, 4 or more.
    pub(super) fn new(max_points: u64, last_step: u64) -> Self {
        Self {
            n_stretches: (max_points.saturating_sub(2) / 2).max(1),
            last_step: last_step.max(1),
            first: None,
            latest: None,
            stretch: Stretch::empty(0),
            kept: Vec::new(),
        }
    }

    /// The next point: its step, and how high the curve is there.
    pub(super) fn add(&mut self, step: u64, height: f64, point: T) {
        if self.first.is_none() {
            self.first = Some((step, height, point));
            return;
        }
        // The latest may be the last, which is kept whatever its height, so it enters its stretch one point later.
        let Some((step, height, point)) = self.latest.replace((step, height, point)) else {
            return;
        };
        let number = step.saturating_sub(1) * self.n_stretches / self.last_step;
        if number != self.stretch.number {
            let ended = std::mem::replace(&mut self.stretch, Stretch::empty(number));
            self.kept.extend(ended.points());
        }
        self.stretch.add(step, height, point);
    }

    /// What is left, in order.
    pub(super) fn finish(self) -> Vec<T> {
        let ends = [self.first, self.latest].map(|end| end.map(|(_, _, point)| point));
        let [first, last] = ends;
        first
            .into_iter()
            .chain(self.kept)
            .chain(self.stretch.points())
            .chain(last)
            .collect()
    }
}

impl<T: Clone> Stretch<T> {
    fn empty(number: u64) -> Self {
        Self {
            number,
            lowest: None,
            highest: None,
        }
    }

    fn add(&mut self, step: u64, height: f64, point: T) {
        // In the order of all floats what is no number lies above: it is kept as a peak and hides no other.
        let is = |ordering: Ordering, than: &Option<(u64, f64, T)>| {
            let than = than.as_ref();
            than.is_none_or(|(_, than, _)| height.total_cmp(than) == ordering)
        };
        if is(Ordering::Less, &self.lowest) {
            self.lowest = Some((step, height, point.clone()));
        }
        if is(Ordering::Greater, &self.highest) {
            self.highest = Some((step, height, point));
        }
    }

    /// One point, or two in the order of their steps.
    fn points(self) -> impl Iterator<Item = T> {
        let mut extremes: Vec<_> = [self.lowest, self.highest].into_iter().flatten().collect();
        extremes.sort_by_key(|(step, ..)| *step);
        extremes.dedup_by_key(|(step, ..)| *step);
        extremes.into_iter().map(|(_, _, point)| point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps that are left of a curve with these heights.
    fn left(heights: &[f64], max_points: u64) -> Vec<u64> {
        let mut thinning = Thinning::new(max_points, heights.len() as u64);
        for (step, height) in (1..).zip(heights) {
            thinning.add(step, *height, step);
        }
        thinning.finish()
    }

    #[test]
    fn ends_and_extremes_stay() {
        let mut heights = vec![1.0; 1000];
        heights[299] = 9.0;
        heights[700] = -9.0;
        let left = left(&heights, 20);
        assert!(left.len() <= 20, "{left:?}");
        assert_eq!((left[0], *left.last().unwrap()), (1, 1000));
        assert!(left.contains(&300) && left.contains(&701), "{left:?}");
        assert!(left.is_sorted_by(|a, b| a < b), "{left:?}");
    }

    #[test]
    fn no_number_of_points_is_exceeded() {
        for n in [0_u32, 1, 2, 3, 10, 97, 1000] {
            let heights: Vec<f64> = (0..n).map(|n| f64::from(n * 7919 % 101)).collect();
            for max_points in [4, 5, 10, 99] {
                let left = left(&heights, max_points);
                assert!(left.len() as u64 <= max_points, "{n} to {max_points}");
                assert_eq!(left.is_empty(), n == 0);
            }
        }
    }

    #[test]
    fn a_loss_that_is_no_number_hides_none_that_is_one() {
        assert_eq!(left(&[1.0, f64::NAN, 2.0, 1.5, 1.7, 3.0], 4), [1, 2, 4, 6]);
    }
}
