//! What is accepted, and what is said about the rest.

use super::*;

fn minimal() -> v1::TrainingSpec {
    v1::TrainingSpec {
        dataset: Some(v1::DatasetSpec {
            path: "faces".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn defaults_are_the_reference_recipe() {
    let spec = Spec::resolve(Some(&minimal())).unwrap();
    assert_eq!(spec.max_epochs, 10);
    assert_eq!(spec.batch_size, 32);
    assert_eq!(spec.input_size, 224);
    assert_eq!(spec.init, Init::ImageNet);
    assert_eq!(spec.trained.names(), ["layer4", "fc"]);
    assert_eq!(spec.optimizer.learning_rate, 1e-4);
    assert_eq!((spec.optimizer.beta1, spec.optimizer.beta2), (0.9, 0.999));
    assert_eq!(
        (spec.optimizer.epsilon, spec.optimizer.weight_decay),
        (1e-8, 0.0)
    );
    assert!(spec.mean_age_bias);
}

#[test]
fn a_resolved_spec_resolves_to_itself() {
    let spec = Spec::resolve(Some(&minimal())).unwrap();
    assert_eq!(Spec::resolve(Some(&spec.to_message())).unwrap(), spec);
}

#[test]
fn all_violations_are_told_at_once_with_their_paths() {
    let spec = v1::TrainingSpec {
        max_epochs: Some(0),
        batch_size: Some(5_000),
        input_size: Some(16),
        trainable: vec!["layer3".to_owned(), "fc".to_owned()],
        optimizer: Some(v1::OptimizerSpec {
            learning_rate: Some(-1.0),
            beta1: Some(1.0),
            epsilon: Some(f64::NAN),
            ..Default::default()
        }),
        init: Some(v1::InitSpec {
            kind: v1::InitKind::Path.into(),
            path: String::new(),
        }),
        promote: 77,
        ..Default::default()
    };
    let violations = Spec::resolve(Some(&spec)).unwrap_err();
    let fields: Vec<_> = violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "spec.dataset.path",
            "spec.init.path",
            "spec.trainable",
            "spec.max_epochs",
            "spec.batch_size",
            "spec.input_size",
            "spec.optimizer.learning_rate",
            "spec.optimizer.beta1",
            "spec.optimizer.epsilon",
            "spec.promote",
        ]
    );
    assert!(
        violations[2]
            .description
            .contains("add layer4 or leave layer3 out")
    );
    assert_eq!(
        violations[4].description,
        "5000 is out of range; 1 to 4096 is allowed"
    );
}
