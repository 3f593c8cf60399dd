//! Modes and outputs of a forward pass, on libtorch and on the fused kernels.

use tch::{Device, Tensor};

use super::Error;

/// Source of the statistics of trainable BatchNorms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Batch statistics in trainable BatchNorms, which update their running statistics.
    Train,
    /// Batch statistics in trainable BatchNorms, which replace their running statistics: the mean
    /// and the unbiased variance of the batch. The caller pools those of all shards of a batch.
    TrainShard,
    /// Running statistics everywhere.
    Eval,
}

impl Mode {
    /// Returns whether a backward pass follows.
    pub(super) fn is_training(self) -> bool {
        match self {
            Mode::Train | Mode::TrainShard => true,
            Mode::Eval => false,
        }
    }

    /// Returns whether a batch counts as an update of the running statistics.
    pub(super) fn is_counted(self) -> bool {
        self == Mode::Train
    }
}

/// The output of the network for one image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    /// The output before the label scale is applied.
    pub value: f32,
    /// The contribution of each cell of layer4 to the value, row by row, if requested. Together
    /// with the head's bias they add up to the value.
    pub attribution: Option<Vec<f32>>,
}

/// Outputs that the device may still be computing.
#[derive(Debug)]
pub(crate) struct PendingOutputs {
    /// `[N]`.
    pub(super) values: Tensor,
    /// The attributions of the first images, where requested.
    pub(super) attributions: Vec<Option<Tensor>>,
}

impl PendingOutputs {
    /// Waits for the device.
    ///
    /// # Errors
    /// A failure of the device.
    pub(crate) fn finish(self) -> Result<Vec<Output>, Error> {
        let read = |tensor: Tensor| -> Result<Vec<f32>, Error> {
            Ok(Vec::try_from(tensor.f_to_device(Device::Cpu)?)?)
        };
        let values = read(self.values)?;
        let mut attributions = self.attributions.into_iter();
        let outputs = values.into_iter().map(|value| {
            let attribution = attributions.next().flatten().map(read).transpose()?;
            Ok(Output { value, attribution })
        });
        outputs.collect()
    }
}
