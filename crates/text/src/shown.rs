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

/// One token, as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownToken<'a> {
    pub id: u32,
    /// Empty where the token ends within a character, which is then the text of the token that ends it.
    pub text: &'a str,
    pub supervised: bool,
}

/// Consecutive tokens that are all learned, or all given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    pub text: &'a str,
    pub supervised: bool,
}

impl Shown {
    /// The tokens that are kept; their texts together are all that is kept.
    pub fn tokens(&self) -> impl Iterator<Item = ShownToken<'_>> {
        let Example {
            ids, supervised, ..
        } = &self.example;
        let tokens = ids.iter().zip(supervised).zip(&self.offsets);
        // From where the one before ends: some tokenizers leave a space out of the range of the token that begins with it.
        tokens.scan(0, |start, ((id, supervised), (_, end))| {
            let end = self.boundary(*end).max(*start);
            let text = &self.text[*start..end];
            *start = end;
            Some(ShownToken {
                id: *id,
                text,
                supervised: *supervised,
            })
        })
    }

    /// The kept text in pieces; together they are all of it.
    pub fn segments(&self) -> Vec<Segment<'_>> {
        let mut segments: Vec<Segment<'_>> = Vec::new();
        let (mut start, mut end) = (0, 0);
        for token in self.tokens() {
            let goes_on = segments
                .last()
                .is_some_and(|s| s.supervised == token.supervised);
            if goes_on {
                segments.pop();
            } else {
                start = end;
            }
            end += token.text.len();
            segments.push(Segment {
                text: &self.text[start..end],
                supervised: token.supervised,
            });
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
        assert_eq!(pairs, [("ask,", false), (" reply,", true)]);
        assert_eq!(row.cut_text(), " more");
        let tokens: Vec<_> = row.tokens().map(|t| (t.text, t.supervised)).collect();
        assert_eq!(
            tokens,
            [("ask", false), (",", false), (" reply", true), (",", true)]
        );
    }

    #[test]
    fn a_token_that_ends_within_a_character_does_no_harm() {
        let row = shown("aé", &[(0, 2), (2, 3)], &[false, true]);
        let texts: Vec<_> = row.tokens().map(|token| token.text).collect();
        assert_eq!(texts, ["a", "é"]);
        let texts: Vec<_> = row.segments().iter().map(|s| s.text).collect();
        assert_eq!(texts, ["a", "é"]);
        assert_eq!(shown("", &[], &[]).segments(), []);
    }
}
