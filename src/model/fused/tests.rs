//! Kernels against plain sums on small whole numbers, which bf16, f16 and f32 represent exactly.
//! The tests of `resnet18` compare the whole network with torchvision.

#![expect(
    unsafe_code,
    reason = "vector instructions need a processor that has them"
)]

use std::arch::x86_64::{_mm512_loadu_ps, _mm512_storeu_si512};

use half::{bf16, f16};

use super::{
    super::precision::Precision,
    direct,
    f32::Lanes,
    format::{Arithmetic, Filters},
    gradient,
    kernel::{self, CHUNK},
    memory::Aligned,
    pack,
    stem::Stem,
    threads::Threads,
    vectors, winograd,
    winograd::Images,
};

/// SplitMix64, as whole numbers from -`most` to `most`.
fn whole_numbers(seed: u64, count: usize, most: i64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    let span = 2 * most as u64 + 1;
    (0..count)
        .map(|_| (next() % span) as f32 - most as f32)
        .collect()
}

fn in_bf16(values: &[f32]) -> Aligned<u16> {
    in_format(Precision::Bf16, values)
}

fn in_format(format: Precision, values: &[f32]) -> Aligned<u16> {
    let mut made = Aligned::zeros(values.len() * format.width());
    made.as_mut_slice().copy_from_slice(&bits(format, values));
    made
}

fn bits(format: Precision, values: &[f32]) -> Vec<u16> {
    let halves = |value: &f32| {
        let bits = value.to_bits();
        [bits as u16, (bits >> 16) as u16]
    };
    match format {
        Precision::Bf16 => {
            Vec::from_iter(values.iter().map(|value| bf16::from_f32(*value).to_bits()))
        }
        Precision::F16 => {
            Vec::from_iter(values.iter().map(|value| f16::from_f32(*value).to_bits()))
        }
        Precision::F32 | Precision::F16Weights => values.iter().flat_map(halves).collect(),
    }
}

/// A convolution as its definition says, of `[count, side, side, inputs]` with `[outputs, inputs,
/// width, width]`, plus bias.
fn plain(
    images: (&[f32], usize, usize),
    weight: &[f32],
    bias: &[f32],
    (inputs, width, stride): (usize, usize, usize),
) -> Vec<f32> {
    let (pixels, count, side) = images;
    let (outputs, half) = (bias.len(), side.div_ceil(stride));
    let mut out = Vec::with_capacity(count * half * half * outputs);
    for position in 0..count * half * half {
        let (image, y, x) = (
            position / (half * half),
            position / half % half,
            position % half,
        );
        for (output, bias) in bias.iter().enumerate() {
            let mut sum = *bias;
            for tap in 0..width * width {
                let y = (stride * y + tap / width).wrapping_sub(width / 2);
                let x = (stride * x + tap % width).wrapping_sub(width / 2);
                if y >= side || x >= side {
                    continue;
                }
                for input in 0..inputs {
                    sum += pixels[((image * side + y) * side + x) * inputs + input]
                        * weight[(output * inputs + input) * width * width + tap];
                }
            }
            out.push(sum);
        }
    }
    out
}

fn rectified(format: Precision, values: &[f32]) -> Vec<u16> {
    let rectified: Vec<f32> = values.iter().map(|value| value.max(0.0)).collect();
    bits(format, &rectified)
}

/// The arithmetic of this CPU; without any there is nothing to test.
fn arithmetics() -> impl Iterator<Item = Arithmetic> {
    let others = arithmetics_of_trainings().filter(|one| of_networks().all(|other| other != *one));
    of_networks().chain(others)
}

/// The arithmetic of whole networks.
fn of_networks() -> impl Iterator<Item = Arithmetic> {
    let lanes = [Lanes::Eight, Lanes::Sixteen];
    let single = lanes.into_iter().filter(|lanes| lanes.are_available());
    let formats = [Precision::Bf16, Precision::F16].into_iter();
    formats
        .filter_map(Precision::arithmetic)
        .chain(single.flat_map(|lanes| {
            let filters = [Filters::Exact, Filters::InF16];
            filters.map(|filters| Arithmetic::F32(lanes, filters))
        }))
}

/// The ways in which layers may be trained here.
fn arithmetics_of_trainings() -> impl Iterator<Item = Arithmetic> {
    let all = [
        Arithmetic::Bf16,
        Arithmetic::EmulatedBf16,
        Arithmetic::Mixed,
    ];
    all.into_iter().filter(|arithmetic| arithmetic.can_train())
}

