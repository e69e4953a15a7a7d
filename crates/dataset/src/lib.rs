//! Training data: from bytes that strangers uploaded to conversations worth training on.
//!
//! [`read_rows_of`] reads JSON Lines of chats or preferences and names every faulty line with the way out of it.
//! Memory is bounded by one line, and one line by [`Limits::max_line_bytes`]; no input makes the
//! reader panic, overflow the stack or stop before the end of the file.
//! [`QuickScan`] is the little that can be said while a file is still being uploaded;
//! [`overlap`] finds rows that appear twice.
//!
//! Deliberately absent: tokens (a row may still be too long), files, tenants.

mod error;
mod json;
mod lines;
pub mod overlap;
mod quick_scan;
mod reader;
mod row;

pub use error::{Faults, RowError, RowErrorKind};
pub use quick_scan::{FirstRow, QuickScan, ScanReport};
pub use reader::{Limits, RowReader, collect_rows, read_rows, read_rows_of};
pub use row::{Judgement, Row};
