//! What is wrong with the request as HTTP has it: its size, its type, its range, or that it came before.

use super::{ApiError, ErrorCode, Kind, Retry};

impl ApiError {
    /// The same request is being carried out by another connection. The one conflict that goes away by itself.
    pub fn request_in_flight() -> Self {
        let message =
            "The same request is being carried out right now. Send it again to get its answer.";
        Self::new(Kind::InFlight, message).code(ErrorCode::RequestInFlight)
    }

    /// The request's idempotency key belongs to another request.
    pub fn idempotency_key_reused() -> Self {
        let message = "This `Idempotency-Key` was used for a request with another body. Use a new key for a new request.";
        Self::new(Kind::KeyReused, message)
            .param("Idempotency-Key")
            .code(ErrorCode::IdempotencyKeyReused)
    }

    /// The same request made `what` before, whose secret was shown then and is not kept. `way_out` says how to get another.
    pub fn already_made(what: &str, way_out: &str) -> Self {
        let message = format!(
            "This request has made {what} already. Its secret was in the first answer and is shown only once: if that \
             answer was lost, {way_out}."
        );
        Self {
            retry: Some(Retry::Never),
            ..Self::new(Kind::AlreadyMade, message).code(ErrorCode::AlreadyMade)
        }
    }

    /// The body is longer than `max_bytes`.
    pub fn too_large(what: &str, max_bytes: u64) -> Self {
        let message = format!("The {what} is larger than the allowed {max_bytes} bytes.");
        Self::new(Kind::TooLarge, message).code(ErrorCode::RequestTooLarge)
    }

    /// The body is of a type that the route does not read.
    pub fn unsupported_media_type(wanted: &str) -> Self {
        let message = format!("The request's body must be sent with `content-type: {wanted}`.");
        Self::new(Kind::UnsupportedMediaType, message).code(ErrorCode::UnsupportedMediaType)
    }

    /// The asked-for range lies beyond the end.
    pub fn range_not_satisfiable(size_bytes: u64) -> Self {
        let message = format!("The range lies outside the file, which has {size_bytes} bytes.");
        Self::new(Kind::RangeNotSatisfiable, message).code(ErrorCode::RangeNotSatisfiable)
    }
}
