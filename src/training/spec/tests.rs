//! Defaults, recipes, violations and round trips.

use crate::{model::init::Init, proto::v1, store::Promotion};

use super::{Spec, halve_batch};

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

const RECIPES: [v1::Recipe; 3] = [v1::Recipe::Reference, v1::Recipe::Best, v1::Recipe::Fast];

fn by_recipe(recipe: v1::Recipe) -> v1::TrainingSpec {
    v1::TrainingSpec {
        recipe: recipe.into(),
        ..minimal()
    }
}

#[test]
fn a_resolved_spec_resolves_to_itself() {
    for recipe in RECIPES {
        let spec = Spec::resolve(Some(&by_recipe(recipe))).unwrap();
        assert_eq!(Spec::resolve(Some(&spec.to_message())).unwrap(), spec);
    }
}

#[test]
fn without_a_recipe_the_fields_have_their_own_defaults() {
    let unset = Spec::resolve(Some(&minimal())).unwrap();
    let reference = Spec::resolve(Some(&by_recipe(v1::Recipe::Reference))).unwrap();
    assert_eq!(unset, reference);
    assert_eq!(unset.to_message().recipe(), v1::Recipe::Reference);
}

#[test]
fn a_recipe_fills_unset_fields_and_the_resolved_spec_shows_them() {
    let message = Spec::resolve(Some(&by_recipe(v1::Recipe::Best)))
        .unwrap()
        .to_message();
    assert_eq!(message.recipe(), v1::Recipe::Best);
    assert_eq!(message.init.unwrap().kind(), v1::InitKind::Starter);
    assert_eq!(message.trainable, ["layer3", "layer4", "fc"]);
    assert_eq!(
        (message.max_epochs, message.input_size),
        (Some(15), Some(192))
    );
    let optimizer = message.optimizer.unwrap();
    assert_eq!(optimizer.kind(), v1::OptimizerKind::Adamw);
    assert_eq!(
        (optimizer.learning_rate, optimizer.weight_decay),
        (Some(3e-4), Some(0.05))
    );
    // Fields that the recipe does not set.
    assert_eq!((optimizer.beta1, message.batch_size), (Some(0.9), Some(32)));
    let schedule = message.schedule.unwrap();
    assert_eq!(schedule.kind(), v1::ScheduleKind::Cosine);
    assert_eq!(schedule.warmup_epochs, Some(1.0));
    assert_eq!(message.loss.unwrap().kind(), v1::LossKind::SmoothL1);
    assert_eq!(message.target_scale, v1::TargetScale::Standardised as i32);
    assert_eq!(message.augmentation.unwrap().horizontal_flip, Some(true));
    assert!(message.ema_decay.unwrap() > 0.9);
    assert_eq!(message.monitor, v1::Metric::ValMae as i32);
    assert_eq!(message.head_bias, v1::HeadBias::Keep as i32);

    let message = Spec::resolve(Some(&by_recipe(v1::Recipe::Fast)))
        .unwrap()
        .to_message();
    assert_eq!(message.trainable, ["layer4", "fc"]);
    assert_eq!(
        (message.max_epochs, message.input_size),
        (Some(5), Some(192))
    );
    assert_eq!(message.optimizer.unwrap().learning_rate, Some(1e-3));
    // Any other augmentation would disable the feature cache.
    let augmentation = message.augmentation.unwrap();
    let flipped = v1::AugmentationSpec {
        horizontal_flip: Some(true),
        min_crop_area: Some(1.0),
        brightness: Some(0.0),
        contrast: Some(0.0),
        saturation: Some(0.0),
        erasing: Some(0.0),
    };
    assert_eq!(augmentation, flipped);
    assert_eq!(message.feature_cache, v1::FeatureCache::Auto as i32);
}

