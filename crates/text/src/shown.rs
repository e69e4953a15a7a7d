//! A row as a person looks at it before training: the text, and which of it is learned.

use crate::Example;

/// A conversation as text and as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// All of it, also what is cut off.
    pub text: String,
    /// The tokens that are kept, with the targets marked.
    pub example: Example,
    /// How many tokens there are without a limit.
    pub n_uncut_tokens: usize,
    /// Byte ranges in the text, one per token that is kept.
    pub(crate) offsets: Vec<(usize, usize)>,
}

/// Consecutive tokens that are all learned, or all given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    pub text: &'a str,
    pub supervised: bool,
}

impl Shown {
    /// The kept text in pieces; together they are all of it.
    pub fn segments(&self) -> Vec<Segment<'_>> {
        let mut segments = Vec::new();
        let mut start = 0;
        let mut tokens = self.example.supervised.iter().zip(&self.offsets).peekable();
        while let Some((supervised, (_, end))) = tokens.next() {
            let next = tokens.peek();
            if next.is_some_and(|(other, _)| *other == supervised) {
                continue;
            }
            // Up to where the next token begins: a tokenizer may leave out spaces between two.
            let end = next.map_or(*end, |(_, (start, _))| *start);
            let end = self.boundary(end).max(start);
            segments.push(Segment {
                text: &self.text[start..end],
                supervised: *supervised,
            });
            start = end;
        }
        segments
    }

    /// The text beyond the last token that is kept.
    pub fn cut_text(&self) -> &str {
        let end = self.offsets.last().map_or(0, |(_, end)| *end);
        &self.text[self.boundary(end)..]
    }

    /// A token may end within a character; the whole character then belongs to the token after it.
    fn boundary(&self, byte: usize) -> usize {
        let mut byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, offsets: &[(usize, usize)], supervised: &[bool]) -> Shown {
        Shown {
            text: text.to_owned(),
            example: Example {
                ids: vec![0; offsets.len()],
                supervised: supervised.to_vec(),
                truncated: false,
            },
            n_uncut_tokens: offsets.len(),
            offsets: offsets.to_vec(),
        }
    }

    #[test]
    fn segments_are_the_kept_text_in_order() {
        let row = shown(
            "ask, reply, more",
            &[(0, 3), (3, 4), (5, 10), (10, 11)],
            &[false, false, true, true],
        );
        let segments = row.segments();
        let pairs: Vec<_> = segments.iter().map(|s| (s.text, s.supervised)).collect();
        assert_eq!(pairs, [("ask, ", false), ("reply,", true)]);
        assert_eq!(row.cut_text(), " more");
    }

    #[test]
    fn a_token_that_ends_within_a_character_does_no_harm() {
        let row = shown("aé", &[(0, 2), (2, 3)], &[false, true]);
        let texts: Vec<_> = row.segments().iter().map(|s| s.text).collect();
        assert_eq!(texts, ["a", "é"]);
        assert_eq!(shown("", &[], &[]).segments(), []);
    }
}