/// The precision of activations.
fn format_of(arithmetic: Arithmetic) -> Precision {
    match arithmetic {
        Arithmetic::Bf16 | Arithmetic::EmulatedBf16 | Arithmetic::Mixed => Precision::Bf16,
        Arithmetic::F16 => Precision::F16,
        Arithmetic::F32(..) => Precision::F32,
    }
}

/// Without the instructions nothing here is ever called, and there is nothing to compare.
fn is_unavailable() -> bool {
    !kernel::available()
}

/// For every upper half that an f32 can have, with lower halves around the middle between two
/// values of bf16.
#[test]
fn emulated_rounding_to_bf16_is_to_nearest() {
    if is_unavailable() {
        return;
    }
    for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
        for first in (0..=u16::MAX).step_by(CHUNK) {
            let value = |place| f32::from_bits(u32::from(first + place) << 16 | lower);
            let values: [f32; CHUNK] = std::array::from_fn(|place| value(place as u16));
            let mut found = [0; CHUNK];
            // SAFETY: the processor has the instructions, and both hold 32 values.
            unsafe {
                let halves = [
                    _mm512_loadu_ps(values.as_ptr()),
                    _mm512_loadu_ps(values[CHUNK / 2..].as_ptr()),
                ];
                let rounded = vectors::in_bf16_by_hand(halves);
                _mm512_storeu_si512(found.as_mut_ptr().cast(), rounded);
            }
            assert_eq!(found, values.map(|value| bf16::from_f32(value).to_bits()));
        }
    }
}

#[test]
fn winograd_convolution_is_the_plain_sum() {
    for (count, side, inputs, outputs) in [
        (3, 7, 64, 128),
        (1, 8, 128, 64),
        (2, 1, 64, 64),
        (1, 15, 32, 64),
        // Large enough for filters in f16; then of one tile more than are multiplied at once.
        (1, 5, 512, 64),
        (7, 2, 512, 128),
    ] {
        let values = whole_numbers(1, count * side * side * inputs, 2);
        // Multiples of four, since the transform halves twice.
        let weight: Vec<f32> = whole_numbers(2, outputs * inputs * 9, 1)
            .into_iter()
            .map(|value| 4.0 * value)
            .collect();
        let bias = whole_numbers(3, outputs, 50);
        let residual = whole_numbers(4, count * side * side * outputs, 100);
        let sums = plain((&values, count, side), &weight, &bias, (inputs, 3, 1));
        let added: Vec<f32> = sums.iter().zip(&residual).map(|(a, b)| a + b).collect();
        let arranged = taps_before_inputs(&weight, inputs, 9);
        for (arithmetic, threads) in arithmetics().flat_map(|one| [(one, 1), (one, 3)]) {
            if arithmetic == Arithmetic::F16 && inputs == 512 {
                // Its sums are beyond the whole numbers of f16.
                continue;
            }
            let format = format_of(arithmetic);
            let (pixels, residual) = (in_format(format, &values), in_format(format, &residual));
            let threads = Threads::new(threads).unwrap();
            let filter = winograd::Filter::new(arithmetic, &arranged, &bias, inputs, &threads);
            let images = Images {
                pixels: pixels.as_slice(),
                count,
                side,
            };
            let mut out = Aligned::zeros(sums.len() * format.width());
            filter.convolve(images, None, true, &threads, out.as_mut_slice());
            assert_eq!(
                out.as_slice(),
                rectified(format, &sums),
                "side {side} in {arithmetic:?}"
            );
            filter.convolve(
                images,
                Some(residual.as_slice()),
                true,
                &threads,
                out.as_mut_slice(),
            );
            assert_eq!(
                out.as_slice(),
                rectified(format, &added),
                "side {side} in {arithmetic:?} with a residual"
            );
        }
    }
}

