//! The real binary on free ports, called through its public interfaces.
//!
//! All tests are one binary, so that the crate is linked once. Every test starts its own server in
//! a temporary directory.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a failed test panics, and a skipped one prints its reason"
)]

/// Batches of images, mirror images, the cache, and fairness between clients.
mod batches;
/// gRPC-Web on both ports, and allowed origins.
mod browsers;
/// Initial weights in the formats of other programs and of Visage.
mod checkpoints;
/// Compressed calls, and reflection of error details.
mod clients;
/// The commands and their output.
mod command_line;
/// Pausing, resuming and changing trainings, and ends that the spec defines.
mod control;
/// Age patterns and manifest columns.
mod dataset_reading;
/// Dataset checks: findings, and isolation from other work.
mod datasets;
/// Reference tables against the program, and words that stay in their modules.
mod documentation;
/// The feature cache and precisions: equal metrics.
mod engine;
/// Evaluations against the predictions of the same images.
mod evaluation;
/// Several faces per image, and explanations.
mod faces;
/// Failures during a training: final state, stop reason, unaffected server.
mod faults;
/// Malicious image files.
mod hostile;
/// Layers of the modules and import cycles.
mod imports;
/// The hub, free ids and the validation before training.
mod initial_weights;
/// Banned phrases and the length of comment lines.
mod language;
/// The Open Inference Protocol.
mod open_inference;
/// Loss of power, and of everything that was not synced.
mod power;
/// Predictions beside model loads, expired calls and trainings.
mod pressure;
/// Metrics according to Prometheus' own tools.
mod prometheus;
/// The live version after trainings.
mod promotion;
/// `visage dataset push` through a killed server.
mod push;
/// Trainings with several processes.
mod ranks;
/// Real photos, if they are available.
mod real_faces;
/// Registered datasets, and trainings on them.
mod registered_datasets;
/// Servers killed at any moment.
mod restarts;
/// Trainings interrupted at random moments, compared with undisturbed ones.
mod resume;
/// The built-in face model.
mod starter;
/// Servers, requests and conditions.
mod support;
/// Sweeps through a short queue.
mod sweeps;
/// Traces as a collector receives them, and the log filter.
mod traces;
/// Stop and cancel in every phase, and the queue.
mod trainings;
/// Uploads over HTTP that survive a killed server.
mod uploads;
/// Deleted versions and disk use.
mod versions;
