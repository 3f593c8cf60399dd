//! A residual block: two 3×3 convolutions with their BatchNorms and a shortcut.

use std::{collections::BTreeMap, ops::Range};

use tch::Tensor;

use super::{
    super::{
        super::Error,
        direct,
        format::Arithmetic,
        gradient,
        memory::Aligned,
        norm::{After, rectify_backward},
        pack,
        winograd::{self, Images},
    },
    parts::{Norm, ParameterRanges, Step},
};

/// A trainable block, with the results of the forward pass that its backward pass needs.
#[derive(Debug)]
pub(super) struct Block {
    arithmetic: Arithmetic,
    inputs: usize,
    outputs: usize,
    first: First,
    second: Unit<winograd::Filter>,
    /// The reversed filter for the backward pass, with stride 1.
    turned: winograd::Filter,
    /// Output of the first BatchNorm and ReLU.
    inner: Aligned<u16>,
    /// Output of the block.
    output: Aligned<u16>,
    count: usize,
    /// Side of the output.
    side: usize,
}

/// The first convolution, and the downsampling of the shortcut if the block halves the side.
#[derive(Debug)]
enum First {
    Same(Box<Unit<winograd::Filter>>),
    Halving(Box<Halving>),
}

#[derive(Debug)]
struct Halving {
    unit: Unit<direct::Filter>,
    downsample: Unit<direct::Filter>,
    backward: direct::Backward,
    /// Output of the downsampling and its BatchNorm.
    shortcut: Aligned<u16>,
    /// The input as factors, if these differ from the input, and their scale.
    factors: Aligned<u16>,
    scale: f32,
}

/// A convolution and its BatchNorm.
#[derive(Debug)]
struct Unit<Filter> {
    weight: Range<usize>,
    filter: Filter,
    norm: Norm,
    /// Output of the convolution.
    convolved: Aligned<u16>,
}

/// Gradients of activations in the backward pass.
#[derive(Debug)]
pub(super) struct Gradients {
    /// Gradient of the output of the current block, and then of its input.
    pub(super) current: Aligned<u16>,
    inner: Aligned<u16>,
    kept: Aligned<u16>,
    workspace: gradient::Workspace,
}

impl Gradients {
    pub(super) const fn new() -> Self {
        Gradients {
            current: Aligned::new(),
            inner: Aligned::new(),
            kept: Aligned::new(),
            workspace: gradient::Workspace::new(),
        }
    }

    /// Makes room for gradients of this many values.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn make_room(&mut self, length: usize) -> Result<(), Error> {
        for buffer in [&mut self.current, &mut self.inner, &mut self.kept] {
            buffer.try_resize(length)?;
        }
        Ok(())
    }
}

impl<Filter> Unit<Filter> {
    fn new(
        places: &ParameterRanges,
        state: &BTreeMap<String, Tensor>,
        (conv, norm): (&str, &str),
        filter: Filter,
    ) -> Self {
        Unit {
            weight: places.of(&format!("{conv}.weight")),
            filter,
            norm: Norm::new(places, state, norm),
            convolved: Aligned::new(),
        }
    }

    fn weight<'a>(&self, step: Step<'a>) -> &'a [f32] {
        &step.parameters[self.weight.clone()]
    }

    /// Normalises the output of the convolution.
    ///
    /// # Errors
    /// A failure of libtorch.
    fn normalise(
        &mut self,
        after: After<'_>,
        step: Step<'_>,
        out: &mut [u16],
    ) -> Result<(), Error> {
        let values = self.convolved.as_slice();
        self.norm.observe(values, step)?;
        let affine = self.norm.affine(step.parameters);
        let statistics = self.norm.statistics();
        statistics.normalise(values, affine, after, step.threads, out);
        Ok(())
    }

    fn normalise_back(&self, step: Step<'_>, gradient: &mut [u16], out: &mut [f32]) {
        let values = self.convolved.as_slice();
        self.norm.backward(values, step, gradient, out);
    }
}

const RECTIFIED: After<'_> = After {
    residual: None,
    relu: true,
};
const AS_IT_IS: After<'_> = After {
    residual: None,
    relu: false,
};

