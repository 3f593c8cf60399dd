//! Exports a model as an ONNX file, which onnxruntime, OpenVINO and other runtimes execute.
//!
//! - `encode`: the file with its input, output and metadata.
//! - `network`: the layers of the network as nodes. `nodes`: the operators that these use.
//! - `fold`: BatchNorm folded into convolutions, and the label scale into the head.
//! - `message`: the protobuf messages of the format.
//!
//! Nothing here uses libtorch.

mod encode;
mod fold;
mod message;
mod network;
mod nodes;
#[cfg(test)]
mod tests;

pub(crate) use encode::{Exported, InputFormat, write};
