//! What was found in a job's files, as the events that tell the tenant.

use store::events::{EventKind, EventLevel, NewEvent};
use time::OffsetDateTime;
use training::Rows;

/// What each of a job's files holds, and whether rows to measure on are also learned from.
pub(crate) fn events(files: [(&str, Option<&Rows>); 3], now: OffsetDateTime) -> Vec<NewEvent> {
    let [(_, train), (_, valid), (_, replay)] = files;
    let mut said: Vec<NewEvent> = files
        .into_iter()
        .filter_map(|(param, rows)| Some(file_event(param, rows?, now)))
        .collect();
    for (name, learned) in [("training", train), ("replay", replay)] {
        let overlap = learned
            .zip(valid)
            .map_or(0, |(learned, valid)| learned.overlap(valid));
        if overlap > 0 {
            let text = format!(
                "{overlap} rows of the validation file are also in the {name} file; validation loss will look too good"
            );
            said.push(NewEvent::message(EventLevel::Warn, text, now));
        }
    }
    said
}

fn file_event(param: &str, rows: &Rows, now: OffsetDateTime) -> NewEvent {
    let report = &rows.report;
    let mut said = vec![format!(
        "Validated {param}: {} rows, {} tokens, {} of them supervised",
        report.n_rows, report.n_tokens, report.n_loss_tokens
    )];
    for (count, what) in [
        (
            report.truncated_rows,
            "rows were longer than max_seq_len and have been cut",
        ),
        (
            report.skipped_rows,
            "rows had nothing left to learn after cutting and were left out",
        ),
        (report.duplicate_rows, "rows are exact duplicates"),
    ] {
        if count > 0 {
            said.push(format!("{count} {what}"));
        }
    }
    let level = if said.len() > 1 {
        EventLevel::Warn
    } else {
        EventLevel::Info
    };
    let text = said.join("; ");
    let data = serde_json::to_value(report).ok().map(|mut data| {
        data["file"] = param.into();
        data
    });
    NewEvent {
        kind: EventKind::Message,
        data,
        ..NewEvent::message(level, text, now)
    }
}
