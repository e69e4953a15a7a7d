//! The example dataset is a good one, and is what its generator writes.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use dataset::{Limits, Row, collect_rows, overlap};
use serde_json::Value;

const FILES: [(&str, usize); 3] = [
    ("train.jsonl", 240),
    ("valid.jsonl", 60),
    ("heldout.jsonl", 20),
];

fn directory() -> PathBuf {
    // Asked when the test runs: clones that share a target directory share the compiled test as well.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../examples/tickets")
}

fn rows(file: &str) -> Vec<Row> {
    let bytes = fs::read(directory().join(file)).unwrap();
    collect_rows(bytes.as_slice(), &Limits::default(), 5).unwrap()
}

fn ticket(row: &Row) -> String {
    row.conversation.messages[1].content.clone().unwrap()
}

fn answer(row: &Row) -> BTreeMap<String, Option<String>> {
    serde_json::from_str(row.conversation.messages[2].content.as_deref().unwrap()).unwrap()
}

#[test]
fn the_files_have_their_rows_and_share_no_ticket() {
    let mut tickets = HashSet::new();
    let mut all = Vec::new();
    for (file, n_rows) in FILES {
        let rows = rows(file);
        assert_eq!(rows.len(), n_rows, "{file}");
        for row in &rows {
            assert!(
                tickets.insert(ticket(row)),
                "{file}:{} is there twice",
                row.line
            );
        }
        all.extend(rows);
    }
    assert!(overlap::duplicates(&all).is_empty());
}

#[test]
fn every_answer_can_be_read_in_its_ticket() {
    for (file, _) in FILES {
        for row in rows(file) {
            let (ticket, answer) = (ticket(&row), answer(&row));
            for key in ["product", "order_id"] {
                if let Some(value) = &answer[key] {
                    assert!(ticket.contains(value.as_str()), "{file}:{} {key}", row.line);
                }
            }
            assert!(
                answer["order_id"].is_some() || !ticket.contains("ORD-"),
                "{ticket}"
            );
            assert!(["high", "normal", "low"].contains(&answer["priority"].as_deref().unwrap()));
        }
    }
}

#[test]
fn order_numbers_are_never_shared() {
    let mut orders = HashSet::new();
    for (file, _) in FILES {
        for row in rows(file) {
            if let Some(order) = answer(&row).remove("order_id").flatten() {
                assert!(orders.insert(order), "{file}:{}", row.line);
            }
        }
    }
}

#[test]
fn half_of_the_held_out_rows_are_in_unseen_phrasings() {
    let file = fs::read_to_string(directory().join("heldout.jsonl")).unwrap();
    let phrasings: Vec<String> = file
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            row["metadata"]["phrasing"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(phrasings[..10], ["known"; 10]);
    assert_eq!(phrasings[10..], ["unseen"; 10]);
}

#[test]
fn the_generator_writes_the_same_bytes() {
    let fresh = tempfile::tempdir().unwrap();
    let status = Command::new("python3")
        .arg(directory().join("generate.py"))
        .arg(fresh.path())
        .status()
        .unwrap();
    assert!(status.success());
    for (file, _) in FILES {
        let committed = fs::read(directory().join(file)).unwrap();
        assert!(
            fs::read(fresh.path().join(file)).unwrap() == committed,
            "{file} differs"
        );
    }
}
