//! How long a run would take, and how far to trust that.

use domain::DeviceKind;
use store::speeds::{Basis, Speed};

/// Seconds for so many tokens of a job on `base`, and where the number comes from or why there is none.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
pub(super) fn of(
    tokens: u64,
    speed: Option<Speed>,
    base: &str,
    device: Option<DeviceKind>,
) -> (Option<f64>, String) {
    let on = device.map_or_else(String::new, |device| format!(" on {device}"));
    let Some(speed) = speed else {
        let basis = format!(
            "no job on `{base}`, or on a model of about its size, has succeeded here{on} yet, so its speed is not known"
        );
        return (None, basis);
    };
    let source = match speed.basis {
        Basis::OwnJobs(n_jobs) => {
            format!("as in the latest steps of {n_jobs} of this project's jobs on `{base}`{on}")
        }
        Basis::AllJobs => format!(
            "as in this installation's latest jobs on `{base}`{on}, which need not be like this one"
        ),
        Basis::OtherBase => format!(
            "a rough guess: no job on `{base}` has succeeded here{on} yet, so this is the speed of jobs on the model nearest \
             in size, scaled by parameters"
        ),
    };
    let per_second = speed.tokens_per_second;
    let digits = usize::from(per_second < 10.0);
    (
        Some(tokens as f64 / per_second),
        format!("{per_second:.digits$} tokens a second, {source}"),
    )
}
