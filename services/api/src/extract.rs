//! Extractors: strings become types once, here, and what cannot be read is refused in the API's own error body.

mod id;
mod json;
mod name;
mod query;

pub use id::{Identifies, PathId, PathIds};
pub use json::{JsonBody, RawBody};
pub use name::{ModelPart, PathName, PathPart};
pub use query::{Params, unknown_cursor};
