//! Reports to Weights & Biases: with which account a project's jobs report, and how far each report is.

pub mod accounts;
pub mod runs;
