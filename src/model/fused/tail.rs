//! Layer4 and the head as they are trained: forward with the statistics of the batch, and backward.
//!
//! It computes what `resnet18`'s layer4 and head do in bf16 with autograd, within that format's rounding: activations and their gradients are bf16, weights
//! (rounded where they are multiplied), statistics, sums and the weights' gradients f32.

use std::collections::BTreeMap;

use half::bf16;
use tch::{Device, Tensor};

use super::{
    super::{
        Error,
        resnet18::Mode,
        slices::{bits_mut, values_mut},
    },
    direct,
    format::Arithmetic,
    gradient, kernel,
    memory::Aligned,
    norm::{Affine, After, Statistics, rectify_backward},
    pack,
    threads::Threads,
    winograd::{self, Images},
};

mod parts;

use parts::{DOWNSAMPLE, FIRST, FOURTH, NAMES, Places, Running, SAME, SECOND, THIRD, UNITS};

/// Channels of the features.
const INPUTS: usize = 256;
/// Channels behind layer4.
const OUTPUTS: usize = 512;

/// Layer4 and the head.
#[derive(Debug)]
pub(crate) struct Tail {
    arithmetic: Arithmetic,
    places: Places,
    norms: [Running; UNITS],
    halving: direct::Filter,
    downsample: direct::Filter,
    same: [winograd::Filter; 3],
    backward: winograd::Filter,
    saved: Saved,
    workspace: gradient::Workspace,
}

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
struct Saved {
    count: usize,
    side: usize,
    /// What the convolutions gave.
    convolved: [Aligned<u16>; UNITS],
    statistics: [Statistics; UNITS],
    /// Behind the first and the third BatchNorm, rectified.
    inner: [Aligned<u16>; 2],
    /// What the downsampling gave, normalised.
    shortcut: Aligned<u16>,
    /// Behind the blocks.
    blocks: [Aligned<u16>; 2],
    /// `[count, OUTPUTS]`.
    pooled: Vec<f32>,
    /// The features as factors, where those are not the features themselves.
    factors: Aligned<u16>,
    gradients: [Aligned<u16>; 3],
}

impl Tail {
    /// For parameters of these names and lengths in one buffer, and a network's state with the running statistics; `None` where other parts are trained, or where the
    /// processor lacks the instructions.
    pub(crate) fn new<'a>(
        parameters: impl Iterator<Item = (&'a str, usize)>,
        state: &BTreeMap<String, Tensor>,
    ) -> Option<Self> {
        let is_on_processor = state.get("fc.weight")?.device() == Device::Cpu;
        let places = Places::find(parameters)?;
        if !kernel::available() || !is_on_processor {
            return None;
        }
        let arithmetic = Arithmetic::of_training();
        Some(Tail {
            arithmetic,
            places,
            norms: NAMES.map(|(_, norm)| Running::of(state, norm)),
            halving: direct::Filter::empty(arithmetic, INPUTS, OUTPUTS, 3),
            downsample: direct::Filter::empty(arithmetic, INPUTS, OUTPUTS, 1),
            same: std::array::from_fn(|_| winograd::Filter::empty(arithmetic, OUTPUTS, OUTPUTS)),
            backward: winograd::Filter::empty(arithmetic, OUTPUTS, OUTPUTS),
            saved: Saved {
                count: 0,
                side: 0,
                convolved: [const { Aligned::new() }; UNITS],
                statistics: std::array::from_fn(|_| Statistics::default()),
                inner: [const { Aligned::new() }; 2],
                shortcut: Aligned::new(),
                blocks: [const { Aligned::new() }; 2],
                pooled: Vec::new(),
                factors: Aligned::new(),
                gradients: [const { Aligned::new() }; 3],
            },
            workspace: gradient::Workspace::new(),
        })
    }

    /// Takes over the parameters, `[P]`, for the next forward passes.
    pub(crate) fn load(&mut self, parameters: &Tensor) {
        self.arrange(values_mut(&mut parameters.shallow_clone()));
    }