#[test]
fn convolution_with_stride_is_the_plain_sum() {
    for (count, side, inputs, outputs, width) in [
        (2, 14, 64, 128, 3),
        (1, 7, 128, 64, 3),
        (3, 9, 64, 128, 1),
        (1, 1, 64, 64, 3),
    ] {
        let values = whole_numbers(5, count * side * side * inputs, 2);
        let weight = whole_numbers(6, outputs * inputs * width * width, 2);
        let bias = whole_numbers(7, outputs, 50);
        let sums = plain((&values, count, side), &weight, &bias, (inputs, width, 2));
        let arranged = taps_before_inputs(&weight, inputs, width * width);
        for (arithmetic, threads) in arithmetics().flat_map(|one| [(one, 1), (one, 3)]) {
            let format = format_of(arithmetic);
            let pixels = in_format(format, &values);
            let threads = Threads::new(threads).unwrap();
            let mut room = Aligned::new();
            let (pixels, scale) = arithmetic.factors(pixels.as_slice(), &threads, &mut room);
            let images = Images {
                pixels,
                count,
                side,
            };
            let filter = direct::Filter::new(arithmetic, &arranged, &bias, inputs, width, &threads);
            let mut out = Aligned::zeros(sums.len() * format.width());
            filter.convolve(images, scale, true, &threads, out.as_mut_slice());
            assert_eq!(
                out.as_slice(),
                rectified(format, &sums),
                "side {side} width {width} in {arithmetic:?}"
            );
            filter.convolve(images, scale, false, &threads, out.as_mut_slice());
            assert_eq!(
                out.as_slice(),
                bits(format, &sums),
                "side {side} width {width} in {arithmetic:?}, not rectified"
            );
        }
    }
}

#[test]
fn stem_is_the_plain_sum_and_the_largest_of_nine() {
    for (count, side) in [(2, 33), (1, 64), (3, 46)] {
        // `[count, 3, side, side]`, and the same with the channels of a pixel side by side.
        let planes = whole_numbers(8, count * 3 * side * side, 2);
        let mut pixels = vec![0.0; planes.len()];
        for (index, value) in planes.iter().enumerate() {
            let (image, channel) = (index / (3 * side * side), index / (side * side) % 3);
            pixels[(image * side * side + index % (side * side)) * 3 + channel] = *value;
        }
        let weight = whole_numbers(9, 64 * 3 * 49, 1);
        let bias = whole_numbers(10, 64, 20);
        let half = side.div_ceil(2);
        let sums = plain((&pixels, count, side), &weight, &bias, (3, 7, 2));
        let pooled = half.div_ceil(2);
        let mut expected = Vec::new();
        for position in 0..count * pooled * pooled * 64 {
            let (channel, pixel) = (position % 64, position / 64);
            let (image, y, x) = (
                pixel / (pooled * pooled),
                pixel / pooled % pooled,
                pixel % pooled,
            );
            let mut most = 0.0_f32;
            for y in (2 * y).saturating_sub(1)..half.min(2 * y + 2) {
                for x in (2 * x).saturating_sub(1)..half.min(2 * x + 2) {
                    most = most.max(sums[((image * half + y) * half + x) * 64 + channel]);
                }
            }
            expected.push(most);
        }
        let images: Vec<&[f32]> = planes.chunks_exact(3 * side * side).collect();
        for (arithmetic, threads) in of_networks().flat_map(|one| [(one, 1), (one, 4)]) {
            let format = format_of(arithmetic);
            let threads = Threads::new(threads).unwrap();
            let mut out = Aligned::zeros(expected.len() * format.width());
            let stem = Stem::new(arithmetic, &weight, &bias);
            stem.forward(&images, side, &threads, out.as_mut_slice());
            assert_eq!(
                out.as_slice(),
                rectified(format, &expected),
                "side {side} in {arithmetic:?}"
            );
        }
    }
}

/// A damaged network must not look like one that answers.
#[test]
fn nan_persists_through_relu_and_pooling() {
    let nans = [f32::NAN, -f32::NAN];
    for (arithmetic, nan) in of_networks().flat_map(|one| nans.map(|nan| (one, nan))) {
        let format = format_of(arithmetic);
        let threads = Threads::new(1).unwrap();
        let mut bias = vec![0.0; 64];
        bias[5] = nan;
        let stem = Stem::new(arithmetic, &vec![0.0; 64 * 3 * 49], &bias);
        let mut out = Aligned::zeros(64 * format.width());
        stem.forward(&[&[1.0; 3 * 16]], 4, &threads, out.as_mut_slice());
        let mut widened = [0.0; 64];
        format.widen_all(out.as_slice(), &mut widened);
        for (channel, value) in widened.iter().enumerate() {
            assert_eq!(
                value.is_nan(),
                channel == 5,
                "channel {channel} in {arithmetic:?}"
            );
        }
    }
}

