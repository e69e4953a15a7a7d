//! The batches endpoints, and the loop that answers batches. A batch is made at once; its input is read, its requests
//! are answered and its files are written by [`Runner`], in turns that any replica may take up where another stopped.

mod answer;
pub mod cancel;
pub mod create;
mod finish;
mod input;
pub mod list;
mod output;
pub mod retrieve;
mod runner;
mod view;

pub use runner::{Pace, Runner, TurnError};
pub use view::BatchObject;

/// Where the requests of a batch may go.
const ENDPOINT: &str = "/v1/chat/completions";