    /// Predicts `[N]` from features `[N, 256, S, S]` in bf16 with the parameters that were loaded, `[P]`; in training mode the running statistics move. The
    /// result is a leaf whose gradient [`Tail::backward`] wants.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a lack of memory.
    pub(crate) fn forward(
        &mut self,
        features: &Tensor,
        parameters: &Tensor,
        mode: Mode,
    ) -> Result<Tensor, Error> {
        let count = usize::try_from(features.size()[0]).unwrap_or(0);
        let mut pixels = pixels(features)?;
        let mut parameters = parameters.shallow_clone();
        let (pixels, parameters) = (bits_mut(&mut pixels), values_mut(&mut parameters));
        let predicted = self.predict(pixels, count, parameters, mode);
        if mode == Mode::Train {
            for norm in &mut self.norms {
                norm.count_batch()?;
            }
        }
        Ok(Tensor::f_from_slice(&predicted)?)
    }

    /// Fills the gradient of all parameters, `[P]`, from that of what the last forward pass in training mode predicted from these features, `[N]`.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a lack of memory.
    pub(crate) fn backward(
        &mut self,
        features: &Tensor,
        parameters: &Tensor,
        predicted: &Tensor,
        gradient: &mut Tensor,
    ) -> Result<(), Error> {
        let mut pixels = pixels(features)?;
        let mut parameters = parameters.shallow_clone();
        let predicted: Vec<f32> = Vec::try_from(predicted)?;
        self.propagate(
            bits_mut(&mut pixels),
            values_mut(&mut parameters),
            &predicted,
            values_mut(gradient),
        );
        Ok(())
    }

    fn arrange(&mut self, parameters: &[f32]) {
        let threads = Threads::of_libtorch();
        let weight = |unit: usize| &parameters[self.places.weights[unit].clone()];
        let (first, shortcut) = (weight(FIRST), weight(DOWNSAMPLE));
        let (halving, downsample) = (self.halving.panels_mut(), self.downsample.panels_mut());
        let in_f16 = self.arithmetic.has_f16_factors();
        pack::direct(in_f16, first, INPUTS, 9, threads, halving);
        pack::direct(in_f16, shortcut, INPUTS, 1, threads, downsample);
        for (filter, unit) in self.same.iter_mut().zip(SAME) {
            let weight = weight(unit);
            pack::winograd(in_f16, weight, OUTPUTS, threads, filter.panels_mut());
        }
    }

    fn predict(
        &mut self,
        features: &[u16],
        count: usize,
        parameters: &[f32],
        mode: Mode,
    ) -> Vec<f32> {
        let threads = Threads::of_libtorch();
        let input = side_of(features.len(), count, INPUTS);
        let side = input.div_ceil(2);
        let length = count * side * side * OUTPUTS;
        self.saved.count = count;
        self.saved.side = side;
        self.saved.resize(length);
        let Tail {
            places,
            norms,
            saved,
            ..
        } = self;
        let Saved {
            convolved,
            statistics,
            inner,
            shortcut,
            blocks,
            factors,
            ..
        } = saved;
        let mut normalise = |unit: usize, values: &[u16], after: After<'_>, out: &mut [u16]| {
            statistics[unit] = norms[unit].statistics(values, mode, threads);
            let affine = Affine {
                weight: &parameters[places.scales[unit].clone()],
                bias: &parameters[places.shifts[unit].clone()],
            };
            statistics[unit].normalise(values, affine, after, threads, out);
        };
        let rectified = After {
            residual: None,
            relu: true,
        };
        let [first, second, downsampled, third, fourth] = convolved;
        let [inner_first, inner_third] = inner;
        let [middle, last] = blocks;
        let (features, scale) = self.arithmetic.factors(features, threads, factors);
        let features = images(features, count, input);

        self.halving
            .convolve(features, scale, false, threads, first.as_mut_slice());
        normalise(
            FIRST,
            first.as_slice(),
            rectified,
            inner_first.as_mut_slice(),
        );
        self.same[0].convolve(
            images(inner_first.as_slice(), count, side),
            None,
            false,
            threads,
            second.as_mut_slice(),
        );
        self.downsample
            .convolve(features, scale, false, threads, downsampled.as_mut_slice());
        let as_it_is = After {
            residual: None,
            relu: false,
        };
        normalise(
            DOWNSAMPLE,
            downsampled.as_slice(),
            as_it_is,
            shortcut.as_mut_slice(),
        );
        let added = After {
            residual: Some(shortcut.as_slice()),
            relu: true,
        };
        normalise(SECOND, second.as_slice(), added, middle.as_mut_slice());