/// The gradient of a filter as its definition says: `[outputs, taps, inputs]`.
fn plain_gradient(
    images: (&[f32], usize, usize),
    gradient: &[f32],
    (inputs, outputs, width, stride): (usize, usize, usize, usize),
) -> Vec<f32> {
    let (pixels, count, side) = images;
    let (half, taps) = (side.div_ceil(stride), width * width);
    let mut sums = vec![0.0; outputs * taps * inputs];
    for position in 0..count * half * half {
        let image = position / (half * half);
        let (y, x) = (position / half % half, position % half);
        for tap in 0..taps {
            let y = (stride * y + tap / width).wrapping_sub(width / 2);
            let x = (stride * x + tap % width).wrapping_sub(width / 2);
            if y >= side || x >= side {
                continue;
            }
            let pixel = &pixels[((image * side + y) * side + x) * inputs..][..inputs];
            for output in 0..outputs {
                let factor = gradient[position * outputs + output];
                let sums = &mut sums[(output * taps + tap) * inputs..][..inputs];
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += factor * value;
                }
            }
        }
    }
    sums
}

#[test]
fn gradients_of_filters_are_the_plain_sums() {
    if is_unavailable() {
        return;
    }
    for (count, side, inputs, outputs, width) in [
        (3, 7_usize, 64, 128, 3),
        (1, 4, 128, 64, 3),
        (3, 1, 64, 64, 3),
        (2, 9, 64, 96, 1),
        // Many channels; then more tiles, and more pixels of a stride, than are arranged at once.
        (1, 5, 128, 192, 3),
        (5, 30, 64, 64, 3),
    ] {
        for stride in [1, 2] {
            if stride == 1 && width == 1 {
                // ResNet18 has none.
                continue;
            }
            let half = side.div_ceil(stride);
            let values = whole_numbers(11, count * side * side * inputs, 2);
            let given = whole_numbers(12, count * half * half * outputs, 2);
            let shape = (inputs, outputs, width, stride);
            let expected = plain_gradient((&values, count, side), &given, shape);
            let pixels = in_bf16(&values);
            // Gradients and what they belong to may be far beyond what f16 holds.
            let of_given = [1.0, 2.0_f32.powi(-40), 2.0_f32.powi(20)];
            let ways = arithmetics_of_trainings().flat_map(|one| [(one, 1), (one, 3)]);
            for ((arithmetic, threads), power) in
                ways.flat_map(|way| of_given.map(|power| (way, power)))
            {
                let scaled = |values: &[f32]| -> Vec<f32> {
                    values.iter().map(|value| value * power).collect()
                };
                let (given, expected) = (in_bf16(&scaled(&given)), scaled(&expected));
                let given = given.as_slice();
                let threads = Threads::new(threads).unwrap();
                let mut workspace = gradient::Workspace::new();
                let mut out = vec![f32::NAN; expected.len()];
                let images = |pixels| Images {
                    pixels,
                    count,
                    side,
                };
                if stride == 1 {
                    let images = images(pixels.as_slice());
                    let (workspace, out) = (&mut workspace, &mut out);
                    gradient::winograd(arithmetic, images, given, &threads, workspace, out);
                } else {
                    let mut room = Aligned::new();
                    let (factors, scale) =
                        arithmetic.factors(pixels.as_slice(), &threads, &mut room);
                    let filter = direct::Filter::empty(arithmetic, inputs, outputs, width);
                    gradient::direct(
                        arithmetic,
                        &filter,
                        (images(factors), scale),
                        given,
                        &threads,
                        &mut workspace,
                        &mut out,
                    );
                }
                assert_eq!(
                    out, expected,
                    "side {side}, width {width}, stride {stride}, {arithmetic:?}, times {power}"
                );
            }
        }
    }
}