#[test]
fn given_fields_override_the_recipe_within_messages_too() {
    let given = v1::TrainingSpec {
        init: Some(v1::InitSpec {
            kind: v1::InitKind::Random.into(),
            ..Default::default()
        }),
        trainable: vec!["fc".to_owned()],
        optimizer: Some(v1::OptimizerSpec {
            learning_rate: Some(1e-5),
            ..Default::default()
        }),
        // Zero and false are given values.
        ema_decay: Some(0.0),
        augmentation: Some(v1::AugmentationSpec {
            horizontal_flip: Some(false),
            erasing: Some(0.0),
            ..Default::default()
        }),
        target_scale: v1::TargetScale::Years.into(),
        ..by_recipe(v1::Recipe::Best)
    };
    let message = Spec::resolve(Some(&given)).unwrap().to_message();
    assert_eq!(message.recipe(), v1::Recipe::Best);
    assert_eq!(message.init.unwrap().kind(), v1::InitKind::Random);
    // Random weights do not predict ages.
    assert_eq!(message.head_bias, v1::HeadBias::MeanAge as i32);
    assert_eq!(message.trainable, ["fc"]);
    let optimizer = message.optimizer.unwrap();
    assert_eq!(optimizer.learning_rate, Some(1e-5));
    assert_eq!(optimizer.kind(), v1::OptimizerKind::Adamw);
    assert_eq!(message.ema_decay, Some(0.0));
    let augmentation = message.augmentation.unwrap();
    assert_eq!(
        (augmentation.horizontal_flip, augmentation.erasing),
        (Some(false), Some(0.0))
    );
    assert!(augmentation.min_crop_area.unwrap() < 1.0);
    assert_eq!(message.target_scale, v1::TargetScale::Years as i32);
    assert_eq!(message.max_epochs, Some(15));
}

#[test]
fn an_unknown_recipe_is_refused() {
    let spec = v1::TrainingSpec {
        recipe: 77,
        ..minimal()
    };
    let violations = Spec::resolve(Some(&spec)).unwrap_err();
    assert_eq!(violations.len(), 1);
    assert_eq!(violations[0].field, "spec.recipe");
}

#[test]
fn the_head_of_the_starter_is_kept_unless_another_bias_is_given() {
    let starter = v1::TrainingSpec {
        init: Some(v1::InitSpec {
            kind: v1::InitKind::Starter.into(),
            ..Default::default()
        }),
        ..minimal()
    };
    assert!(!Spec::resolve(Some(&starter)).unwrap().mean_age_bias);
    let given = v1::TrainingSpec {
        head_bias: v1::HeadBias::MeanAge.into(),
        ..starter.clone()
    };
    assert!(Spec::resolve(Some(&given)).unwrap().mean_age_bias);
    let mut with_path = starter;
    with_path.init.as_mut().unwrap().path = "w.pth".to_owned();
    let violations = Spec::resolve(Some(&with_path)).unwrap_err();
    assert_eq!(violations[0].field, "spec.init.path");
}

#[test]
fn a_version_keeps_its_name_and_the_path_of_its_weights() {
    let given = v1::InitSpec {
        kind: v1::InitKind::Path.into(),
        path: "/data/artifacts/sha256/ab/abcd".to_owned(),
        version: "models/age/versions/4".to_owned(),
        ..Default::default()
    };
    let spec = v1::TrainingSpec {
        init: Some(given.clone()),
        ..minimal()
    };
    let resolved = Spec::resolve(Some(&spec)).unwrap().to_message();
    assert_eq!(resolved.init, Some(given));
}

#[test]
fn a_key_is_kept_and_accepted_for_files_only() {
    let init = |kind: v1::InitKind, key: &str| v1::TrainingSpec {
        init: Some(v1::InitSpec {
            kind: kind.into(),
            path: if kind == v1::InitKind::Path {
                "w.pth"
            } else {
                ""
            }
            .to_owned(),
            key: key.to_owned(),
            version: String::new(),
        }),
        ..minimal()
    };
    let spec = Spec::resolve(Some(&init(v1::InitKind::Path, "model_ema"))).unwrap();
    assert_eq!(spec.to_message().init.unwrap().key, "model_ema");
    let long = "k".repeat(1_025);
    for refused in [
        init(v1::InitKind::Starter, "model_ema"),
        init(v1::InitKind::Path, &long),
    ] {
        let violations = Spec::resolve(Some(&refused)).unwrap_err();
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0].field, "spec.init.key");
    }
}

#[test]
fn all_violations_are_reported_at_once_with_their_paths() {
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
            ..Default::default()
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
        "must be from 1 to 4096, got 5000"
    );
}

