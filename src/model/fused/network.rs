//! The network for predictions: stem, blocks of two convolutions, head.

use std::{collections::BTreeMap, io};

use tch::{Kind, Tensor};

use super::{
    super::{Error, batch_norm::folded, forward::Output, layout::CHANNELS, precision::Precision},
    direct,
    format::Arithmetic,
    memory::Aligned,
    stem::{self, Stem},
    threads::Threads,
    winograd::{self, Images},
};

/// Factor by which an image may be brighter than white without a value beyond f16.
const HEADROOM: f32 = 16.0;
/// The maximum of a normalised image: white, (1 - 0.406) / 0.225.
const BRIGHTEST: f32 = 2.64;
/// Side of the images that test this, in pixels.
const PROBE_SIDE: usize = 64;

/// The first layers of a network with all BatchNorms folded, and the head if all layers are
/// present.
#[derive(Debug)]
pub(crate) struct Network {
    precision: Precision,
    stem: Stem,
    layers: Vec<[Block; 2]>,
    head: Head,
}

/// Buffers of activations that are reused by the next forward pass.
#[derive(Debug)]
pub(crate) struct Workspace {
    buffers: [Aligned<u16>; 4],
}

/// Output of the first layers: `[count, side, side, channels]` in the network's precision.
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
    precision: Precision,
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
    /// Arranges the first `layers` layers, 1 to 4, of a network on the CPU; `None` if the CPU lacks
    /// the instructions, or if the network's values are too large for f16.
    ///
    /// # Errors
    /// A failure of libtorch, such as out of memory.
    ///
    /// # Panics
    /// If a tensor is missing; names and shapes are checked where weights enter the program.
    pub(crate) fn new(
        precision: Precision,
        state: &BTreeMap<String, Tensor>,
        layers: usize,
    ) -> Result<Option<Self>, Error> {
        let Some(arithmetic) = precision.arithmetic() else {
            return Ok(None);
        };
        let (weight, bias) = folded(state, "conv1", "bn1")?;
        let stem = Stem::new(arithmetic, &values(&weight)?, &values(&bias)?);
        let layer = |index: usize| {
            let input = CHANNELS[index.saturating_sub(1)];
            Ok::<_, Error>([
                Block::new(
                    arithmetic,
                    state,
                    &format!("layer{}.0", index + 1),
                    input,
                    CHANNELS[index],
                )?,
                Block::new(
                    arithmetic,
                    state,
                    &format!("layer{}.1", index + 1),
                    CHANNELS[index],
                    CHANNELS[index],
                )?,
            ])
        };
        let network = Network {
            precision,
            stem,
            layers: (0..layers).map(layer).collect::<Result<_, _>>()?,
            head: Head {
                precision,
                weight: values(&state["fc.weight"])?,
                bias: values(&state["fc.bias"])?[0],
            },
        };
        let fits = match precision {
            Precision::F16 => network.fits_f16()?,
            Precision::F16Weights => network.layers.iter().flatten().all(Block::fits),
            Precision::Bf16 | Precision::F32 => true,
        };
        Ok(fits.then_some(network))
    }

    /// The same in the fastest precision that can hold the network's values.
    ///
    /// # Errors
    /// As [`Network::new`].
    ///
    /// # Panics
    /// As [`Network::new`].
    pub(crate) fn fastest(
        state: &BTreeMap<String, Tensor>,
        layers: usize,
    ) -> Result<Option<Self>, Error> {
        for precision in [Precision::F16, Precision::Bf16, Precision::F32] {
            if let Some(network) = Network::new(precision, state, layers)? {
                return Ok(Some(network));
            }
        }
        Ok(None)
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Returns whether all intermediate values stay far below the maximum of f16: images of noise,
    /// stripes and squares that are [`HEADROOM`] times brighter than white must yield finite
    /// values. Convolutions and ReLU preserve such a factor, except for biases.
    ///
    /// # Errors
    /// Out of memory.
    fn fits_f16(&self) -> io::Result<bool> {
        let side = PROBE_SIDE;
        let mut random = 0x9E37_79B9_u32;
        let mut noise = || {
            // Marsaglia, 2003, Xorshift RNGs.
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random as f32 / u32::MAX as f32 * 2.0 - 1.0
        };
        let sign = |is_positive: bool| if is_positive { 1.0 } else { -1.0 };
        let mut probes: Vec<Vec<f32>> = vec![Vec::new(); 6];
        for place in 0..3 * side * side {
            let (channel, y, x) = (place / (side * side), place / side % side, place % side);
            let values = [
                noise(),
                1.0,
                -1.0,
                sign(x / 2 % 2 == 0),
                sign((x / 4 + y / 4) % 2 == 0),
                sign((x / 8 + y / 8 + channel) % 2 == 0),
            ];
            for (probe, value) in probes.iter_mut().zip(values) {
                probe.push(HEADROOM * BRIGHTEST * value);
            }
        }
        let probes: Vec<&[f32]> = probes.iter().map(Vec::as_slice).collect();
        let mut workspace = Workspace::new();
        let features = self.features(&probes, side, Threads::of_libtorch(), &mut workspace)?;
        let mut widened = vec![0.0; features.values.len()];
        self.precision.widen_all(features.values, &mut widened);
        Ok(widened.iter().all(|value| value.is_finite()))
    }

    /// Runs the layers on normalised images `[3, side, side]` each.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Panics
    /// If an image does not have this side.
    pub(crate) fn features<'a>(
        &self,
        images: &[&[f32]],
        side: usize,
        threads: &Threads,
        workspace: &'a mut Workspace,
    ) -> io::Result<Features<'a>> {
        let count = images.len();
        let mut side_now = stem::pooled_side(side);
        let mut channels = CHANNELS[0];
        let [current, inner, shortcut, next] = &mut workspace.buffers;
        let width = self.precision.width();
        current.try_resize(count * side_now * side_now * channels * width)?;
        self.stem
            .forward(images, side, threads, current.as_mut_slice());
        for block in self.layers.iter().flatten() {
            let input = Images {
                pixels: current.as_slice(),
                count,
                side: side_now,
            };
            side_now = block.forward(input, threads, inner, shortcut, next)?;
            channels = block.second.outputs();
            std::mem::swap(current, next);
        }
        Ok(Features {
            values: current.as_slice(),
            side: side_now,
            channels,
        })
    }

    /// Predicts normalised images `[3, side, side]` each, in f32, with attributions for the images
    /// whose `explain` is present and true.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Panics
    /// If an image does not have this side, or the network lacks its last layer.
    pub(crate) fn forward(
        &self,
        images: &[&[f32]],
        explain: &[bool],
        side: usize,
        threads: &Threads,
        workspace: &mut Workspace,
    ) -> io::Result<Vec<Output>> {
        let features = self.features(images, side, threads, workspace)?;
        assert_eq!(features.channels, self.head.weight.len());
        let of_image = features.side * features.side * self.head.places();
        let images = features.values.chunks_exact(of_image);
        let explain = explain.iter().copied().chain(std::iter::repeat(false));
        let outputs = images.zip(explain).map(|(image, explain)| Output {
            value: self.head.forward(image),
            attribution: explain.then(|| self.head.attribution(image)),
        });
        Ok(outputs.collect())
    }
}