impl Block {
    pub(super) fn new(
        arithmetic: Arithmetic,
        places: &ParameterRanges,
        state: &BTreeMap<String, Tensor>,
        prefix: &str,
        [inputs, outputs]: [usize; 2],
    ) -> Self {
        let names =
            |conv: &str, norm: &str| (format!("{prefix}.{conv}"), format!("{prefix}.{norm}"));
        let same = |conv: &str, norm: &str| {
            let (conv, norm) = names(conv, norm);
            let filter = winograd::Filter::empty(arithmetic, outputs, outputs);
            Unit::new(places, state, (&conv, &norm), filter)
        };
        let halving = |conv: &str, norm: &str, width: usize| {
            let (conv, norm) = names(conv, norm);
            let filter = direct::Filter::empty(arithmetic, inputs, outputs, width);
            Unit::new(places, state, (&conv, &norm), filter)
        };
        let first = if inputs == outputs {
            First::Same(Box::new(same("conv1", "bn1")))
        } else {
            First::Halving(Box::new(Halving {
                unit: halving("conv1", "bn1", 3),
                downsample: halving("downsample.0", "downsample.1", 1),
                backward: direct::Backward::new(arithmetic, inputs, outputs),
                shortcut: Aligned::new(),
                factors: Aligned::new(),
                scale: 1.0,
            }))
        };
        Block {
            arithmetic,
            inputs,
            outputs,
            first,
            second: same("conv2", "bn2"),
            turned: winograd::Filter::empty(arithmetic, outputs, outputs),
            inner: Aligned::new(),
            output: Aligned::new(),
            count: 0,
            side: 0,
        }
    }

    /// Arranges the parameters for the next forward passes.
    pub(super) fn load(&mut self, step: Step<'_>) {
        let in_f16 = self.arithmetic.has_f16_factors();
        let (inputs, outputs, threads) = (self.inputs, self.outputs, step.threads);
        let load = |unit: &mut Unit<winograd::Filter>| {
            let weight = unit.weight(step);
            pack::winograd(in_f16, weight, outputs, threads, unit.filter.panels_mut());
        };
        load(&mut self.second);
        match &mut self.first {
            First::Same(unit) => load(unit),
            First::Halving(halving) => {
                for (unit, taps) in [(&mut halving.unit, 9), (&mut halving.downsample, 1)] {
                    let weight = unit.weight(step);
                    let panels = unit.filter.panels_mut();
                    pack::direct(in_f16, weight, inputs, taps, threads, panels);
                }
            }
        }
    }