/// Every field differs from its default.
fn unusual() -> v1::TrainingSpec {
    v1::TrainingSpec {
        dataset: Some(v1::DatasetSpec {
            path: "faces".to_owned(),
            split_grouping: v1::SplitGrouping::Near.into(),
            ..Default::default()
        }),
        trainable: vec!["layer3".to_owned(), "layer4".to_owned(), "fc".to_owned()],
        optimizer: Some(v1::OptimizerSpec {
            kind: v1::OptimizerKind::Adamw.into(),
            momentum: Some(0.5),
            max_gradient_norm: Some(2.0),
            groups: vec![v1::LearningRateGroup {
                prefix: "layer3.1".to_owned(),
                factor: 0.1,
            }],
            ..Default::default()
        }),
        loss: Some(v1::LossSpec {
            kind: v1::LossKind::SmoothL1.into(),
            beta: Some(0.25),
        }),
        schedule: Some(v1::ScheduleSpec {
            kind: v1::ScheduleKind::Plateau.into(),
            warmup_epochs: Some(0.5),
            min_factor: Some(0.01),
            plateau_factor: Some(0.3),
            plateau_patience: Some(2),
        }),
        ema_decay: Some(0.999),
        target_scale: v1::TargetScale::Standardised.into(),
        augmentation: Some(v1::AugmentationSpec {
            horizontal_flip: Some(true),
            min_crop_area: Some(0.7),
            brightness: Some(0.1),
            contrast: Some(0.2),
            saturation: Some(0.3),
            erasing: Some(0.4),
        }),
        batch_norm: v1::BatchNormPolicy::Frozen.into(),
        monitor: v1::Metric::ValMae.into(),
        target: Some(v1::TargetSpec {
            metric: v1::Metric::ValRmse.into(),
            value: 5.0,
        }),
        restart_policy: Some(v1::RestartPolicy {
            max_restarts: Some(7),
        }),
        on_oom: v1::OnOutOfMemory::Fail.into(),
        shards: Some(4),
        checkpoint_interval: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        ..minimal()
    }
}

#[test]
fn every_field_comes_back_in_the_resolved_spec() {
    let (given, resolved) = (unusual(), Spec::resolve(Some(&unusual())).unwrap());
    let message = resolved.to_message();
    assert_eq!(Spec::resolve(Some(&message)).unwrap(), resolved);
    let grouping = |spec: &v1::TrainingSpec| spec.dataset.clone().unwrap().split_grouping();
    assert_eq!(grouping(&message), grouping(&given));
    assert_eq!(message.loss, given.loss);
    assert_eq!(message.schedule, given.schedule);
    assert_eq!(message.ema_decay, given.ema_decay);
    assert_eq!(message.target_scale, given.target_scale);
    assert_eq!(message.augmentation, given.augmentation);
    assert_eq!(message.batch_norm, given.batch_norm);
    assert_eq!(message.monitor, given.monitor);
    assert_eq!(message.target, given.target);
    assert_eq!(message.restart_policy, given.restart_policy);
    assert_eq!(message.on_oom, given.on_oom);
    assert_eq!(message.shards, given.shards);
    assert_eq!(message.checkpoint_interval, given.checkpoint_interval);
    let (message, given) = (message.optimizer.unwrap(), given.optimizer.unwrap());
    assert_eq!(message.groups, given.groups);
    assert_eq!(message.max_gradient_norm, given.max_gradient_norm);
    // As in torch.optim.AdamW.
    assert_eq!(
        (message.kind, message.weight_decay),
        (given.kind, Some(0.01))
    );
}