impl Head {
    /// Units of 16 bits of a pixel.
    fn places(&self) -> usize {
        self.weight.len() * self.precision.width()
    }

    /// The mean over all pixels, times the weight, plus the bias.
    fn forward(&self, image: &[u16]) -> f32 {
        let mut sums = vec![0.0_f32; self.weight.len()];
        let mut values = sums.clone();
        for pixel in image.chunks_exact(self.places()) {
            self.precision.widen_all(pixel, &mut values);
            for (sum, value) in sums.iter_mut().zip(&values) {
                *sum += value;
            }
        }
        let pixels = (image.len() / self.places()) as f32;
        let products = sums.iter().zip(&self.weight);
        products
            .map(|(sum, weight)| sum / pixels * weight)
            .sum::<f32>()
            + self.bias
    }

    /// The contribution of each pixel to the value, row by row; with the bias they add up to it.
    fn attribution(&self, image: &[u16]) -> Vec<f32> {
        let pixels = (image.len() / self.places()) as f32;
        let mut values = vec![0.0; self.weight.len()];
        let part = |pixel: &[u16]| {
            self.precision.widen_all(pixel, &mut values);
            let products = values.iter().zip(&self.weight);
            let sum: f32 = products.map(|(value, weight)| value * weight).sum();
            sum / pixels
        };
        image.chunks_exact(self.places()).map(part).collect()
    }
}

impl Block {
    fn new(
        arithmetic: Arithmetic,
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
            First::Same(winograd::Filter::new(
                arithmetic, &weight, &bias, inputs, threads,
            ))
        } else {
            First::Halving(direct::Filter::new(
                arithmetic, &weight, &bias, inputs, 3, threads,
            ))
        };
        let (weight, bias) = unit("conv2", "bn2")?;
        let second = winograd::Filter::new(arithmetic, &weight, &bias, outputs, threads);
        let downsample = if inputs == outputs {
            None
        } else {
            let (weight, bias) = unit("downsample.0", "downsample.1")?;
            Some(direct::Filter::new(
                arithmetic, &weight, &bias, inputs, 1, threads,
            ))
        };
        Ok(Block {
            first,
            second,
            downsample,
        })
    }

    /// Returns whether the format of its filters holds their values.
    fn fits(&self) -> bool {
        let first = match &self.first {
            First::Same(filter) => filter.fits(),
            First::Halving(_) => true,
        };
        first && self.second.fits()
    }

    /// Writes the output to `out` and returns its side.
    ///
    /// # Errors
    /// Out of memory.
    fn forward(
        &self,
        input: Images<'_>,
        threads: &Threads,
        inner: &mut Aligned<u16>,
        shortcut: &mut Aligned<u16>,
        out: &mut Aligned<u16>,
    ) -> io::Result<usize> {
        let halves = matches!(self.first, First::Halving(_));
        let side = if halves {
            input.side.div_ceil(2)
        } else {
            input.side
        };
        let length = input.count * side * side * self.second.places();
        inner.try_resize(length)?;
        match &self.first {
            First::Same(filter) => {
                filter.convolve(input, None, true, threads, inner.as_mut_slice())
            }
            First::Halving(filter) => {
                filter.convolve(input, 1.0, true, threads, inner.as_mut_slice())
            }
        }
        let residual = match &self.downsample {
            None => input.pixels,
            Some(filter) => {
                shortcut.try_resize(length)?;
                filter.convolve(input, 1.0, false, threads, shortcut.as_mut_slice());
                shortcut.as_slice()
            }
        };
        out.try_resize(length)?;
        let middle = Images {
            pixels: inner.as_slice(),
            count: input.count,
            side,
        };
        self.second
            .convolve(middle, Some(residual), true, threads, out.as_mut_slice());
        Ok(side)
    }
}

/// Filter, `[outputs, taps, inputs]`, and bias of a convolution with its BatchNorm folded in.
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
