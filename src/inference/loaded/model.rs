//! Loading, and the choice of the precision.
//!
//! In 16 bits a network is up to four times faster, but rounds differently. When a version is
//! loaded, its ages on the probes are compared with libtorch's in f32; a precision that changes
//! them by more than [`MAX_DIFFERENCE`] is skipped for the next one, with a warning in the log.

use std::collections::BTreeMap;

use tch::{Device, Tensor};

use super::{
    network::{Network, PendingForward},
    probes,
};
use crate::{
    inference::ServedModel,
    model::{
        self, checkpoint,
        fused::Threads,
        precision::{Precision, PrecisionPolicy},
        resnet18::Output,
    },
};

/// Largest accepted mean change of the ages, in years.
const MAX_DIFFERENCE: f64 = 0.1;

/// A network with its precision.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    network: Network,
    pub(crate) report: PrecisionReport,
}

/// The precision of a loaded version, and its cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PrecisionReport {
    pub precision: Precision,
    /// Mean change of the ages of the probes in years, compared with libtorch's f32.
    pub difference: f64,
}

impl LoadedModel {
    /// Reads the weights, chooses the precision, and runs one forward pass, which allocates what
    /// the first prediction would have to. With the report of equal weights nothing is compared,
    /// which is half of the work.
    ///
    /// # Errors
    /// Weights that cannot be read or do not compute.
    pub(crate) fn read(
        model: &ServedModel,
        device: Device,
        policy: PrecisionPolicy,
        known: Option<PrecisionReport>,
        threads: &Threads,
    ) -> Result<Self, model::Error> {
        let state = checkpoint::read_model(&model.weights, &model.sha256)?;
        if let Some(report) = known
            && let Some(mut network) = Network::new(&state, device, report.precision)?
        {
            let blank = vec![0.0; model.input.values()];
            network.forward(&[blank], model.input.size, threads)?;
            return Ok(LoadedModel { network, report });
        }
        LoadedModel::choose(&state, model, device, policy, threads)
    }

    fn choose(
        state: &BTreeMap<String, Tensor>,
        model: &ServedModel,
        device: Device,
        policy: PrecisionPolicy,
        threads: &Threads,
    ) -> Result<Self, model::Error> {
        let (probes, size) = (probes::preprocessed(model), model.input.size);
        let mut exact = Network::libtorch(state, device, Precision::F32)?;
        let expected = exact.forward(&probes, size, threads)?;
        let candidates = match policy {
            PrecisionPolicy::Auto => Precision::candidates(device),
            PrecisionPolicy::Only(precision) => vec![precision],
        };
        for precision in candidates {
            let Some(mut network) = Network::new(state, device, precision)? else {
                if precision == Precision::F32 {
                    break;
                }
                let error = model::Error::Precision {
                    precision,
                    reason: "its range is too small for the network's values",
                };
                if policy != PrecisionPolicy::Auto {
                    return Err(error);
                }
                tracing::warn!(model = model.name, %error, "trying the next precision");
                continue;
            };
            let found = network.forward(&probes, size, threads)?;
            let change = total_change(&found, &expected);
            let difference = model.label.scale.abs() * change / expected.len() as f64;
            let is_accepted = difference <= MAX_DIFFERENCE;
            if !is_accepted {
                tracing::warn!(
                    model = model.name,
                    precision = precision.name(),
                    difference,
                    limit = MAX_DIFFERENCE,
                    "the precision changes the ages of the probes by more than the limit"
                );
            }
            if is_accepted || policy != PrecisionPolicy::Auto {
                let report = PrecisionReport {
                    precision,
                    difference,
                };
                return Ok(LoadedModel { network, report });
            }
        }
        let report = PrecisionReport {
            precision: Precision::F32,
            difference: 0.0,
        };
        Ok(LoadedModel {
            network: exact,
            report,
        })
    }

    /// Returns the report if it holds for every network with these weights; `None` where libtorch
    /// computes because the chosen precision has no other implementation.
    pub(crate) fn reusable_report(&self) -> Option<PrecisionReport> {
        self.network.is_fused().then_some(self.report)
    }

    /// Starts a forward pass; see [`Network::start`].
    ///
    /// # Errors
    /// If memory is exhausted, or libtorch fails.
    pub(crate) fn start(
        &mut self,
        images: &[&[f32]],
        explain: &[bool],
        model: &ServedModel,
        threads: &Threads,
        before: &mut dyn FnMut(),
    ) -> Result<PendingForward, model::Error> {
        self.network
            .start(images, explain, model.input.size, threads, before)
    }
}

/// Sum of the absolute differences of the outputs, before the label scale is applied.
fn total_change(found: &[Output], expected: &[Output]) -> f64 {
    let pairs = found.iter().zip(expected);
    pairs
        .map(|(found, expected)| f64::from((found.value - expected.value).abs()))
        .sum()
}