#[test]
fn invalid_values_are_reported_by_field() {
    let group = |prefix: &str, factor: f64| v1::LearningRateGroup {
        prefix: prefix.to_owned(),
        factor,
    };
    let spec = v1::TrainingSpec {
        dataset: Some(v1::DatasetSpec {
            path: "faces".to_owned(),
            split_grouping: 3,
            ..Default::default()
        }),
        optimizer: Some(v1::OptimizerSpec {
            kind: 9,
            max_gradient_norm: Some(0.0),
            // layer3 is frozen, and fc is given twice.
            groups: vec![group("layer3", 0.1), group("fc", -1.0), group("fc", 1.0)],
            ..Default::default()
        }),
        loss: Some(v1::LossSpec {
            kind: v1::LossKind::SmoothL1.into(),
            beta: Some(0.0),
        }),
        schedule: Some(v1::ScheduleSpec {
            plateau_factor: Some(1.0),
            min_factor: Some(1.5),
            warmup_epochs: Some(-1.0),
            ..Default::default()
        }),
        ema_decay: Some(1.0),
        augmentation: Some(v1::AugmentationSpec {
            min_crop_area: Some(0.0),
            erasing: Some(2.0),
            ..Default::default()
        }),
        target: Some(v1::TargetSpec::default()),
        checkpoint_interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 1_000,
        }),
        ..minimal()
    };
    let violations = Spec::resolve(Some(&spec)).unwrap_err();
    let mut fields: Vec<_> = violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "spec.augmentation.erasing",
            "spec.augmentation.min_crop_area",
            "spec.checkpoint_interval",
            "spec.dataset.split_grouping",
            "spec.ema_decay",
            "spec.loss.beta",
            "spec.optimizer.groups[0].prefix",
            "spec.optimizer.groups[1].factor",
            "spec.optimizer.groups[2].prefix",
            "spec.optimizer.kind",
            "spec.optimizer.max_gradient_norm",
            "spec.schedule.min_factor",
            "spec.schedule.plateau_factor",
            "spec.schedule.warmup_epochs",
            "spec.target.value",
        ]
    );
}

#[test]
fn more_groups_than_parameters_are_refused_at_once() {
    let group = v1::LearningRateGroup {
        prefix: "nothing".to_owned(),
        factor: 1.0,
    };
    let spec = v1::TrainingSpec {
        optimizer: Some(v1::OptimizerSpec {
            groups: vec![group; 100_000],
            ..Default::default()
        }),
        ..minimal()
    };
    let violations = Spec::resolve(Some(&spec)).unwrap_err();
    assert_eq!(violations.len(), 1);
    assert_eq!(violations[0].field, "spec.optimizer.groups");
    assert!(violations[0].description.contains("100000"));
}

#[test]
fn batch_is_halved_until_it_cannot_be_smaller() {
    let mut spec = Spec::resolve(Some(&minimal())).unwrap().to_message();
    spec.batch_size = Some(5);
    let change = halve_batch(&mut spec).unwrap();
    assert_eq!((change.before.as_str(), change.after.as_str()), ("5", "2"));
    assert_eq!(spec.batch_size, Some(2));
    assert!(halve_batch(&mut spec).is_some());
    assert_eq!(spec.batch_size, Some(1));
    assert_eq!(halve_batch(&mut spec), None);
    // A BatchNorm of layer4 needs two values.
    (spec.batch_size, spec.input_size) = (Some(2), Some(32));
    assert_eq!(halve_batch(&mut spec), None);
}

#[test]
fn without_a_version_nothing_can_become_live() {
    let with = |promote: v1::Promote, create_version: Option<bool>| v1::TrainingSpec {
        promote: promote.into(),
        create_version,
        ..minimal()
    };
    for (given, create_version, promote) in [
        (None, true, Promotion::IfBetter),
        (Some(true), true, Promotion::IfBetter),
        (Some(false), false, Promotion::Never),
    ] {
        let spec = Spec::resolve(Some(&with(v1::Promote::Unspecified, given))).unwrap();
        assert_eq!(
            (spec.create_version, spec.promote),
            (create_version, promote)
        );
        let message = spec.to_message();
        assert_eq!(message.create_version, Some(create_version));
        assert_eq!(Spec::resolve(Some(&message)).unwrap(), spec);
    }
    Spec::resolve(Some(&with(v1::Promote::Never, Some(false)))).unwrap();
    for (promote, name) in [
        (v1::Promote::Always, "ALWAYS"),
        (v1::Promote::IfBetter, "IF_BETTER"),
    ] {
        let violations = Spec::resolve(Some(&with(promote, Some(false)))).unwrap_err();
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].field, "spec.promote");
        assert!(violations[0].description.contains(name), "{violations:?}");
    }
}
