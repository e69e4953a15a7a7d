//! An estimate as a person reads it.

use std::fmt;

use super::Estimate;

impl fmt::Display for Estimate {
    /// `180 steps, 25k tokens, about 3 min, 1.3 GB`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {}, {} tokens, about {}, ",
            self.steps,
            if self.steps == 1 { "step" } else { "steps" },
            count(self.train_tokens),
            duration(self.seconds),
        )?;
        match self.peak_bytes {
            Some(peak) => formatter.write_str(&bytes(peak)),
            None => formatter.write_str("memory of this device unknown"),
        }
    }
}

/// Two figures or so, in decimal units.
pub(super) fn bytes(n: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "rounded")]
    let n = n as f64;
    if n < 999.5e6 {
        format!("{:.0} MB", n / 1e6)
    } else {
        format!("{:.1} GB", n / 1e9)
    }
}

fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{}k", (n + 500) / 1000),
        _ => format!("{}M", (n + 500_000) / 1_000_000),
    }
}

fn duration(seconds: f64) -> String {
    let minutes = seconds / 60.0;
    if seconds < 59.5 {
        format!("{:.0} s", seconds.max(1.0))
    } else if minutes < 59.5 {
        format!("{minutes:.0} min")
    } else if minutes < 48.0 * 60.0 {
        format!("{:.1} h", minutes / 60.0)
    } else {
        format!("{:.0} days", minutes / 60.0 / 24.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::cost::{Flops, Memory};

    #[test]
    fn an_estimate_is_one_line() {
        let estimate = Estimate {
            steps: 180,
            train_tokens: 25_120,
            loss_tokens: 9_000,
            flops: Flops::default(),
            measuring_flops: Flops::default(),
            seconds: 171.0,
            step_seconds: 160.0,
            memory: Memory::default(),
            peak_bytes: Some(1_312_000_000),
            limit_bytes: None,
        };
        assert_eq!(
            estimate.to_string(),
            "180 steps, 25k tokens, about 3 min, 1.3 GB"
        );
        let on_a_gpu = Estimate {
            steps: 1,
            peak_bytes: None,
            ..estimate
        };
        assert_eq!(
            on_a_gpu.to_string(),
            "1 step, 25k tokens, about 3 min, memory of this device unknown"
        );
    }

    #[test]
    fn numbers_keep_a_readable_size() {
        assert_eq!([bytes(0), bytes(999_000_000)], ["0 MB", "999 MB"]);
        assert_eq!([count(9_999), count(12_400_000)], ["9999", "12M"]);
        let said = [0.2, 59.0, 61.0, 7_200.0, 864_000.0].map(duration);
        assert_eq!(said, ["1 s", "59 s", "1 min", "2.0 h", "10 days"]);
    }
}
