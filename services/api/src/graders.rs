//! The graders endpoints: a grader tried out on one sample. What graders are is `grading`'s business; here models are
//! asked in the project's name.

mod ask;
mod body;
pub mod run;
pub mod validate;

use grading::{Grader, GraderError};
use serde_json::Value;

use crate::error::{ApiError, ErrorCode};

const PATH: &str = "grader";

fn read(body: &Value) -> Result<Grader, ApiError> {
    let grader = body.get(PATH).filter(|grader| !grader.is_null());
    let grader = grader.ok_or_else(|| ApiError::invalid(PATH, "`grader` is missing."))?;
    Ok(Grader::read(PATH, grader)?)
}

impl From<GraderError> for ApiError {
    fn from(error: GraderError) -> Self {
        let refused = Self::invalid(error.field.as_str(), error.to_string());
        if error.is_unsupported {
            refused.code(ErrorCode::UnsupportedGrader)
        } else {
            refused
        }
    }
}
