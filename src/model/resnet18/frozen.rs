//! The frozen layers on the fused CPU kernels.

#![expect(
    unsafe_code,
    reason = "the kernels read and write tensors without copies; see model::slices"
)]

use std::{cell::RefCell, collections::BTreeMap};

use tch::{Device, Kind, Tensor};

use crate::model::{
    Error,
    fused::{Network, Threads, Workspace},
    layers::{Layer, TrainableFrom},
    precision::Precision,
    slices::{bits_mut, values, values_mut},
};

#[derive(Debug)]
pub(super) struct FrozenLayers {
    network: Network,
    workspace: RefCell<Workspace>,
    /// Element type of the returned features, whatever the precision of the network.
    kind: Kind,
}

impl FrozenLayers {
    /// Prepares the frozen layers; `None` if the CPU lacks the instructions or the precision cannot
    /// hold the network's numbers.
    ///
    /// # Errors
    /// A failure of libtorch, such as out of memory.
    pub(super) fn new(
        state: &BTreeMap<String, Tensor>,
        trainable: TrainableFrom,
        precision: Precision,
    ) -> Result<Option<Self>, Error> {
        let frozen = Layer::WITH_BLOCKS.into_iter();
        let layers = frozen
            .take_while(|layer| !trainable.contains(*layer))
            .count();
        let network = match precision {
            Precision::Bf16 => Network::fastest(state, layers)?,
            Precision::F32 | Precision::F16 | Precision::F16Weights => {
                Network::new(precision, state, layers)?
            }
        };
        Ok(network.map(|network| Self::of(network, precision.kind())))
    }

    pub(super) fn of(network: Network, kind: Kind) -> Self {
        FrozenLayers {
            network,
            workspace: RefCell::new(Workspace::new()),
            kind,
        }
    }

    pub(super) fn features(&self, images: &Tensor) -> Result<Tensor, Error> {
        let (count, _, side, _) = images.size4()?;
        let images = images.f_to_kind(Kind::Float)?.f_contiguous()?;
        // SAFETY: the kernels only read the images, and no other thread has them.
        let values = unsafe { values(&images) };
        let image_length = (values.len() / count.max(1) as usize).max(1);
        let images: Vec<&[f32]> = values.chunks_exact(image_length).collect();
        let mut workspace = self.workspace.borrow_mut();
        let threads = Threads::of_libtorch();
        let features = self
            .network
            .features(&images, side as usize, threads, &mut workspace)?;
        let (side, channels) = (features.side as i64, features.channels as i64);
        let shape = [count, side, side, channels];
        let empty = |kind| Tensor::f_empty(shape, (kind, Device::Cpu));
        let from_16_bits = |kind| {
            let mut pixels = empty(kind)?;
            // SAFETY: a new tensor.
            unsafe { bits_mut(&mut pixels) }.copy_from_slice(features.values);
            pixels.f_to_kind(Kind::BFloat16)
        };
        let pixels = match self.network.precision() {
            Precision::Bf16 => from_16_bits(Kind::BFloat16)?,
            Precision::F16 => from_16_bits(Kind::Half)?,
            precision @ (Precision::F32 | Precision::F16Weights) => {
                let mut pixels = empty(Kind::Float)?;
                // SAFETY: a new tensor.
                let wide = unsafe { values_mut(&mut pixels) };
                precision.widen_all(features.values, wide);
                pixels.f_to_kind(self.kind)?
            }
        };
        Ok(pixels.f_permute([0, 3, 1, 2])?)
    }
}
