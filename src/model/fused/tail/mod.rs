//! The trainable layers and the head, possibly the whole network: forward with the statistics of
//! the batch, and backward.
//!
//! The results are those of `resnet18`'s trainable layers in bf16 with autograd, within that
//! format's rounding: activations and their gradients are bf16; weights (rounded when they are
//! multiplied), statistics, sums and the weights' gradients are f32.

#![expect(
    unsafe_code,
    reason = "the layers read tensors without copies; see model::slices"
)]

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::{
    super::{
        Error,
        forward::Mode,
        layers::{Layer, TrainableFrom},
        layout::CHANNELS,
        slices::{bits, values, values_mut},
    },
    format::Arithmetic,
    stem::CHANNELS as COLOURS,
    threads::Threads,
    winograd::Images,
};

mod block;
mod head;
mod parts;
mod stem;

use block::{Block, Gradients};
use head::Head;
use parts::{ParameterRanges, Step};
use stem::Stem;

#[derive(Debug)]
pub(crate) struct TrainableLayers {
    /// Present if all layers are trainable.
    stem: Option<Stem>,
    blocks: Vec<Block>,
    head: Head,
    gradients: Gradients,
}

/// Supports trainable convolutions; conv1 and bn1 must train together.
fn is_made_for(trained: TrainableFrom) -> bool {
    trained.contains(Layer::Layer4)
        && trained.contains(Layer::Bn1) == trained.contains(Layer::Conv1)
}

/// Input of the first layer.
#[derive(Debug, Clone, Copy)]
enum Input<'a> {
    /// Normalised images, `[3, side, side]` each, and their side.
    Images(&'a [&'a [f32]], usize),
    Features(Images<'a>),
}

impl TrainableLayers {
    /// Prepares the trainable layers, given the names and lengths of their parameters in the flat
    /// buffer, and the state with the running statistics; `None` if these layers are not supported
    /// or the CPU lacks the instructions.
    pub(crate) fn new<'a>(
        parameters: impl Iterator<Item = (&'a str, usize)>,
        trained: TrainableFrom,
        state: &BTreeMap<String, Tensor>,
    ) -> Option<Self> {
        TrainableLayers::with(Arithmetic::of_training()?, parameters, trained, state)
    }

    /// The same in bf16, as on CPUs without AVX512_FP16.
    #[cfg(test)]
    pub(crate) fn in_bf16<'a>(
        parameters: impl Iterator<Item = (&'a str, usize)>,
        trained: TrainableFrom,
        state: &BTreeMap<String, Tensor>,
    ) -> Option<Self> {
        TrainableLayers::with(Arithmetic::Bf16, parameters, trained, state)
    }

    /// The same as on CPUs without AVX512_BF16.
    #[cfg(test)]
    pub(crate) fn emulated_bf16<'a>(
        parameters: impl Iterator<Item = (&'a str, usize)>,
        trained: TrainableFrom,
        state: &BTreeMap<String, Tensor>,
    ) -> Option<Self> {
        TrainableLayers::with(Arithmetic::EmulatedBf16, parameters, trained, state)
    }

    /// Returns whether these layers are supported on this CPU.
    pub(crate) fn can_train(trained: TrainableFrom) -> bool {
        Arithmetic::of_training().is_some() && is_made_for(trained)
    }

    fn with<'a>(
        arithmetic: Arithmetic,
        parameters: impl Iterator<Item = (&'a str, usize)>,
        trained: TrainableFrom,
        state: &BTreeMap<String, Tensor>,
    ) -> Option<Self> {
        let is_on_processor = state.get("fc.weight")?.device() == Device::Cpu;
        if !arithmetic.can_train() || !is_on_processor || !is_made_for(trained) {
            return None;
        }
        let has_stem = trained.contains(Layer::Conv1);
        let places = ParameterRanges::new(parameters);
        let mut blocks = Vec::new();
        for (index, part) in Layer::WITH_BLOCKS.into_iter().enumerate() {
            if !trained.contains(part) {
                continue;
            }
            let (inputs, outputs) = (CHANNELS[index.saturating_sub(1)], CHANNELS[index]);
            for (block, inputs) in [inputs, outputs].into_iter().enumerate() {
                let name = format!("{}.{block}", part.name());
                let channels = [inputs, outputs];
                blocks.push(Block::new(arithmetic, &places, state, &name, channels));
            }
        }
        Some(TrainableLayers {
            stem: has_stem.then(|| Stem::new(arithmetic, &places, state)),
            blocks,
            head: Head::new(&places),
            gradients: Gradients::new(),
        })
    }

    /// Returns whether the input is images instead of features.
    pub(crate) fn takes_images(&self) -> bool {
        self.stem.is_some()
    }

    /// Arranges the parameters, `[P]`, for the next forward passes.
    pub(crate) fn load(&mut self, parameters: &Tensor) {
        let step = Step {
            // SAFETY: an optimizer changes the parameters on this thread, between the steps.
            parameters: unsafe { values(parameters) },
            mode: Mode::Eval,
            threads: Threads::of_libtorch(),
        };
        if let Some(stem) = &mut self.stem {
            stem.load(step);
        }
        for block in &mut self.blocks {
            block.load(step);
        }
    }

