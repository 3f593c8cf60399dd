//! Exports a model as TorchScript, which PyTorch and libtorch run without Visage.

use std::{collections::BTreeMap, path::Path};

use tch::{CModule, Device, Kind, Tensor};

use super::{
    Error,
    checkpoint::LabelScale,
    precision::Precision,
    resnet18::{Mode, ResNet18, TrainableFrom},
};

/// The module's name in TorchScript's error messages.
const MODULE: &str = "Visage";

/// Writes a module whose `forward` takes normalised images `[N, 3, S, S]` in f32, for any N, and
/// returns ages in years, `[N]`, at least 0.
///
/// # Errors
/// A failure of libtorch, such as out of memory or a full disk.
///
/// # Panics
/// If a tensor is missing; see [`ResNet18::new`].
pub(crate) fn write(
    state: &BTreeMap<String, Tensor>,
    label: LabelScale,
    input_size: u32,
    path: &Path,
) -> Result<(), Error> {
    let network =
        ResNet18::new(state, TrainableFrom::DEFAULT, Precision::F32)?.without_fused_kernels();
    let side = i64::from(input_size);
    // The trace depends neither on the values nor on the sides, because the pooling accepts any.
    let example = Tensor::f_zeros([1, 3, side, side], (Kind::Float, Device::Cpu))?;
    let mut failure = None;
    let mut forward = |inputs: &[Tensor]| {
        let ages = || -> Result<Tensor, Error> {
            let output = tch::no_grad(|| network.forward(&inputs[0], Mode::Eval))?;
            Ok(output
                .f_mul_scalar(label.scale)?
                .f_add_scalar(label.offset)?
                // As in `LabelScale::age`; NaN stays NaN.
                .f_clamp_min(0.0)?)
        };
        let ages = ages().unwrap_or_else(|error| {
            failure = Some(error);
            // Tracing requires an output.
            inputs[0].shallow_clone()
        });
        vec![ages]
    };
    let module = CModule::create_by_tracing(MODULE, "forward", &[example], &mut forward)?;
    if let Some(error) = failure {
        return Err(error);
    }
    Ok(module.save(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resnet18::tests::{assert_close, expected, formula_images, formula_weights};

    #[test]
    fn the_module_predicts_what_torchvision_does_for_any_number_of_images() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("age.pt");
        let label = LabelScale {
            scale: 1.0,
            offset: 0.0,
        };
        write(&formula_weights(), label, 96, &path).unwrap();
        let module = CModule::load(&path).unwrap();
        let pair = module.forward_ts(&[formula_images(2, 96)]).unwrap();
        assert_close(&pair, &expected()["eval_96"], 1e-4);
        let one = module
            .forward_ts(&[formula_images(2, 96).narrow(0, 0, 1)])
            .unwrap();
        assert_eq!(one.size(), [1]);
    }

    #[test]
    fn ages_are_on_the_scale_of_the_labels() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("age.pt");
        let [plain, scaled] = [(1.0, 0.0), (2.0, 30.0)].map(|(scale, offset)| {
            write(&formula_weights(), LabelScale { scale, offset }, 32, &path).unwrap();
            let module = CModule::load(&path).unwrap();
            let ages = module.forward_ts(&[formula_images(1, 32)]).unwrap();
            ages.double_value(&[0])
        });
        assert!(
            (plain * 2.0 + 30.0 - scaled).abs() < 1e-4,
            "{plain} {scaled}"
        );
    }

    #[test]
    fn the_module_predicts_no_negative_ages() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("age.pt");
        let label = LabelScale {
            scale: 1.0,
            offset: -3.1,
        };
        write(&formula_weights(), label, 96, &path).unwrap();
        let module = CModule::load(&path).unwrap();
        let ages = module.forward_ts(&[formula_images(2, 96)]).unwrap();
        // torchvision's outputs are 3.0327 and 3.2271.
        assert_close(&ages, &serde_json::json!([0.0, 0.127_064_8]), 1e-4);
        assert_eq!(ages.double_value(&[0]), 0.0);
    }
}
