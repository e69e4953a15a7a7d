//! A range of numbers that says in words what it is.

use std::fmt;

/// From a least number to a greatest, or without an end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The lower end.
    pub min: f64,
    /// Whether the lower end is in it.
    pub includes_min: bool,
    /// The upper end.
    pub max: Option<f64>,
    /// Whether the upper end is in it.
    pub includes_max: bool,
    /// What an end means, for people.
    pub note: &'static str,
}

impl Range {
    /// `min` and more.
    pub const fn at_least(min: f64) -> Self {
        Self {
            min,
            includes_min: true,
            max: None,
            includes_max: false,
            note: "",
        }
    }

    /// More than `min`.
    pub const fn above(min: f64) -> Self {
        Self {
            includes_min: false,
            ..Self::at_least(min)
        }
    }

    /// Up to `max`.
    #[must_use]
    pub const fn at_most(self, max: f64) -> Self {
        Self {
            max: Some(max),
            includes_max: true,
            ..self
        }
    }

    /// Up to `max`, without it.
    #[must_use]
    pub const fn below(self, max: f64) -> Self {
        Self {
            max: Some(max),
            includes_max: false,
            ..self
        }
    }

    /// Adds what an end means.
    #[must_use]
    pub const fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    /// Whether `n` lies in it.
    pub fn contains(&self, n: f64) -> bool {
        let above = if self.includes_min {
            n >= self.min
        } else {
            n > self.min
        };
        let below = |max| {
            if self.includes_max { n <= max } else { n < max }
        };
        above && self.max.is_none_or(below)
    }
}

impl fmt::Display for Range {
    /// `between 0 and 1`, `above 0 and at most 1`, `at least 0 (0 turns clipping off)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let min = self.min;
        match (self.includes_min, self.max, self.includes_max) {
            (true, Some(max), true) => write!(f, "between {min} and {max}")?,
            (true, Some(max), false) => write!(f, "at least {min} and below {max}")?,
            (false, Some(max), true) => write!(f, "above {min} and at most {max}")?,
            (false, Some(max), false) => write!(f, "above {min} and below {max}")?,
            (true, None, _) => write!(f, "at least {min}")?,
            (false, None, _) => write!(f, "above {min}")?,
        }
        if self.note.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.note)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_it_says() {
        for (range, text, inside, outside) in [
            (
                Range::at_least(0.0).at_most(1.0),
                "between 0 and 1",
                [0.0, 1.0],
                [-0.1, 1.1],
            ),
            (
                Range::at_least(0.0).below(1.0),
                "at least 0 and below 1",
                [0.0, 0.9],
                [-0.1, 1.0],
            ),
            (
                Range::above(0.0).at_most(1.0),
                "above 0 and at most 1",
                [0.1, 1.0],
                [0.0, 1.1],
            ),
            (
                Range::above(0.0).below(1.0),
                "above 0 and below 1",
                [0.1, 0.9],
                [0.0, 1.0],
            ),
            (
                Range::at_least(0.0).note("0 is off"),
                "at least 0 (0 is off)",
                [0.0, 1e9],
                [-1.0, f64::NAN],
            ),
        ] {
            assert_eq!(range.to_string(), text);
            assert!(inside.iter().all(|n| range.contains(*n)), "{text}");
            assert!(!outside.iter().any(|n| range.contains(*n)), "{text}");
        }
    }
}
