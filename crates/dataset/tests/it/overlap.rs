//! Rows that are there twice.

use dataset::overlap::{Repeat, duplicates, shared};

use crate::rows::{chat, rows};

#[test]
fn a_repeated_row_points_to_the_first_one() {
    let rows = rows(
        &[
            chat("a", "b"),
            chat("c", "d"),
            chat("a ", "b"),
            chat("a", "b"),
        ]
        .join("\n"),
    );
    assert_eq!(
        duplicates(&rows),
        [
            Repeat {
                line: 3,
                first_line: 1
            },
            Repeat {
                line: 4,
                first_line: 1
            }
        ]
    );
}

#[test]
fn validation_rows_that_were_trained_on_are_found() {
    let training = rows(&[chat("a", "b"), chat("c", "d")].join("\n"));
    let validation = rows(&[chat("e", "f"), chat("c", "d"), chat("a", "x")].join("\n"));
    assert_eq!(
        shared(&training, &validation),
        [Repeat {
            line: 2,
            first_line: 2
        }]
    );
}