        self.same[1].convolve(
            images(middle.as_slice(), count, side),
            None,
            false,
            threads,
            third.as_mut_slice(),
        );
        normalise(
            THIRD,
            third.as_slice(),
            rectified,
            inner_third.as_mut_slice(),
        );
        self.same[2].convolve(
            images(inner_third.as_slice(), count, side),
            None,
            false,
            threads,
            fourth.as_mut_slice(),
        );
        let added = After {
            residual: Some(middle.as_slice()),
            relu: true,
        };
        normalise(FOURTH, fourth.as_slice(), added, last.as_mut_slice());

        saved.pooled = pooled(last.as_slice(), side * side);
        let head = &parameters[places.head.clone()];
        let of_image = |image: &[f32]| {
            let products = image.iter().zip(head).map(|(a, b)| a * b);
            products.sum::<f32>() + parameters[places.head_bias]
        };
        saved.pooled.chunks_exact(OUTPUTS).map(of_image).collect()
    }

    fn propagate(
        &mut self,
        features: &[u16],
        parameters: &[f32],
        predicted: &[f32],
        out: &mut [f32],
    ) {
        let threads = Threads::of_libtorch();
        let arithmetic = self.arithmetic;
        let Tail {
            places,
            saved,
            workspace,
            ..
        } = self;
        let (count, side) = (saved.count, saved.side);
        assert_eq!(predicted.len(), count);
        let head = &parameters[places.head.clone()];
        out[places.head_bias] = predicted.iter().sum();
        let of_head = &mut out[places.head.clone()];
        of_head.fill(0.0);
        for (image, gradient) in saved.pooled.chunks_exact(OUTPUTS).zip(predicted) {
            for (sum, value) in of_head.iter_mut().zip(image) {
                *sum += gradient * value;
            }
        }
        let [gradient, inner, kept] = &mut saved.gradients;
        spread(predicted, head, side * side, gradient.as_mut_slice());
        let normalise_back = |unit: usize, gradient: &mut [u16], out: &mut [f32]| {
            let (scale, shift) = (places.scales[unit].clone(), places.shifts[unit].clone());
            let (mut of_scale, mut of_shift) = (vec![0.0; scale.len()], vec![0.0; shift.len()]);
            saved.statistics[unit].backward(
                saved.convolved[unit].as_slice(),
                &parameters[scale.clone()],
                threads,
                gradient,
                (&mut of_scale, &mut of_shift),
            );
            out[scale].copy_from_slice(&of_scale);
            out[shift].copy_from_slice(&of_shift);
        };
        let filter = |unit: usize| places.weights[unit].clone();

        // The second block. `kept` stays what its sum gets, which goes to its input as it is.
        let [middle, last] = [saved.blocks[0].as_slice(), saved.blocks[1].as_slice()];
        let [inner_first, inner_third] = [saved.inner[0].as_slice(), saved.inner[1].as_slice()];
        rectify_backward(last, threads, gradient.as_mut_slice());
        kept.as_mut_slice().copy_from_slice(gradient.as_slice());
        normalise_back(FOURTH, gradient.as_mut_slice(), out);
        gradient::winograd(
            arithmetic,
            images(inner_third, count, side),
            gradient.as_slice(),
            threads,
            workspace,
            &mut out[filter(FOURTH)],
        );
        let back = &mut self.backward;
        let mut convolve_back =
            |unit: usize, gradient: &[u16], residual: Option<&[u16]>, out: &mut [u16]| {
                let weight = &parameters[places.weights[unit].clone()];
                let in_f16 = arithmetic.has_f16_factors();
                pack::winograd_backward(in_f16, weight, OUTPUTS, threads, back.panels_mut());
                back.convolve(images(gradient, count, side), residual, false, threads, out);
            };
        convolve_back(FOURTH, gradient.as_slice(), None, inner.as_mut_slice());
        rectify_backward(inner_third, threads, inner.as_mut_slice());
        normalise_back(THIRD, inner.as_mut_slice(), out);
        gradient::winograd(
            arithmetic,
            images(middle, count, side),
            inner.as_slice(),
            threads,
            workspace,
            &mut out[filter(THIRD)],
        );
        convolve_back(
            THIRD,
            inner.as_slice(),
            Some(kept.as_slice()),
            gradient.as_mut_slice(),
        );

        // The first block, whose shortcut has a convolution.
        rectify_backward(middle, threads, gradient.as_mut_slice());
        kept.as_mut_slice().copy_from_slice(gradient.as_slice());
        let (features, scale) = arithmetic.factors(features, threads, &mut saved.factors);
        let features = images(features, count, side_of(features.len(), count, INPUTS));
        normalise_back(DOWNSAMPLE, kept.as_mut_slice(), out);
        gradient::direct(
            arithmetic,
            &self.downsample,
            (features, scale),
            kept.as_slice(),
            threads,
            workspace,
            &mut out[filter(DOWNSAMPLE)],
        );
        normalise_back(SECOND, gradient.as_mut_slice(), out);
        gradient::winograd(
            arithmetic,
            images(inner_first, count, side),
            gradient.as_slice(),
            threads,
            workspace,
            &mut out[filter(SECOND)],
        );
        convolve_back(SECOND, gradient.as_slice(), None, inner.as_mut_slice());
        rectify_backward(inner_first, threads, inner.as_mut_slice());
        normalise_back(FIRST, inner.as_mut_slice(), out);
        gradient::direct(
            arithmetic,
            &self.halving,
            (features, scale),
            inner.as_slice(),
            threads,
            workspace,
            &mut out[filter(FIRST)],
        );
    }
}

