//! Tests of the weights reader. What the files must read as was written by torch, see
//! `tests/fixtures/generate/make_weight_fixtures.py`.

/// Networks within other things: other state dicts, objects of any class, prefixes.
mod containers;
/// Files written by torch and safetensors read exactly; other files are refused with a sentence
/// that helps.
mod formats;
/// Files made to harm: pickles that call, sizes that lie, bytes that were flipped.
mod hostile;
/// The hub, played by a small HTTP server.
mod hub;
/// The HTTP server that plays the hub.
mod hub_server;
/// The search order and what is checked about torchvision's weights.
mod imagenet;

use std::path::PathBuf;

/// A file under `tests/fixtures/weights`.
fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/weights")
        .join(name)
}
