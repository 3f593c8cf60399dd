//! The network: stem, blocks of two convolutions, head.

use std::collections::BTreeMap;

use half::bf16;
use tch::{Kind, Tensor};

use super::{
    super::{
        Error,
        resnet18::{Output, folded},
    },
    direct, kernel,
    memory::Aligned,
    stem::{self, Stem},
    threads::Threads,
    winograd::{self, Images},
};

/// Channels behind layer1 to layer4.
const CHANNELS: [usize; 4] = [64, 128, 256, 512];

/// The first layers of a network with all BatchNorms folded, and its head when all layers are there.
#[derive(Debug)]
pub(crate) struct Network {
    stem: Stem,
    layers: Vec<[Block; 2]>,
    head: Head,
}

/// Activations that are kept from one forward pass to the next, so that their memory need not be had anew.
#[derive(Debug)]
pub(crate) struct Workspace {
    buffers: [Aligned<u16>; 4],
}

/// What the first layers make of images: `[count, side, side, channels]` in bf16.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Features<'a> {
    /// The values' bits.
    pub(crate) values: &'a [u16],
    pub(crate) side: usize,
    pub(crate) channels: usize,
}

#[derive(Debug)]
struct Block {
    first: First,
    second: winograd::Filter,
    downsample: Option<direct::Filter>,
}

#[derive(Debug)]
enum First {
    Same(winograd::Filter),
    Halving(direct::Filter),
}

#[derive(Debug)]
struct Head {
    weight: Vec<f32>,
    bias: f32,
}

impl Workspace {
    pub(crate) const fn new() -> Self {
        Workspace {
            buffers: [const { Aligned::new() }; 4],
        }
    }
}

impl Network {
    /// Arranges the first `layers` layers, 1 to 4, of a network on the processor; `None` where the processor lacks the instructions.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a lack of memory.
    ///
    /// # Panics
    /// When a tensor is missing; callers check names and shapes where weights enter the program.
    pub(crate) fn new(
        state: &BTreeMap<String, Tensor>,
        layers: usize,
    ) -> Result<Option<Self>, Error> {
        if !kernel::available() {
            return Ok(None);
        }
        let (weight, bias) = folded(state, "conv1", "bn1")?;
        let stem = Stem::new(&values(&weight)?, &values(&bias)?);
        let layer = |index: usize| {
            let input = CHANNELS[index.saturating_sub(1)];
            Ok::<_, Error>([
                Block::new(
                    state,
                    &format!("layer{}.0", index + 1),
                    input,
                    CHANNELS[index],
                )?,
                Block::new(
                    state,
                    &format!("layer{}.1", index + 1),
                    CHANNELS[index],
                    CHANNELS[index],
                )?,
            ])
        };
        Ok(Some(Network {
            stem,
            layers: (0..layers).map(layer).collect::<Result<_, _>>()?,
            head: Head {
                weight: values(&state["fc.weight"])?,
                bias: values(&state["fc.bias"])?[0],
            },
        }))
    }

    /// What the layers make of normalised images `[3, side, side]` each.
    ///
    /// # Panics
    /// When an image does not have this side.
    pub(crate) fn features<'a>(
        &self,
        images: &[&[f32]],
        side: usize,
        threads: &Threads,
        workspace: &'a mut Workspace,
    ) -> Features<'a> {
        let count = images.len();
        let mut side_now = stem::pooled_side(side);
        let mut channels = CHANNELS[0];
        let [current, inner, shortcut, next] = &mut workspace.buffers;
        current.resize(count * side_now * side_now * channels);
        self.stem
            .forward(images, side, threads, current.as_mut_slice());
        for block in self.layers.iter().flatten() {
            let input = Images {
                pixels: current.as_slice(),
                count,
                side: side_now,
            };
            side_now = block.forward(input, threads, inner, shortcut, next);
            channels = block.second.outputs();
            std::mem::swap(current, next);
        }
        Features {
            values: current.as_slice(),
            side: side_now,
            channels,
        }
    }

    /// What the head makes of normalised images `[3, side, side]` each, in f32, and what each place of the last layer adds to that, for those images whose
    /// `explain` is there and true.
    ///
    /// # Panics
    /// When an image does not have this side, or when the network was made without its last layer.
    pub(crate) fn forward(
        &self,
        images: &[&[f32]],
        explain: &[bool],
        side: usize,
        threads: &Threads,
        workspace: &mut Workspace,
    ) -> Vec<Output> {
        threads.together(|| {
            let features = self.features(images, side, threads, workspace);
            assert_eq!(features.channels, self.head.weight.len());
            let of_image = features.side * features.side * features.channels;
            let images = features.values.chunks_exact(of_image);
            let explain = explain.iter().copied().chain(std::iter::repeat(false));
            images
                .zip(explain)
                .map(|(image, explain)| Output {
                    value: self.head.forward(image, features.channels),
                    parts: explain.then(|| self.head.parts(image, features.channels)),
                })
                .collect()
        })
    }
}

