//! What was found in a job's files, as the events that tell the tenant.

use store::events::{EventKind, EventLevel, NewEvent};
use time::OffsetDateTime;
use training::Rows;
use training::report::{data_warnings, overlap_warnings};

/// What each of a job's files holds, and whether rows to measure on are also learned from.
pub(crate) fn events(files: [(&str, Option<&Rows>); 3], now: OffsetDateTime) -> Vec<NewEvent> {
    let [(_, train), (_, valid), (_, replay)] = files;
    let mut said: Vec<NewEvent> = files
        .into_iter()
        .filter_map(|(param, rows)| Some(file_event(param, rows?, now)))
        .collect();
    let overlaps = overlap_warnings(train, replay, valid).into_iter();
    said.extend(overlaps.map(|text| NewEvent::message(EventLevel::Warn, text, now)));
    said
}

fn file_event(param: &str, rows: &Rows, now: OffsetDateTime) -> NewEvent {
    let report = &rows.report;
    let mut said = vec![format!(
        "Validated {param}: {} rows, {} tokens, {} of them supervised",
        report.n_rows, report.n_tokens, report.n_loss_tokens
    )];
    said.extend(data_warnings(report));
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
