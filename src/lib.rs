//! Visage fine-tunes a pretrained ResNet18 into an age regressor and serves it over gRPC, from one binary.
//!
//! # Code map, in reading order
//!
//! - [`proto`]: the API's generated messages; `proto/visage/v1/*.proto` is their documentation. [`names`]: resource names.
//! - [`config`]: settings from defaults, file, environment and flags.
//! - [`server`]: the composition root: what is made of what, in which order, and how it ends.
//! - [`services`]: the gRPC services, thin, the Open Inference Protocol among them, and the one table from errors to statuses.
//! - [`training`]: specs, the queue and its child processes, the loop over epochs.
//! - [`inference`]: predictions: admission, decoding, the engine that computes batches.
//! - [`registry`]: model versions and aliases; joins training and inference.
//! - [`store`] and [`artifacts`]: what survives: SQL and content-addressed files. [`files`]: files that are there whole or not at all.
//! - [`datasets`]: named datasets, registered or uploaded.
//! - [`dataset`] and [`imaging`]: from files to the network's input. [`synth`]: synthetic faces for demos and tests.
//! - [`detection`]: face detection. [`priority`]: scheduling priorities of threads and processes.
//! - [`evaluation`]: how well predictions fit, and the intervals that follow; used by training and inference.
//! - [`model`]: the network, its weights, its device.
//! - [`telemetry`]: all metrics, the HTTP port, logging. [`dashboard`]: the pages of that port.
//!
//! # Invariants
//!
//! - Training and inference never import each other. Nothing under `services` holds a tensor.
//! - No forward pass and no decoding on an async thread. Every forward pass of a process runs on one thread.
//! - An event is durable before anyone is told of it.
//! - No metric has its name outside of `telemetry/metrics.rs`, no `Status` is made outside of `services`, and only `config` reads the environment.
//! - There is one preprocessing, [`imaging`], for training and for serving.

pub mod artifacts;
pub mod cli;
pub mod config;
pub mod dashboard;
pub mod dataset;
pub mod datasets;
pub mod detection;
pub mod evaluation;
pub mod files;
pub mod imaging;
pub mod inference;
pub mod model;
pub mod names;
pub mod priority;
pub mod proto;
pub mod registry;
pub mod server;
pub mod services;
pub mod store;
pub mod synth;
pub mod telemetry;
pub mod training;
