//! Lines of a file that may have no lines: a cap on what is kept of each.

use std::io::{self, BufRead, ErrorKind};

/// UTF-8's byte order mark, which Windows and Azure's guide put first in a file.
pub(crate) const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Splits at newlines and keeps at most `max_line_bytes` of a line in memory.
pub(crate) struct Lines<R> {
    reader: R,
    max_line_bytes: usize,
    buffer: Vec<u8>,
    n_read: u64,
    byte_offset: u64,
}

/// A line without its newline; the bytes are in [`Lines::buffer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1.
    pub(crate) number: u64,
    pub(crate) byte_offset: u64,
    /// Longer than the cap, so that the buffer holds only its beginning.
    pub(crate) is_too_long: bool,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R, max_line_bytes: usize) -> Self {
        Self {
            reader,
            max_line_bytes,
            buffer: Vec::new(),
            n_read: 0,
            byte_offset: 0,
        }
    }

    /// The bytes of the last line read.
    pub(crate) fn bytes(&self) -> &[u8] {
        let bytes = self.buffer.as_slice();
        if self.n_read == 1 {
            bytes.strip_prefix(BOM).unwrap_or(bytes)
        } else {
            bytes
        }
    }

    /// The number and the place that the next line would have.
    pub(crate) fn position(&self) -> (u64, u64) {
        (self.n_read + 1, self.byte_offset)
    }

    /// Read the next line; `None` at the end of the file.
    pub(crate) fn advance(&mut self) -> io::Result<Option<Line>> {
        self.buffer.clear();
        let start = self.byte_offset;
        let mut is_too_long = false;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let is_end = chunk.is_empty();
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            let content = &chunk[..newline.unwrap_or(chunk.len())];
            let room = self.max_line_bytes - self.buffer.len();
            is_too_long |= content.len() > room;
            append(
                &mut self.buffer,
                &content[..content.len().min(room)],
                self.max_line_bytes,
            );
            let n_used = content.len() + usize::from(newline.is_some());
            self.reader.consume(n_used);
            self.byte_offset += n_used as u64;
            if is_end && self.byte_offset == start {
                return Ok(None);
            }
            if is_end || newline.is_some() {
                break;
            }
        }
        self.n_read += 1;
        Ok(Some(Line {
            number: self.n_read,
            byte_offset: start,
            is_too_long,
        }))
    }
}

/// Append, doubling the buffer as a vector does, but never past `max_bytes`.
fn append(buffer: &mut Vec<u8>, bytes: &[u8], max_bytes: usize) {
    let needed = buffer.len() + bytes.len();
    if needed > buffer.capacity() {
        let capacity = (buffer.capacity() * 2).clamp(needed, max_bytes);
        buffer.reserve_exact(capacity - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    fn all_lines(file: &[u8], max_line_bytes: usize, chunk: usize) -> Vec<(u64, bool, Vec<u8>)> {
        let mut lines = Lines::new(BufReader::with_capacity(chunk, file), max_line_bytes);
        let mut seen = Vec::new();
        while let Some(line) = lines.advance().unwrap() {
            seen.push((line.byte_offset, line.is_too_long, lines.bytes().to_vec()));
        }
        seen
    }

    #[test]
    fn lines_are_the_same_for_every_chunk_size() {
        let file = b"\xEF\xBB\xBFab\n\nlonger\nend";
        for chunk in 1..20 {
            let expected = vec![
                (0, false, b"ab".to_vec()),
                (6, false, Vec::new()),
                (7, true, b"longe".to_vec()),
                (14, false, b"end".to_vec()),
            ];
            assert_eq!(all_lines(file, 5, chunk), expected, "chunks of {chunk}");
        }
        assert!(all_lines(b"", 5, 4).is_empty());
    }

    #[test]
    fn two_gigabytes_without_a_newline_take_no_memory() {
        let endless = io::repeat(b'x').take(2 << 30);
        let mut lines = Lines::new(BufReader::with_capacity(1 << 20, endless), 1000);
        let line = lines.advance().unwrap().unwrap();
        assert!(line.is_too_long);
        assert!(lines.buffer.capacity() <= 1000);
        assert_eq!(lines.advance().unwrap(), None);
    }
}
