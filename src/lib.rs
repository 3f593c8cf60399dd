//! Visage fine-tunes a pretrained ResNet18 into an age regressor and serves it over gRPC, from one
//! binary.
//!
//! # Code map, from the highest layer to the lowest
//!
//! A module imports modules of lower layers only; `tests/integration/imports.rs` has the layers.
//!
//! - [`cli`]: the command line. Except for `serve`, `worker` and `synth`, each command is a client
//!   of the API.
//! - [`server`]: the composition root: components, listeners, layers, routes and shutdown.
//! - [`services`]: the gRPC services and the Open Inference Protocol. They check requests and
//!   convert messages; `services/status` maps errors to statuses.
//! - [`backup`]: copies, checks and restores data directories. [`maintenance`]: verifies artifacts
//!   and deletes old rows in the background.
//! - [`registry`]: model versions and aliases: resolves, promotes and publishes them. Joins
//!   training and inference.
//! - [`training`]: training specs, the supervisor with its queue and state machine, and the worker
//!   process that runs the epochs.
//! - [`inference`]: admission, cache, decoding, queue, engine, response.
//! - [`datasets`]: named datasets, registered or uploaded. [`synth`]: drawn faces for demos and
//!   tests.
//! - [`evaluation`]: metrics of predictions and conformal intervals.
//! - [`model`]: the network, its weights, kernels, precision and device.
//! - [`dataset`]: reads directories and manifests into a training set with splits.
//! - [`store`]: the SQL database. [`artifacts`]: content-addressed files.
//! - [`imaging`]: decodes, resizes and normalizes images. [`detection`]: finds faces.
//! - [`telemetry`]: metrics, traces and logs. [`dashboard`]: the embedded web pages.
//! - [`access`]: identities, roles and credentials.
//! - [`config`]: settings from defaults, file, environment and flags.
//! - [`names`]: resource names. [`files`]: atomic, durable file writes. [`disk`]: free space.
//!   [`quarantine`]: files that the database does not know. [`priority`]: scheduling priority of
//!   threads. [`proto`]: generated messages; the comments in `proto/visage/v1` are the reference of
//!   the API.
//!
//! # Invariants
//!
//! - Training and inference never import each other. Nothing under `services` holds a tensor.
//! - No forward pass and no decoding runs on an async thread. All forward passes of a process run
//!   on one thread.
//! - An event is durable before it is sent.
//! - Every queue is bounded, and a full one has a defined response.
//! - Metric names are defined in `telemetry/metrics` only, a `Status` is created in `services`, in
//!   `server` and by the codec in `proto` only, and only `config` reads the environment.
//! - Training and serving share one preprocessing, [`imaging`].
//!
//! # Glossary
//!
//! | Term | Meaning |
//! |---|---|
//! | admission | the decision whether a request is accepted, from capacity, quotas and deadline |
//! | alias | a name that refers to a model version: `live`, `previous` or a user's |
//! | artifact | a file in the content-addressed store, named by its SHA-256 |
//! | batch | queue entries or training images that share one forward pass |
//! | checkpoint | `model.safetensors`, `manifest.json` and `training-images.bin` of one epoch |
//! | dataset | images with ages: a directory, a manifest, or one of these under a name |
//! | directory, image | not folder; not picture or photograph |
//! | evict | remove a loaded model from memory to free its place |
//! | full checkpoint | a checkpoint with the optimizer's state, for a bit-equal resume |
//! | golden faces | the built-in images that a precision is checked with when a model is loaded |
//! | heartbeat | the message by which a worker shows that it is alive |
//! | live | the alias of the version that serves requests which name no version |
//! | load | read a model version into memory and prepare its kernels |
//! | loss | the value that the optimizer minimizes; MSE by default |
//! | metric | a measured value: of Prometheus, or of an epoch such as the MAE in years |
//! | permit | the right of an admitted image to use memory and compute; released when dropped |
//! | precision | the number format of a forward pass: f32, bf16, f16 |
//! | promote | point the alias `live` at a version |
//! | queue entry | an admitted, decoded image that waits for the engine |
//! | recipe | a named set of training settings |
//! | resume point | the full checkpoint that a training continues from |
//! | split | one of training, validation and test images |
//! | starter | the age model that is built into the program |
//! | supervisor | the part of the server that queues trainings and runs their workers |
//! | version | a numbered, immutable model that a training or an import published |
//! | worker | the child process of one training |

mod access;
mod artifacts;
mod backup;
pub mod cli;
mod config;
mod dashboard;
mod dataset;
mod datasets;
mod detection;
mod disk;
mod evaluation;
mod files;
mod imaging;
mod inference;
mod maintenance;
mod model;
mod names;
mod priority;
pub mod proto;
mod quarantine;
mod registry;
mod server;
mod services;
mod store;
mod synth;
mod telemetry;
mod training;

/// Items of private modules for the integration tests and the fuzz targets; not an API.
#[doc(hidden)]
pub mod testing {
    #[cfg(fuzzing)]
    pub use crate::services::open_inference::fuzzing;
    pub use crate::{
        config::markdown_table as settings_table,
        imaging::{Limits, Preprocessor, decode, inspect},
        model::weights::{StateDict, TensorData, read as read_weights, to_pth},
        synth::{Options as SynthOptions, Person, write_faces},
        telemetry::metrics::{FAMILIES, markdown_table as metrics_table},
    };
}
