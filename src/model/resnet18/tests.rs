//! Parity with torchvision; `tests/python/make_model_fixtures.py` has the same formula and made the expected numbers.

use super::*;

/// Weights from a formula, so that both sides have the same without a large file.
pub(crate) fn formula_weights() -> BTreeMap<String, Tensor> {
    let entries = layout(1).into_iter();
    let made = entries.map(|(name, shape)| {
        let sides: Vec<i64> = shape.iter().map(|side| *side as i64).collect();
        if name.ends_with("num_batches_tracked") {
            return (name, Tensor::from(3i64));
        }
        let phase = name.bytes().map(u64::from).sum::<u64>() % 97;
        let (scale, offset) = if name.ends_with("running_var") {
            (0.2, 1.0)
        } else if name.ends_with("running_mean") {
            (0.1, 0.0)
        } else if shape.len() == 4 {
            (
                (2.0 / shape[1..].iter().product::<usize>() as f64).sqrt(),
                0.0,
            )
        } else if name.starts_with("fc.") {
            (0.05, 0.0)
        } else if name.ends_with("weight") {
            (0.2, 1.0)
        } else {
            (0.1, 0.0)
        };
        let value =
            |index: usize| (scale * (0.37 * index as f64 + phase as f64).sin() + offset) as f32;
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        (name, Tensor::from_slice(&values).reshape(sides))
    });
    made.collect()
}

/// Pictures from a formula, `[count, 3, side, side]`.
pub(crate) fn formula_images(count: usize, side: usize) -> Tensor {
    let values: Vec<f32> = (0..count * 3 * side * side)
        .map(|index| (0.013 * index as f64).sin() as f32)
        .collect();
    Tensor::from_slice(&values).reshape([count as i64, 3, side as i64, side as i64])
}

/// What torchvision says.
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
    let network = ResNet18::new(&formula_weights(), Trained::DEFAULT);
    let expected = expected();
    for (side, key) in [(224, "eval_224"), (96, "eval_96")] {
        let ages = tch::no_grad(|| network.forward(&formula_images(2, side), Mode::Eval)).unwrap();
        assert_close(&ages, &expected[key], 1e-4);
    }
}

#[test]
fn the_layout_is_torchvisions() {
    let layout = layout(1);
    assert_eq!(layout.len(), 122);
    let parameters: usize = layout
        .iter()
        .filter(|(name, _)| is_parameter(name))
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    // torchvision.models.resnet18(num_classes=1) has this many.
    assert_eq!(parameters, 11_177_025);
    let trained: usize = layout
        .iter()
        .filter(|(name, _)| is_parameter(name) && Trained::DEFAULT.contains_name(name))
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    assert_eq!(trained, 8_393_728 + 513);
}

#[test]
fn trained_parts_must_reach_the_head_without_a_gap() {
    assert_eq!(Trained::parse(&["fc", "layer4"]).unwrap(), Trained::DEFAULT);
    assert_eq!(Trained::parse(&["ALL"]).unwrap().names().len(), 7);
    let gap = Trained::parse(&["layer3", "fc"]).unwrap_err().to_string();
    assert_eq!(
        gap,
        "trainable: layer3 is trained but layer4, which follows it, is not; add layer4 or leave layer3 out"
    );
    assert!(
        Trained::parse(&["layer5"])
            .unwrap_err()
            .to_string()
            .contains("\"layer5\" is no part")
    );
    assert!(Trained::parse::<&str>(&[]).is_err());
}
