//! What can be wrong with a line. Each text names the field and what to do about it, because the
//! person who reads it has the file in front of them and nothing else.

use std::fmt;

/// A line that cannot be trained on, or that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} (byte {byte_offset}): {kind}")]
pub struct RowError {
    /// Counted from 1, blank lines included.
    pub line: u64,
    /// Where the line begins in the file, counted from 0.
    pub byte_offset: u64,
    pub kind: RowErrorKind,
}

/// The reasons. `field` is a path such as `messages[2].content`.
#[derive(Debug, thiserror::Error)]
pub enum RowErrorKind {
    #[error("the file has no rows; write one JSON object with `messages` on each line")]
    Empty,
    #[error(
        "the line is longer than {max_bytes} bytes; split the row, or check that rows end with a \
         newline"
    )]
    LineTooLong { max_bytes: usize },
    #[error("there are more than {max_rows} rows; split the file")]
    TooManyRows { max_rows: u64 },
    #[error("byte {position} of the line is not UTF-8; save the file as UTF-8")]
    NotUtf8 { position: usize },
    #[error("the line is not JSON (column {column}: {reason}); write one JSON object on each line")]
    NotJson { column: usize, reason: String },
    #[error(
        "the line ends in the middle of its JSON; a row has to be on one line, and if this is the \
         last line the file was cut short"
    )]
    CutShort,
    #[error("the JSON is nested more than {max_depth} levels deep; flatten it")]
    TooDeep { max_depth: usize },
    #[error("the key `{key}` appears twice in one object (column {column}); remove one of them")]
    DuplicateKey { key: String, column: usize },
    #[error("`{field}` contains a NUL character (U+0000); remove it")]
    Nul { field: String },
    #[error("the row is {found}; it has to be an object with `messages`")]
    NotAnObject { found: &'static str },
    #[error("`messages` is missing; a row is {{\"messages\": [{{\"role\": …, \"content\": …}}]}}")]
    NoMessages,
    #[error(
        "`messages` is missing; write `prompt` and `completion` as a user message and an assistant \
         message"
    )]
    PromptCompletion,
    #[error(
        "`messages` is missing; a row with `input` and two outputs is a preference, for the methods \
         dpo, ipo, orpo and simpo"
    )]
    PreferenceRow,
    #[error(
        "`input` is missing; a row with `messages` is a conversation, for the method supervised (or \
         kto, with a `label`)"
    )]
    ChatRow,
    #[error(
        "`input` is missing; a preference is {{\"input\": {{\"messages\": […]}}, \
         \"preferred_output\": […], \"non_preferred_output\": […]}}"
    )]
    NoPreference,
    #[error("`{field}` has no assistant message with a weight other than 0; add the answer")]
    NoAnswer { field: &'static str },
    #[error("both outputs are the same, so neither is better; change one or remove the row")]
    SameAnswers,
    #[error("`messages` has {found} messages; at most {max} are allowed, so split the row")]
    TooManyMessages { found: usize, max: usize },
    #[error("`{field}` is {found}; it has to be {expected}")]
    WrongType {
        field: String,
        expected: &'static str,
        found: &'static str,
    },
    #[error("`{field}` is missing; it has to be {expected}")]
    Missing {
        field: String,
        expected: &'static str,
    },
    #[error(
        "`{field}` is `{role}`; a role is system, developer, user, assistant, tool or function"
    )]
    UnknownRole { field: String, role: String },
    #[error("`{field}` {problem}")]
    Content {
        field: String,
        problem: text::ContentError,
    },
    #[error("`{field}` is {found}; a weight is 0 (not trained on) or 1")]
    Weight { field: String, found: String },
    #[error("`{field}` is on a {role} message; only assistant messages have a weight")]
    WeightElsewhere { field: String, role: String },
    #[error("`{field}` is not JSON; write the arguments as a string that holds a JSON object")]
    Arguments { field: String },
    #[error("the row has no assistant message, so there is nothing to learn from it; add one")]
    NoAssistant,
    #[error(
        "every assistant message of the row has `weight` 0, so there is nothing to learn from it; \
         give one weight 1 or remove the row"
    )]
    NothingWeighted,
    /// Not the data's fault.
    #[error("the file could not be read")]
    Read(#[source] std::io::Error),
}

impl RowErrorKind {
    /// Whether the tenant's data is at fault, and not the reading of it.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Read(_))
    }
}

/// The faulty lines of a file: the first few, and how many there are.
#[derive(Debug)]
pub struct Faults {
    pub first: Vec<RowError>,
    /// All of them, those in `first` included.
    pub total: u64,
}

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.first.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(out, "{separator}{error}")?;
        }
        let n_more = self.total.saturating_sub(self.first.len() as u64);
        if n_more > 0 {
            write!(out, "\nand {n_more} more faulty lines")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.first.first()?.kind)
    }
}
