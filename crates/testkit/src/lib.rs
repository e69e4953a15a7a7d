//! What tests of several crates start from. A dev-dependency, never part of the product.

pub mod database;
