//! What can be said of a file while it is being uploaded: a count of rows and the crudest faults.
//!
//! Memory is constant: a few counters and the beginning of the first row. Everything else is found
//! when a job validates its files.

use crate::json;
use crate::lines::BOM;

/// This much of the first row is looked at.
const MAX_FIRST_ROW_BYTES: usize = 64 << 10;

/// Counts as chunks pass by.
#[derive(Debug, Default)]
pub struct QuickScan {
    n_bytes: u64,
    n_lines: u64,
    n_rows: u64,
    max_line_bytes: u64,
    line_bytes: u64,
    line_has_content: bool,
    first_row: Vec<u8>,
    first_row_is_whole: bool,
}

/// What the scan saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanReport {
    pub n_bytes: u64,
    pub n_lines: u64,
    /// Lines that are not blank.
    pub n_rows: u64,
    /// Without the newline.
    pub max_line_bytes: u64,
    pub first_row: FirstRow,
}

/// The first line that is not blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstRow {
    /// There is none: the file is empty, or all blank.
    Missing,
    /// It is an object; when it is longer than what is looked at, it at least begins as one.
    Object,
    /// It is something else, so this is no JSON Lines file.
    NotAnObject,
}

impl QuickScan {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the file, cut anywhere.
    pub fn push(&mut self, chunk: &[u8]) {
        self.n_bytes += chunk.len() as u64;
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', chunk) {
            self.extend_line(&chunk[start..newline]);
            self.end_line();
            start = newline + 1;
        }
        self.extend_line(&chunk[start..]);
    }

    /// The end of the file.
    #[must_use]
    pub fn finish(mut self) -> ScanReport {
        if self.line_bytes > 0 {
            self.end_line();
        }
        ScanReport {
            n_bytes: self.n_bytes,
            n_lines: self.n_lines,
            n_rows: self.n_rows,
            max_line_bytes: self.max_line_bytes,
            first_row: self.judge_first_row(),
        }
    }

    fn extend_line(&mut self, piece: &[u8]) {
        self.line_bytes += piece.len() as u64;
        let room = MAX_FIRST_ROW_BYTES - self.first_row.len();
        let is_in_first_row = self.n_rows == 0 && room > 0;
        let content = if is_in_first_row {
            self.first_row
                .extend_from_slice(&piece[..piece.len().min(room)]);
            if self.n_lines == 0 {
                after_bom(&self.first_row)
            } else {
                piece
            }
        } else {
            piece
        };
        self.line_has_content |= !content.trim_ascii().is_empty();
    }

    fn end_line(&mut self) {
        if self.n_lines == 0 {
            if self.first_row.starts_with(BOM) {
                self.first_row.drain(..BOM.len());
            } else {
                // What might have become a mark did not.
                self.line_has_content |= !self.first_row.trim_ascii().is_empty();
            }
        }
        self.n_lines += 1;
        self.max_line_bytes = self.max_line_bytes.max(self.line_bytes);
        if self.n_rows == 0 {
            if self.line_has_content {
                self.first_row_is_whole = self.line_bytes <= MAX_FIRST_ROW_BYTES as u64;
            } else {
                self.first_row.clear();
            }
        }
        self.n_rows += u64::from(self.line_has_content);
        self.line_bytes = 0;
        self.line_has_content = false;
    }

    fn judge_first_row(&self) -> FirstRow {
        let row = self.first_row.trim_ascii();
        if self.n_rows == 0 {
            return FirstRow::Missing;
        }
        let is_json = || {
            let text = std::str::from_utf8(row).ok();
            text.is_some_and(|text| json::parse(text).is_ok())
        };
        let is_object = row.starts_with(b"{") && (!self.first_row_is_whole || is_json());
        if is_object {
            FirstRow::Object
        } else {
            FirstRow::NotAnObject
        }
    }
}

/// The first line without its byte order mark; nothing as long as it may still become one, which may come in three chunks.
fn after_bom(line: &[u8]) -> &[u8] {
    if BOM.starts_with(line) {
        return &[];
    }
    line.strip_prefix(BOM).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(file: &[u8], chunk: usize) -> ScanReport {
        let mut scan = QuickScan::new();
        file.chunks(chunk).for_each(|chunk| scan.push(chunk));
        scan.finish()
    }

    #[test]
    fn only_a_whole_byte_order_mark_at_the_very_beginning_is_no_content() {
        for (file, n_rows) in [
            (&b"\xEF\xBB\xBF\n{}"[..], 1),
            (b"\n\xEF\xBB\xBF\n{}", 2),
            (b"\xEF\xBB\n{}", 2),
            (b"\xEF", 1),
        ] {
            for chunk in 1..4 {
                assert_eq!(scan(file, chunk).n_rows, n_rows, "{file:?} by {chunk}");
            }
        }
        assert_eq!(scan(b"\xEF\xBB\xBF{}", 2).first_row, FirstRow::Object);
        assert_eq!(scan(b"\xEF\xBB{}", 2).first_row, FirstRow::NotAnObject);
    }

    #[test]
    fn the_report_does_not_depend_on_where_chunks_are_cut() {
        let file = "\u{FEFF}\n{\"messages\": []}\r\n \n{\"a\"".as_bytes();
        for chunk in 1..=file.len() {
            let expected = ScanReport {
                n_bytes: file.len() as u64,
                n_lines: 4,
                n_rows: 2,
                max_line_bytes: 17,
                first_row: FirstRow::Object,
            };
            assert_eq!(scan(file, chunk), expected, "chunks of {chunk}");
        }
    }

    #[test]
    fn files_that_are_no_json_lines_are_seen() {
        let cases: [(&[u8], FirstRow); 7] = [
            (b"", FirstRow::Missing),
            (b"\n \n", FirstRow::Missing),
            (b"prompt,completion\n", FirstRow::NotAnObject),
            (b"[{}]\n", FirstRow::NotAnObject),
            (b"{\n\"messages\": []}", FirstRow::NotAnObject),
            (b"PK\x03\x04\xFF", FirstRow::NotAnObject),
            (b"{}", FirstRow::Object),
        ];
        for (file, expected) in cases {
            assert_eq!(scan(file, 3).first_row, expected, "{}", file.escape_ascii());
        }
    }

    #[test]
    fn a_long_first_row_takes_constant_memory() {
        let mut scan = QuickScan::new();
        scan.push(b"{\"messages\": \"");
        (0..1000).for_each(|_| scan.push(&[b'x'; 4096]));
        assert!(scan.first_row.capacity() <= 2 * MAX_FIRST_ROW_BYTES);
        let report = scan.finish();
        assert_eq!(report.first_row, FirstRow::Object);
        assert_eq!(report.max_line_bytes, 14 + 4_096_000);
    }
}
