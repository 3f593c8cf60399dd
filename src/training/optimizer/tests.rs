//! Comparison with torch.optim, and a hand calculation of the moving average.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::{
    model::{precision::Precision, resnet18::TrainableFrom},
    training::parameters::FlatParameters,
};

use super::*;

const ADAM: OptimizerOptions = OptimizerOptions {
    kind: OptimizerKind::Adam,
    learning_rate: 0.1,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 0.0,
    momentum: 0.9,
    max_gradient_norm: None,
    groups: Vec::new(),
};

/// Three steps of torch.optim 2.11 on fixed gradients, written by `make_model_fixtures.py`. The
/// last of four parameters is the bias of the head; one case gives it another learning rate.
#[test]
fn steps_are_those_of_torch() {
    check(
        ADAM,
        &include!("../../../tests/fixtures/optimizers/adam.in"),
    );
    check(
        OptimizerOptions {
            weight_decay: 0.1,
            ..ADAM
        },
        &include!("../../../tests/fixtures/optimizers/adam_decay.in"),
    );
    check(
        OptimizerOptions {
            kind: OptimizerKind::AdamW,
            weight_decay: 0.1,
            ..ADAM
        },
        &include!("../../../tests/fixtures/optimizers/adamw.in"),
    );
    check(
        OptimizerOptions {
            kind: OptimizerKind::Sgd,
            weight_decay: 0.1,
            ..ADAM
        },
        &include!("../../../tests/fixtures/optimizers/sgd.in"),
    );
    check(
        OptimizerOptions {
            kind: OptimizerKind::Sgd,
            max_gradient_norm: Some(0.25),
            ..ADAM
        },
        &include!("../../../tests/fixtures/optimizers/sgd_clipped.in"),
    );
    check(
        OptimizerOptions {
            kind: OptimizerKind::AdamW,
            weight_decay: 0.1,
            groups: vec![("fc".to_owned(), 0.5), ("fc.bias".to_owned(), 0.1)],
            ..ADAM
        },
        &include!("../../../tests/fixtures/optimizers/adamw_groups.in"),
    );
}

const GRADIENTS: [[f32; 4]; 3] = [
    [0.1, -0.2, 0.3, 0.5],
    [0.3, 0.1, -0.2, -0.4],
    [-0.1, 0.4, 0.05, 0.2],
];

fn check(options: OptimizerOptions, expected: &[[f32; 4]; 3]) {
    let weight = || Tensor::from_slice(&[1.0f32, -2.0, 3.0]).reshape([1, 3]);
    let bias = || Tensor::from_slice(&[0.5f32]);
    // The kernel for CPUs, and the operations for GPUs.
    for is_kernel in [true, false] {
        let mut state = BTreeMap::from([
            ("fc.weight".to_owned(), weight()),
            ("fc.bias".to_owned(), bias()),
        ]);
        let mut parameters = FlatParameters::gather(
            &mut state,
            TrainableFrom::DEFAULT,
            Device::Cpu,
            Precision::F32,
        )
        .unwrap();
        let mut optimizer = Optimizer::new(&parameters, options.clone()).unwrap();
        for (gradient, expected) in GRADIENTS.iter().zip(expected) {
            // The gradient of the inner product with a constant is the constant.
            let computed = parameters.computed(&state);
            let loss = (&computed["fc.weight"] * Tensor::from_slice(&gradient[..3]))
                .sum(Kind::Float)
                + (&computed["fc.bias"] * f64::from(gradient[3])).sum(Kind::Float);
            parameters.backward(&loss).unwrap();
            if is_kernel {
                optimizer.step(&mut parameters, 1.0).unwrap();
            } else {
                optimizer.steps += 1;
                let rate = options.learning_rate;
                tch::no_grad(|| optimizer.step_on_device(&mut parameters, rate)).unwrap();
            }
            let mut found = Vec::<f32>::try_from(state["fc.weight"].reshape([-1])).unwrap();
            found.push(state["fc.bias"].double_value(&[0]) as f32);
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 2e-6,
                    "{found} is not {expected} ({options:?}, kernel {is_kernel})"
                );
            }
        }
    }
}

/// The decays are 1/10, 2/11 and 0.2, because 3/12 exceeds the requested 0.2.
#[test]
fn average_follows_a_hand_calculation() {
    let value = |number: f32| [Tensor::from_slice(&[number])];
    let mut average = MovingAverage::new(0.2, &value(0.0)).unwrap();
    for number in [1.0, 2.0, 4.0] {
        average.update(&value(number)).unwrap();
    }
    let second = 0.9 * 2.0 / 11.0 + 2.0 * 9.0 / 11.0;
    let expected = 0.2 * second + 0.8 * 4.0;
    assert!((average.tensors()[0].double_value(&[0]) - expected).abs() < 1e-6);
    let mut trained = value(7.0);
    average.exchange(&mut trained).unwrap();
    assert!((trained[0].double_value(&[0]) - expected).abs() < 1e-6);
    assert_eq!(average.tensors()[0].double_value(&[0]), 7.0);
}
