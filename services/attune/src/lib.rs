//! Attune on one machine: storage, services under supervision, and the command line.
//!
//! Production runs the same services with other settings; nothing here knows what a job or a request
//! is. Everything of one installation lives in one [`data_dir`].

pub mod account;
pub mod admin;
pub mod child;
pub mod cli;
mod code;
pub mod data_dir;
pub mod export;
pub mod migrate;
pub mod models;
pub mod postgres;
pub mod print;
pub mod registry;
pub mod secrets;
pub mod services;
pub mod shutdown;
pub mod storage;
pub mod supervisor;
pub mod train;
pub mod up;