impl Head {
    /// The mean over all pixels, times the weight, plus the bias.
    fn forward(&self, image: &[u16], channels: usize) -> f32 {
        let mut sums = vec![0.0_f32; channels];
        for pixel in image.chunks_exact(channels) {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += bf16::from_bits(*value).to_f32();
            }
        }
        let pixels = (image.len() / channels) as f32;
        let products = sums.iter().zip(&self.weight);
        products
            .map(|(sum, weight)| sum / pixels * weight)
            .sum::<f32>()
            + self.bias
    }

    /// What each pixel adds to the value, row by row; with the bias they sum up to it.
    fn parts(&self, image: &[u16], channels: usize) -> Vec<f32> {
        let pixels = (image.len() / channels) as f32;
        let part = |pixel: &[u16]| {
            let products = pixel.iter().zip(&self.weight);
            let sum: f32 = products
                .map(|(value, weight)| bf16::from_bits(*value).to_f32() * weight)
                .sum();
            sum / pixels
        };
        image.chunks_exact(channels).map(part).collect()
    }
}

impl Block {
    fn new(
        state: &BTreeMap<String, Tensor>,
        prefix: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self, Error> {
        let unit = |conv: &str, norm: &str| {
            unit(
                state,
                &format!("{prefix}.{conv}"),
                &format!("{prefix}.{norm}"),
            )
        };
        let threads = Threads::of_libtorch();
        let (weight, bias) = unit("conv1", "bn1")?;
        let first = if inputs == outputs {
            First::Same(winograd::Filter::new(&weight, &bias, inputs, threads))
        } else {
            First::Halving(direct::Filter::new(&weight, &bias, inputs, 3, threads))
        };
        let (weight, bias) = unit("conv2", "bn2")?;
        let second = winograd::Filter::new(&weight, &bias, outputs, threads);
        let downsample = if inputs == outputs {
            None
        } else {
            let (weight, bias) = unit("downsample.0", "downsample.1")?;
            Some(direct::Filter::new(&weight, &bias, inputs, 1, threads))
        };
        Ok(Block {
            first,
            second,
            downsample,
        })
    }

    /// Computes into `out` and returns its side.
    fn forward(
        &self,
        input: Images<'_>,
        threads: &Threads,
        inner: &mut Aligned<u16>,
        shortcut: &mut Aligned<u16>,
        out: &mut Aligned<u16>,
    ) -> usize {
        let halves = matches!(self.first, First::Halving(_));
        let side = if halves {
            input.side.div_ceil(2)
        } else {
            input.side
        };
        let length = input.count * side * side * self.second.outputs();
        inner.resize(length);
        match &self.first {
            First::Same(filter) => {
                filter.convolve(input, None, true, threads, inner.as_mut_slice())
            }
            First::Halving(filter) => filter.convolve(input, true, threads, inner.as_mut_slice()),
        }
        let residual = match &self.downsample {
            None => input.pixels,
            Some(filter) => {
                shortcut.resize(length);
                filter.convolve(input, false, threads, shortcut.as_mut_slice());
                shortcut.as_slice()
            }
        };
        out.resize(length);
        let middle = Images {
            pixels: inner.as_slice(),
            count: input.count,
            side,
        };
        self.second
            .convolve(middle, Some(residual), true, threads, out.as_mut_slice());
        side
    }
}

/// The filter, `[outputs, taps, inputs]`, and the bias that a convolution and its BatchNorm in eval mode come to.
fn unit(
    state: &BTreeMap<String, Tensor>,
    conv: &str,
    norm: &str,
) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let (weight, bias) = folded(state, conv, norm)?;
    Ok((values(&weight.f_permute([0, 2, 3, 1])?)?, values(&bias)?))
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, Error> {
    let flat = tensor
        .f_to_kind(Kind::Float)?
        .f_contiguous()?
        .f_flatten(0, -1)?;
    Ok(Vec::try_from(flat)?)
}
