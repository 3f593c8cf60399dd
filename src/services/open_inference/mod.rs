//! The Open Inference Protocol, which clients of KServe and Triton use, as gRPC and REST.
//!
//! - `api`: what both forms have in common. Both convert a request to a `Call` and run it with one
//!   `infer`, so they accept the same requests.
//! - `grpc`: the service `inference.GRPCInferenceService`.
//! - [`rest`]: the paths under `/v2` on the HTTP port; `json` reads and writes their bodies,
//!   `elements` the images and numbers in them.
//! - `tensors`: requests and results as tensors. `images`: from an input tensor to images.
//! - `describe`: metadata, configuration and statistics of versions.

mod api;
mod describe;
mod elements;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grpc;
mod images;
mod json;
pub(crate) mod rest;
mod tensors;

pub(crate) use self::api::OpenInference;
use self::api::{ModelRef, check_load, default_level, unload_unsupported};
