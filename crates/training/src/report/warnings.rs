//! What a run's owner should know of its files.

use domain::DataReport;

use crate::rows::Rows;
use crate::train::Run;

/// What happened to rows of a file that may not be meant.
pub fn data_warnings(report: &DataReport) -> Vec<String> {
    let counts = [
        (
            report.truncated_rows,
            "rows were longer than max_seq_len and have been cut",
        ),
        (
            report.skipped_rows,
            "rows had nothing left to learn after cutting and were left out",
        ),
        (
            report.rows_without_end,
            "rows teach no token that ends a text, so the model may not stop; look at the base model's chat template",
        ),
        (report.duplicate_rows, "rows are exact duplicates"),
    ];
    let said = counts.into_iter().filter(|(count, _)| *count > 0);
    said.map(|(count, what)| format!("{count} {what}"))
        .collect()
}

/// Rows to measure on that are also learned from.
pub fn overlap_warnings(
    train: Option<&Rows>,
    replay: Option<&Rows>,
    valid: Option<&Rows>,
) -> Vec<String> {
    let learned = [("training", train), ("replay", replay)];
    let said = learned.into_iter().filter_map(|(name, learned)| {
        let overlap = learned?.overlap(valid?);
        (overlap > 0).then(|| {
            format!(
                "{overlap} rows of the validation file are also in the {name} file; validation loss will look too good"
            )
        })
    });
    said.collect()
}

pub(super) fn of(run: &Run<'_>) -> Vec<String> {
    let files = [
        ("training", Some(run.train)),
        ("validation", run.valid),
        ("replay", run.replay),
    ];
    let mut said = Vec::new();
    for (name, rows) in files {
        let found = rows.map(|rows| data_warnings(&rows.report));
        let found = found.into_iter().flatten();
        said.extend(found.map(|found| format!("{name} file: {found}")));
    }
    said.extend(overlap_warnings(Some(run.train), run.replay, run.valid));
    let checkpoint = run.resume.as_ref();
    said.extend(checkpoint.and_then(|checkpoint| checkpoint.other_kernels(run.model)));
    said
}
