//! Where a step's time goes.
//!
//! Counted per thread, on the thread that calls the operations: they spread their work themselves and come back when it is
//! done.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Products with the base model's matrices.
    Matmul,
    /// The adapter's products.
    Lora,
    Attention,
    /// Normalisation and activation.
    Elementwise,
    /// The head's products and the loss.
    Head,
    Optimizer,
}

/// Time spent on each part.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Profile([Duration; Part::ALL.len()]);

impl Part {
    pub const ALL: [Self; 6] = [
        Self::Matmul,
        Self::Lora,
        Self::Attention,
        Self::Elementwise,
        Self::Head,
        Self::Optimizer,
    ];

    /// For reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Matmul => "matmul",
            Self::Lora => "lora",
            Self::Attention => "attention",
            Self::Elementwise => "elementwise",
            Self::Head => "head",
            Self::Optimizer => "optimizer",
        }
    }
}

impl Profile {
    /// Each part's time.
    pub fn parts(&self) -> impl Iterator<Item = (Part, Duration)> + '_ {
        Part::ALL.into_iter().zip(self.0)
    }

    fn add(&mut self, part: Part, time: Duration) {
        self.0[part as usize] += time;
    }
}

thread_local! {
    static SO_FAR: RefCell<Profile> = const { RefCell::new(Profile([Duration::ZERO; Part::ALL.len()])) };
    static OPEN: Cell<bool> = const { Cell::new(false) };
}

/// Counts the time that `work` takes as `part`'s. Within another part's work it counts as that one's.
pub fn measure<R>(part: Part, work: impl FnOnce() -> R) -> R {
    if OPEN.replace(true) {
        return work();
    }
    let started = Instant::now();
    let result = work();
    SO_FAR.with_borrow_mut(|profile| profile.add(part, started.elapsed()));
    OPEN.set(false);
    result
}

/// What this thread spent since it last asked.
pub fn take() -> Profile {
    SO_FAR.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_once_and_taken_once() {
        let pause = || std::thread::sleep(Duration::from_millis(2));
        measure(Part::Head, || measure(Part::Matmul, pause));
        let profile = take();
        let spent = |part| profile.parts().find(|(p, _)| *p == part).unwrap().1;
        assert!(spent(Part::Head) >= Duration::from_millis(2));
        assert_eq!(spent(Part::Matmul), Duration::ZERO);
        assert_eq!(take(), Profile::default());
    }
}
