//! Quality of predictions, for the test of a training and for evaluations by the server.
//!
//! - [`metrics`]: errors over a set of images. [`groups`]: errors by group.
//! - [`conformal`]: prediction intervals from validation residuals.
//! - [`plots`]: predictions and residuals as PNG.
//!
//! Training and inference use this module, which depends on neither.

pub(crate) mod conformal;
pub(crate) mod groups;
pub(crate) mod metrics;
pub(crate) mod plots;
mod scored;
#[cfg(test)]
mod tests;

use scored::mean;
pub(crate) use scored::{ErrorSums, Image, Scored};
