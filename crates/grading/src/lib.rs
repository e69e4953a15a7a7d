//! Graders: a number for what a model said about a row.
//!
//! Nothing here asks a model, reads a file or knows a tenant. A grader that needs a model's opinion says what to ask
//! ([`Grader::questions`]); whoever can ask brings the answers back ([`Grader::grade`]).

pub mod formula;
pub mod grader;
mod grading;
mod judge;
pub mod similarity;
mod string_check;
pub mod template;

pub use grader::{Grader, GraderError, Kind, Leaf};
pub use grading::{Answer, AskError, Flags, Grading, Reply, Scored, Usage};
pub use judge::Question;
pub use string_check::Operation;
pub use template::Sample;
