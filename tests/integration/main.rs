//! The server as a user runs it: the real binary on free ports, called through the public API.
//!
//! One binary, so that the crate is linked once. Every test starts a server of its own in a temporary directory.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by a panic, and says on stderr what it skips"
)]

/// Streams of images, mirror images, answers that are kept, and clients that share a server.
mod batches;
/// Browsers: gRPC-Web on both ports, and origins.
mod browsers;
/// Files of initial weights as other programs and this one write them.
mod checkpoints;
/// Compressed calls, and reflection on the details of errors.
mod clients;
/// Pausing, resuming and changing trainings, and what ends them by their own spec.
mod control;
/// Age patterns for the paths of images, and columns of manifests.
mod dataset_reading;
/// Datasets that are checked: what is found in them, and what the checks leave alone.
mod datasets;
/// The reference tables match the program, and imports follow the module layers.
mod documentation;
/// Feature cache and number formats: faster, and the same figures.
mod engine;
/// What the server says of a version on a dataset, against what Predict says of the same images.
mod evaluation;
/// Photographs with several faces, and what makes an age.
mod faces;
/// What goes wrong while a training runs: each ends in its state and stop reason, and the server goes on.
mod faults;
/// Files that are made to harm.
mod hostile;
/// Datasets with a name: registered and uploaded ones, trainings on them, and uploads that survive a killed server.
mod named_datasets;
/// The Open Inference Protocol on the wire.
mod open_inference;
/// Machines that lose power, and with it what was not synced.
mod power;
/// Predictions beside loads and beside images that nobody waits for.
mod pressure;
/// What Prometheus' own tools say about the metrics.
mod prometheus;
/// Which model version is served after which training.
mod promotion;
/// Real photographs, where they are at hand.
mod real_faces;
/// Servers that are killed at any moment, and what the next one still knows.
mod restarts;
/// Trainings that are interrupted at random moments, and give what undisturbed ones give.
mod resume;
/// The face model that is part of the program: served at once, trained from, and made anew.
mod starter;
/// Starts servers, draws faces, waits for conditions.
mod support;
/// Many trainings by one command, through a queue that is short.
mod sweeps;
/// Traces as a collector gets them, and what the log says meanwhile.
mod traces;
/// Stop and cancel in every phase, and the queue.
mod trainings;
