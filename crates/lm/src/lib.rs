//! Decoder-only language models on burn: loading, the forward pass, LoRA adapters, generation.
//!
//! A base model is immutable and shared; an adapter is a value handed to each call, and so are the
//! weights of a model that learns as a whole. This crate knows nothing of tenants, HTTP, Postgres,
//! datasets or losses.

pub mod adapter;
mod attention;
pub mod base;
pub mod batch;
pub mod blocks;
mod columns;
pub mod config;
pub mod device;
mod dora;
pub mod error;
pub mod full;
pub mod gguf;
pub mod learned;
mod linear;
pub mod lora;
mod memory;
pub mod merge;
mod norm;
mod ops;
mod precision;
pub mod profile;
mod rng;
pub mod rope;
pub mod safetensors_file;
pub mod sample;
pub mod session;
mod staging;
mod tensor_name;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transformer;
mod weight;
pub mod weights;

pub use adapter::Adapter;
pub use base::BaseFiles;
pub use batch::Ragged;
pub use config::ModelConfig;
pub use device::Device;
pub use error::LoadError;
pub use full::FullWeights;
pub use learned::{Activations, Learned};
pub use lora::{Dropout, LoraConfig, Target};
pub use merge::Merged;
pub use precision::Precision;
pub use safetensors_file::Dtype;
pub use session::Session;
pub use transformer::CausalLm;
pub use weights::WeightSource;
