//! A model version as the engine computes with it.
//!
//! - `model`: loading, and the choice of the precision.
//! - `network`: the implementations of the forward pass. `staging`: copies batches to the device.
//! - `probes`: images by which precisions are compared.

mod model;
mod network;
mod probes;
mod staging;

pub(super) use model::LoadedModel;
pub(crate) use model::PrecisionReport;
pub(super) use network::PendingForward;