    /// Output of the latest forward pass.
    pub(super) fn output(&self) -> Images<'_> {
        Images {
            pixels: self.output.as_slice(),
            count: self.count,
            side: self.side,
        }
    }

    /// # Errors
    /// Out of memory, or a failure of libtorch.
    pub(super) fn forward(&mut self, input: Images<'_>, step: Step<'_>) -> Result<(), Error> {
        let Block {
            outputs,
            first,
            second,
            inner,
            output,
            ..
        } = self;
        let side = match first {
            First::Same(_) => input.side,
            First::Halving(_) => input.side.div_ceil(2),
        };
        (self.count, self.side) = (input.count, side);
        let length = input.count * side * side * *outputs;
        for buffer in [&mut *inner, &mut *output, &mut second.convolved] {
            buffer.try_resize(length)?;
        }
        let threads = step.threads;
        let residual = match first {
            First::Same(unit) => {
                unit.convolved.try_resize(length)?;
                let convolved = unit.convolved.as_mut_slice();
                unit.filter.convolve(input, None, false, threads, convolved);
                unit.normalise(RECTIFIED, step, inner.as_mut_slice())?;
                input.pixels
            }
            First::Halving(halving) => {
                let Halving {
                    unit,
                    downsample,
                    shortcut,
                    factors,
                    scale,
                    ..
                } = &mut **halving;
                let pixels;
                (pixels, *scale) = self.arithmetic.factors(input.pixels, threads, factors);
                let input = Images { pixels, ..input };
                for unit in [&mut *unit, &mut *downsample] {
                    unit.convolved.try_resize(length)?;
                    let convolved = unit.convolved.as_mut_slice();
                    unit.filter
                        .convolve(input, *scale, false, threads, convolved);
                }
                unit.normalise(RECTIFIED, step, inner.as_mut_slice())?;
                shortcut.try_resize(length)?;
                downsample.normalise(AS_IT_IS, step, shortcut.as_mut_slice())?;
                shortcut.as_slice()
            }
        };
        let middle = Images {
            pixels: inner.as_slice(),
            count: input.count,
            side,
        };
        let convolved = second.convolved.as_mut_slice();
        second
            .filter
            .convolve(middle, None, false, threads, convolved);
        let added = After {
            residual: Some(residual),
            relu: true,
        };
        second.normalise(added, step, output.as_mut_slice())
    }

    /// Propagates the gradient of the output, `gradients.current`, to the parameters and, if
    /// requested, to the input.
    pub(super) fn backward(
        &mut self,
        input: Images<'_>,
        is_wanted: bool,
        step: Step<'_>,
        gradients: &mut Gradients,
        out: &mut [f32],
    ) {
        let (arithmetic, outputs, count, side) =
            (self.arithmetic, self.outputs, self.count, self.side);
        let threads = step.threads;
        let Gradients {
            current,
            inner,
            kept,
            workspace,
        } = gradients;
        let turned = &mut self.turned;
        let mut convolve_back = |unit: &Unit<winograd::Filter>,
                                 gradient: &[u16],
                                 residual: Option<&[u16]>,
                                 out: &mut [u16]| {
            let (in_f16, weight) = (arithmetic.has_f16_factors(), unit.weight(step));
            let panels = turned.panels_mut();
            pack::winograd_backward(in_f16, weight, outputs, threads, panels);
            turned.convolve(
                Images::new(gradient, count, side),
                residual,
                false,
                threads,
                out,
            );
        };
        rectify_backward(self.output.as_slice(), threads, current.as_mut_slice());
        // The gradient of the sum reaches the shortcut unchanged.
        kept.resize(current.as_slice().len());
        kept.as_mut_slice().copy_from_slice(current.as_slice());
        inner.resize(current.as_slice().len());

        let (second, middle) = (&self.second, self.inner.as_slice());
        second.normalise_back(step, current.as_mut_slice(), out);
        gradient::winograd(
            arithmetic,
            Images::new(middle, count, side),
            current.as_slice(),
            threads,
            workspace,
            &mut out[second.weight.clone()],
        );
        convolve_back(second, current.as_slice(), None, inner.as_mut_slice());
        rectify_backward(middle, threads, inner.as_mut_slice());
        match &mut self.first {
            First::Same(unit) => {
                unit.normalise_back(step, inner.as_mut_slice(), out);
                gradient::winograd(
                    arithmetic,
                    input,
                    inner.as_slice(),
                    threads,
                    workspace,
                    &mut out[unit.weight.clone()],
                );
                if is_wanted {
                    let residual = Some(kept.as_slice());
                    convolve_back(unit, inner.as_slice(), residual, current.as_mut_slice());
                }
            }
            First::Halving(halving) => {
                let Halving {
                    unit,
                    downsample,
                    backward,
                    factors,
                    scale,
                    ..
                } = &mut **halving;
                unit.normalise_back(step, inner.as_mut_slice(), out);
                downsample.normalise_back(step, kept.as_mut_slice(), out);
                let pixels = arithmetic.made_factors(input.pixels, factors);
                let factors = Images { pixels, ..input };
                for (unit, gradient) in [(&*unit, &*inner), (&*downsample, &*kept)] {
                    gradient::direct(
                        arithmetic,
                        &unit.filter,
                        (factors, *scale),
                        gradient.as_slice(),
                        threads,
                        workspace,
                        &mut out[unit.weight.clone()],
                    );
                }
                if is_wanted {
                    backward.load(unit.weight(step), downsample.weight(step), threads);
                    current.resize(input.pixels.len());
                    backward.convolve(
                        [inner.as_slice(), kept.as_slice()],
                        count,
                        input.side,
                        threads,
                        current.as_mut_slice(),
                    );
                }
            }
        }
    }
}