impl Saved {
    fn resize(&mut self, length: usize) {
        let buffers = self.convolved.iter_mut().chain(&mut self.inner);
        let buffers = buffers.chain(&mut self.blocks).chain(&mut self.gradients);
        for buffer in buffers.chain([&mut self.shortcut]) {
            buffer.resize(length);
        }
    }
}

/// Features `[N, C, S, S]` with the channels of a pixel side by side; a copy only where they are not yet.
fn pixels(features: &Tensor) -> Result<Tensor, Error> {
    Ok(features.f_permute([0, 2, 3, 1])?.f_contiguous()?)
}

fn images(pixels: &[u16], count: usize, side: usize) -> Images<'_> {
    Images {
        pixels,
        count,
        side,
    }
}

/// The side of `count` square images of so many values in all.
fn side_of(length: usize, count: usize, channels: usize) -> usize {
    let pixels = length / (count * channels);
    let side = pixels.isqrt();
    assert_eq!(side * side * count * channels, length, "square images");
    side
}

/// Means over the pixels of each image, `[count, OUTPUTS]`.
fn pooled(values: &[u16], pixels: usize) -> Vec<f32> {
    let mut means = vec![0.0; values.len() / pixels];
    for (image, means) in values
        .chunks_exact(pixels * OUTPUTS)
        .zip(means.chunks_exact_mut(OUTPUTS))
    {
        for pixel in image.chunks_exact(OUTPUTS) {
            for (sum, value) in means.iter_mut().zip(pixel) {
                *sum += bf16::from_bits(*value).to_f32();
            }
        }
        for mean in means {
            *mean /= pixels as f32;
        }
    }
    means
}

/// The gradient of each pixel's channels from that of what the head predicted.
fn spread(predicted: &[f32], head: &[f32], pixels: usize, out: &mut [u16]) {
    for (image, gradient) in out.chunks_exact_mut(pixels * OUTPUTS).zip(predicted) {
        let (first, rest) = image.split_at_mut(OUTPUTS);
        for (value, weight) in first.iter_mut().zip(head) {
            *value = bf16::from_f32(gradient * weight / pixels as f32).to_bits();
        }
        for pixel in rest.chunks_exact_mut(OUTPUTS) {
            pixel.copy_from_slice(first);
        }
    }
}
