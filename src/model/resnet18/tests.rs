//! Parity with torchvision. `tests/fixtures/generate/make_model_fixtures.py` has the same formulas
//! and wrote the expected values.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::{Mode, ResNet18, TrainableFrom, frozen::FrozenLayers, layout};
use crate::model::{
    fused::{Network, Threads, Workspace},
    precision::Precision,
    tensors::channels_last,
};

/// Weights from a formula, so that both sides have the same without a large file.
pub(crate) fn formula_weights() -> BTreeMap<String, Tensor> {
    let entries = layout(1).into_iter();
    let made = entries.map(|(name, shape)| {
        let sides: Vec<i64> = shape.iter().map(|side| *side as i64).collect();
        if name.ends_with("num_batches_tracked") {
            return (name, Tensor::from(3i64));
        }
        let places = (1..).zip(name.bytes());
        let seed: u64 = places.map(|(place, byte)| place * u64::from(byte)).sum();
        let (scale, offset) = if name.ends_with("running_var") {
            (0.2, 1.0)
        } else if name.ends_with("running_mean") {
            (0.1, 0.0)
        } else if shape.len() == 4 {
            (
                (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt(),
                0.0,
            )
        } else if name.starts_with("fc.") {
            (0.05, 0.0)
        } else if name.ends_with("weight") {
            (0.2, 1.0)
        } else {
            (0.1, 0.0)
        };
        let count: usize = shape.iter().product();
        let value = |index: u64| (scale * noise(seed, index) + offset) as f32;
        let values: Vec<f32> = (0..count as u64).map(value).collect();
        (name, Tensor::from_slice(&values).reshape(sides))
    });
    made.collect()
}

/// SplitMix64 as a number in [-1, 1).
fn noise(seed: u64, index: u64) -> f64 {
    let mut state = ((seed << 32) + index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^= state >> 31;
    (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Images from a formula, `[count, 3, side, side]`.
pub(crate) fn formula_images(count: usize, side: usize) -> Tensor {
    let value = |n: f64, index: usize| {
        let wave = ((0.013 + 0.0211 * n) * index as f64 + n).sin();
        ((1.0 + n) * 0.4 * wave) as f32
    };
    let values: Vec<f32> = (0..count)
        .flat_map(|n| (0..3 * side * side).map(move |index| value(n as f64, index)))
        .collect();
    Tensor::from_slice(&values).reshape([count as i64, 3, side as i64, side as i64])
}

/// torchvision's outputs.
pub(crate) fn expected() -> serde_json::Value {
    serde_json::from_str(include_str!(
        "../../../tests/fixtures/resnet18/expected.json"
    ))
    .unwrap()
}

/// Compares element by element.
pub(crate) fn assert_close(found: &Tensor, expected: &serde_json::Value, tolerance: f64) {
    let found = Vec::<f32>::try_from(found.detach().reshape([-1])).unwrap();
    let expected = expected.as_array().unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let expected = expected.as_f64().unwrap();
        let difference = (f64::from(*found) - expected).abs();
        assert!(difference <= tolerance, "{found} is not {expected}");
    }
}

#[test]
fn predictions_are_torchvisions_within_a_ten_thousandth() {
    let network =
        ResNet18::new(&formula_weights(), TrainableFrom::DEFAULT, Precision::F32).unwrap();
    let expected = expected();
    for (side, key) in [(224, "eval_224"), (96, "eval_96")] {
        let ages = tch::no_grad(|| network.forward(&formula_images(2, side), Mode::Eval)).unwrap();
        assert_close(&ages, &expected[key], 1e-4);
    }
}

/// Root of the mean squared difference, over that of the expected values.
fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (found.to_kind(Kind::Float), expected.to_kind(Kind::Float));
    let error = (found - &expected).square().mean(Kind::Float);
    (error / expected.square().mean(Kind::Float))
        .sqrt()
        .double_value(&[])
}

/// In 16 bits each layer rounds; the fused kernels must not be further from f32 than libtorch's
/// bf16, except by chance.
#[test]
fn fused_features_in_16_bits_are_as_close_to_f32_as_libtorchs() {
    let state = formula_weights();
    let trained = TrainableFrom::DEFAULT;
    let exact = ResNet18::new(&state, trained, Precision::F32).unwrap();
    let exact = exact.without_fused_kernels();
    let mut rounded = ResNet18::new(&state, trained, Precision::Bf16).unwrap();
    for format in formats() {
        for (count, side) in [(3, 224), (2, 97), (1, 32)] {
            let images = formula_images(count, side);
            let expected = exact.features(&images, Mode::Eval).unwrap();
            rounded.fused = None;
            let libtorchs = rounded.features(&images, Mode::Eval).unwrap();
            let network = Network::new(format, &state, 3).unwrap();
            let network = network.expect("numbers that the format holds");
            rounded.fused = Some(FrozenLayers::of(network, Precision::Bf16.kind()));
            let own = rounded.features(&images, Mode::Eval).unwrap();
            assert_eq!(own.size(), expected.size());
            assert_eq!(own.kind(), libtorchs.kind());
            assert_eq!(own.stride(), channels_last(&own).unwrap().stride());
            let (own, libtorchs) = (
                relative_error(&own, &expected),
                relative_error(&libtorchs, &expected),
            );
            assert!(
                own < 1.5 * libtorchs && libtorchs < 0.02,
                "at {side} pixels the own features in {format:?} are off by {own}, libtorch's in bf16 by {libtorchs}"
            );
        }
    }
}

#[test]
fn fused_features_in_f32_are_libtorchs() {
    let state = formula_weights();
    let own = ResNet18::new(&state, TrainableFrom::DEFAULT, Precision::F32).unwrap();
    if own.fused.is_none() {
        return;
    }
    let libtorchs = ResNet18::new(&state, TrainableFrom::DEFAULT, Precision::F32).unwrap();
    let libtorchs = libtorchs.without_fused_kernels();
    for (count, side) in [(3, 224), (2, 97), (1, 32)] {
        let images = formula_images(count, side);
        let expected = libtorchs.features(&images, Mode::Eval).unwrap();
        let own = own.features(&images, Mode::Eval).unwrap();
        assert_eq!(own.size(), expected.size());
        assert_eq!(own.kind(), expected.kind());
        assert_eq!(own.stride(), channels_last(&own).unwrap().stride());
        let error = relative_error(&own, &expected);
        assert!(error < 1e-5, "at {side} pixels they are off by {error}");
    }
}

/// The precisions with kernels on this CPU; without any there is nothing to compare.
fn formats() -> impl Iterator<Item = Precision> {
    let others = [Precision::F32, Precision::F16Weights].into_iter();
    formats_of_16_bits().chain(others.filter(|format| format.has_fused_kernels()))
}

fn formats_of_16_bits() -> impl Iterator<Item = Precision> {
    let all = [Precision::Bf16, Precision::F16];
    all.into_iter().filter(|format| format.has_fused_kernels())
}

/// Weights with intermediate values beyond f16 are refused; bf16 holds them.
#[test]
fn values_too_large_for_f16_are_computed_in_bf16() {
    if formats_of_16_bits().count() < 2 {
        return;
    }
    let mut state = formula_weights();
    assert_eq!(
        Network::fastest(&state, 4).unwrap().unwrap().precision(),
        Precision::F16
    );
    let scale = state["layer2.1.bn2.weight"].copy() * 3e3;
    state.insert("layer2.1.bn2.weight".to_owned(), scale);
    for layers in [3, 4] {
        let network = Network::new(Precision::F16, &state, layers).unwrap();
        assert!(network.is_none());
        let network = Network::fastest(&state, layers).unwrap().unwrap();
        assert_eq!(network.precision(), Precision::Bf16);
    }
}

/// Filters beyond f16 are detected before the first forward pass.
#[test]
fn filters_too_large_for_f16_are_refused() {
    if !Precision::F16Weights.has_fused_kernels() {
        return;
    }
    // layer4's filters are in f16, and layer3's are not.
    for (norm, is_held) in [
        ("layer4.1.bn2.weight", false),
        ("layer3.1.bn2.weight", true),
    ] {
        let mut state = formula_weights();
        let scale = state[norm].copy() * 1e9;
        state.insert(norm.to_owned(), scale);
        for (format, is_made) in [(Precision::F16Weights, is_held), (Precision::F32, true)] {
            let network = Network::new(format, &state, 4).unwrap();
            assert_eq!(network.is_some(), is_made, "{norm} in {format:?}");
        }
    }
}

#[test]
fn fused_predictions_are_torchvisions_within_their_rounding() {
    let expected = expected();
    let sides = [(224, "eval_224"), (96, "eval_96")];
    for (format, (side, key)) in formats().flat_map(|format| sides.map(|side| (format, side))) {
        let network = Network::new(format, &formula_weights(), 4).unwrap();
        let network = network.expect("numbers that the format holds");
        // Near 3, over eighteen layers that round: four steps of bf16, each of them eight steps of
        // f16. With only the filters in f16, one of their steps.
        let most = match format {
            Precision::Bf16 => 0.0625,
            Precision::F16 => 0.0156,
            Precision::F16Weights => 0.0039,
            Precision::F32 => 1e-4,
        };
        let images = Vec::<f32>::try_from(formula_images(2, side).reshape([-1])).unwrap();
        let images: Vec<&[f32]> = images.chunks_exact(3 * side * side).collect();
        let mut workspace = Workspace::new();
        for threads in [1, 2] {
            let threads = Threads::new(threads).unwrap();
            let outputs = network.forward(&images, &[], side, &threads, &mut workspace);
            let outputs = outputs.unwrap();
            let ages: Vec<f32> = outputs.iter().map(|output| output.value).collect();
            assert_close(&Tensor::from_slice(&ages), &expected[key], most);
        }
    }
}