    /// Predicts `[N]` with the loaded parameters, `[P]`, from features `[N, C, S, S]` in bf16, or
    /// from normalised images `[N, 3, S, S]` in f32; in training mode the running statistics are
    /// updated or replaced. The result is a leaf, whose gradient is the input of
    /// [`TrainableLayers::backward`].
    ///
    /// # Errors
    /// A failure of libtorch, such as out of memory.
    pub(crate) fn forward(
        &mut self,
        input: &Tensor,
        parameters: &Tensor,
        mode: Mode,
    ) -> Result<Tensor, Error> {
        let step = Step {
            // SAFETY: an optimizer changes the parameters on this thread, between the steps.
            parameters: unsafe { values(parameters) },
            mode,
            threads: Threads::of_libtorch(),
        };
        let predicted = self.with_input(input, |tail, input| tail.predict(input, step))??;
        Ok(Tensor::f_from_slice(&predicted)?)
    }

    /// Computes the gradient of all parameters, `[P]`, from that of the predictions of the last
    /// forward pass in training mode, `[N]`, for the same input.
    ///
    /// # Errors
    /// A failure of libtorch, such as out of memory.
    pub(crate) fn backward(
        &mut self,
        input: &Tensor,
        parameters: &Tensor,
        predicted: &Tensor,
        gradient: &mut Tensor,
    ) -> Result<(), Error> {
        let predicted: Vec<f32> = Vec::try_from(predicted)?;
        let step = Step {
            // SAFETY: an optimizer changes the parameters on this thread, between the steps.
            parameters: unsafe { values(parameters) },
            mode: Mode::Train,
            threads: Threads::of_libtorch(),
        };
        // SAFETY: a separate buffer, which this thread reads after the step.
        let gradient = unsafe { values_mut(gradient) };
        self.with_input(input, |tail, input| {
            tail.propagate(input, &predicted, step, gradient);
        })
    }

    /// Calls the function with the input of the first layer.
    fn with_input<T>(
        &mut self,
        input: &Tensor,
        work: impl FnOnce(&mut Self, Input<'_>) -> T,
    ) -> Result<T, Error> {
        let (count, _, side, _) = input.size4()?;
        let (count, side) = (count as usize, side as usize);
        if self.takes_images() {
            let images = input.f_to_kind(Kind::Float)?.f_contiguous()?;
            // SAFETY: the step only reads its input, which no other thread has.
            let images: Vec<&[f32]> = unsafe { values(&images) }
                .chunks_exact(COLOURS * side * side)
                .collect();
            return Ok(work(self, Input::Images(&images, side)));
        }
        // Channels last; copies only if necessary.
        let pixels = input.f_permute([0, 2, 3, 1])?.f_contiguous()?;
        let features = Images {
            // SAFETY: as above.
            pixels: unsafe { bits(&pixels) },
            count,
            side,
        };
        Ok(work(self, Input::Features(features)))
    }

    fn predict(&mut self, input: Input<'_>, step: Step<'_>) -> Result<Vec<f32>, Error> {
        if let (Some(stem), Input::Images(images, side)) = (&mut self.stem, input) {
            stem.forward(images, side, step)?;
        }
        for index in 0..self.blocks.len() {
            let (before, rest) = self.blocks.split_at_mut(index);
            rest[0].forward(input_of(before, self.stem.as_ref(), input), step)?;
        }
        let last = input_of(&self.blocks, self.stem.as_ref(), input);
        if step.mode.is_training() {
            let outputs = self.blocks.iter().map(|block| block.output().pixels.len());
            let first = input_of(&[], self.stem.as_ref(), input).pixels.len();
            let most = outputs.chain([first]).max().unwrap_or(0);
            self.gradients.make_room(most)?;
        }
        Ok(self.head.forward(last, step))
    }

    fn propagate(&mut self, input: Input<'_>, predicted: &[f32], step: Step<'_>, out: &mut [f32]) {
        let TrainableLayers {
            stem,
            blocks,
            head,
            gradients,
        } = self;
        let last = input_of(blocks, stem.as_ref(), input);
        gradients.current.resize(last.pixels.len());
        let current = gradients.current.as_mut_slice();
        head.backward(predicted, last.side * last.side, step, current, out);
        for index in (0..blocks.len()).rev() {
            let (before, rest) = blocks.split_at_mut(index);
            let is_wanted = index > 0 || stem.is_some();
            let input = input_of(before, stem.as_ref(), input);
            rest[0].backward(input, is_wanted, step, gradients, out);
        }
        if let (Some(stem), Input::Images(images, _)) = (stem, input) {
            stem.backward(images, step, gradients.current.as_mut_slice(), out);
        }
    }
}

/// The output of the last block, or the input of the first.
fn input_of<'a>(blocks: &'a [Block], stem: Option<&'a Stem>, input: Input<'a>) -> Images<'a> {
    match (blocks.last(), stem, input) {
        (Some(block), _, _) => block.output(),
        (None, Some(stem), _) => stem.output(),
        (None, None, Input::Features(features)) => features,
        (None, None, Input::Images(..)) => unreachable!("images require a trainable stem"),
    }
}
