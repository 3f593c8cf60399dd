//! The implementations of the forward pass.

use std::collections::BTreeMap;

use tch::{Device, Tensor};

use super::staging::Staging;
use crate::model::{
    self,
    fused::{self, Threads},
    precision::Precision,
    resnet18::{Output, PendingOutputs, ResNet18, TrainableFrom},
};

#[derive(Debug)]
pub(super) enum Network {
    Fused(Box<fused::Network>, fused::Workspace),
    Libtorch(Box<ResNet18>, Staging),
}

/// A forward pass that has been started.
#[derive(Debug)]
pub(crate) enum PendingForward {
    Done(Vec<Output>),
    /// On a device that computes asynchronously.
    Pending(PendingOutputs),
}

impl PendingForward {
    /// Waits for the outputs.
    ///
    /// # Errors
    /// If the device failed.
    pub(crate) fn finish(self) -> Result<Vec<Output>, model::Error> {
        match self {
            PendingForward::Done(outputs) => Ok(outputs),
            PendingForward::Pending(pending) => pending.finish(),
        }
    }
}

impl Network {
    /// Returns `None` if the precision cannot hold the network's values, or if f32 is libtorch's.
    pub(super) fn new(
        state: &BTreeMap<String, Tensor>,
        device: Device,
        precision: Precision,
    ) -> Result<Option<Self>, model::Error> {
        if device == Device::Cpu
            && let Some(network) = fused::Network::new(precision, state, 4)?
        {
            let workspace = fused::Workspace::new();
            return Ok(Some(Network::Fused(Box::new(network), workspace)));
        }
        match precision {
            Precision::F16 | Precision::F32 | Precision::F16Weights => Ok(None),
            Precision::Bf16 => Network::libtorch(state, device, Precision::Bf16).map(Some),
        }
    }

    pub(super) fn libtorch(
        state: &BTreeMap<String, Tensor>,
        device: Device,
        precision: Precision,
    ) -> Result<Self, model::Error> {
        let moved = state.iter().map(|(name, tensor)| {
            let tensor = tensor.f_to_device(device)?;
            Ok((name.clone(), tensor))
        });
        let state = moved.collect::<Result<BTreeMap<_, _>, tch::TchError>>()?;
        // Nothing is trained here, and with all layers but the head frozen every BatchNorm can be
        // folded.
        let network =
            ResNet18::new(&state, TrainableFrom::HEAD, precision)?.without_fused_kernels();
        Ok(Network::Libtorch(Box::new(network), Staging::new(device)))
    }

    pub(super) fn is_fused(&self) -> bool {
        match self {
            Network::Fused(..) => true,
            Network::Libtorch(..) => false,
        }
    }

    /// Runs a forward pass on normalised images, `[3, size, size]` each; the label scale is not
    /// applied.
    ///
    /// # Errors
    /// If memory is exhausted, or libtorch fails.
    pub(super) fn forward(
        &mut self,
        images: &[Vec<f32>],
        size: u32,
        threads: &Threads,
    ) -> Result<Vec<Output>, model::Error> {
        let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        self.start(&images, &[], size, threads, &mut || ())?
            .finish()
    }

    /// Starts a forward pass. The outputs contain the contributions of the image regions for those
    /// images whose `explain` is present and true.
    ///
    /// `before` is called when the images have been copied, before the device receives work. The
    /// previous batch must be finished there: reading from a device waits for all work that it has
    /// received, and it may hold two batches at most.
    ///
    /// # Errors
    /// If memory is exhausted, or libtorch fails.
    pub(super) fn start(
        &mut self,
        images: &[&[f32]],
        explain: &[bool],
        size: u32,
        threads: &Threads,
        before: &mut dyn FnMut(),
    ) -> Result<PendingForward, model::Error> {
        match self {
            Network::Fused(network, workspace) => {
                threads.pin_caller();
                before();
                let outputs =
                    network.forward(images, explain, size as usize, threads, workspace)?;
                Ok(PendingForward::Done(outputs))
            }
            Network::Libtorch(network, staging) => tch::no_grad(|| {
                // Libtorch's threads inherit the affinity of the thread that starts them.
                threads.unpin_caller();
                let images = staging.gather(images, i64::from(size), threads)?;
                before();
                let pending = network.forward_async(&images, explain)?;
                Ok(PendingForward::Pending(pending))
            }),
        }
    }
}