/// The gradient of the input as its definition says: each product of the way there, the other way
/// round.
#[test]
fn the_backward_pass_with_stride_is_the_plain_sum() {
    if is_unavailable() {
        return;
    }
    for (count, side, inputs, outputs) in [
        (2, 8_usize, 64, 128),
        (3, 7, 128, 64),
        (1, 1, 64, 64),
        (2, 17, 64, 64),
    ] {
        let half = side.div_ceil(2);
        let weight = whole_numbers(15, outputs * inputs * 9, 2);
        let shortcut = whole_numbers(16, outputs * inputs, 2);
        let given = whole_numbers(17, count * half * half * outputs, 1);
        let of_shortcut = whole_numbers(18, count * half * half * outputs, 2);
        let mut expected = vec![0.0; count * side * side * inputs];
        for position in 0..count * half * half {
            let image = position / (half * half);
            let (y, x) = (position / half % half, position % half);
            let from = position * outputs..(position + 1) * outputs;
            let mut add = |y: usize, x: usize, gradient: &[f32], weight: &dyn Fn(usize) -> f32| {
                let place = ((image * side + y) * side + x) * inputs;
                for (input, sum) in expected[place..place + inputs].iter_mut().enumerate() {
                    let product = |(output, gradient): (usize, &f32)| {
                        gradient * weight(output * inputs + input)
                    };
                    *sum += gradient.iter().enumerate().map(product).sum::<f32>();
                }
            };
            for tap in 0..9 {
                let (y, x) = (
                    (2 * y + tap / 3).wrapping_sub(1),
                    (2 * x + tap % 3).wrapping_sub(1),
                );
                if y < side && x < side {
                    add(y, x, &given[from.clone()], &|at| weight[at * 9 + tap]);
                }
            }
            add(2 * y, 2 * x, &of_shortcut[from], &|at| shortcut[at]);
        }
        let arranged = taps_before_inputs(&weight, inputs, 9);
        let ways = arithmetics_of_trainings().flat_map(|one| [(one, 1), (one, 3)]);
        // The smaller of the two scales must do for both.
        for ((arithmetic, threads), power) in ways.flat_map(|way| [(way, 1.0), (way, 0.125)]) {
            let threads = Threads::new(threads).unwrap();
            let scaled =
                |values: &[f32]| -> Vec<f32> { values.iter().map(|value| value * power).collect() };
            let (given, of_shortcut) = (in_bf16(&scaled(&given)), in_bf16(&scaled(&of_shortcut)));
            let mut back = direct::Backward::new(arithmetic, inputs, outputs);
            back.load(&arranged, &shortcut, &threads);
            let mut out = Aligned::zeros(expected.len());
            let both = [given.as_slice(), of_shortcut.as_slice()];
            back.convolve(both, count, side, &threads, out.as_mut_slice());
            assert_eq!(
                out.as_slice(),
                in_bf16(&scaled(&expected)).as_slice(),
                "side {side} in {arithmetic:?}, times {power}"
            );
        }
    }
}

/// `[outputs, inputs, taps]` as the optimizer has it: `[outputs, taps, inputs]`.
fn taps_before_inputs(weight: &[f32], inputs: usize, taps: usize) -> Vec<f32> {
    let of_output = |filter: &[f32]| {
        let place = |index: usize| filter[index % inputs * taps + index / inputs];
        (0..inputs * taps).map(place).collect::<Vec<f32>>()
    };
    weight
        .chunks_exact(inputs * taps)
        .flat_map(of_output)
        .collect()
}

/// For the gradient of the input, outputs and inputs change places, and each filter is turned
/// round.
#[test]
fn a_filter_packed_for_the_backward_pass_is_reversed() {
    if is_unavailable() {
        return;
    }
    let (inputs, outputs) = (128, 96);
    let threads = Threads::new(2).unwrap();
    let weight = whole_numbers(14, outputs * inputs * 9, 3);
    let mut turned = vec![0.0; weight.len()];
    for (index, value) in weight.iter().enumerate() {
        let (output, input, tap) = (index / 9 / inputs, index / 9 % inputs, index % 9);
        turned[(input * outputs + output) * 9 + 8 - tap] = *value;
    }
    let turned = taps_before_inputs(&turned, outputs, 9);
    let arranged = taps_before_inputs(&weight, inputs, 9);
    for arithmetic in arithmetics_of_trainings() {
        let bias = vec![0.0; inputs];
        let mut made = winograd::Filter::new(arithmetic, &turned, &bias, outputs, &threads);
        let mut packed = winograd::Filter::empty(arithmetic, outputs, inputs);
        let in_f16 = arithmetic.has_f16_factors();
        pack::winograd_backward(in_f16, &arranged, inputs, &threads, packed.panels_mut());
        assert_eq!(packed.panels_mut(), made.panels_mut(), "{arithmetic:?}");
    }
}
