//! Tokens that were taken before anybody knew how many it would be.

use domain::ProjectId;

use super::Throttle;

/// What a request was expected to take. Dropped without a word it stays taken: the work was done, whoever hung up.
#[derive(Debug)]
pub struct TokenHold {
    throttle: Throttle,
    project_id: ProjectId,
    expected: u64,
}

impl TokenHold {
    pub(super) fn new(throttle: Throttle, project_id: ProjectId, expected: u64) -> Self {
        Self {
            throttle,
            project_id,
            expected,
        }
    }

    /// What was expected.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// It was so many in the end.
    pub fn settle(self, used: u64) {
        self.throttle.correct(self.project_id, self.expected, used);
    }

    /// It was nothing: the request was refused.
    pub fn refund(self) {
        self.settle(0);
    }
}
