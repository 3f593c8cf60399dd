//! Options of the optimizer.

use crate::{
    model::resnet18::{TrainableFrom, is_parameter, layout},
    proto::{
        v1,
        validation::{Check, Range},
    },
    training::optimizer::{OptimizerKind, OptimizerOptions},
};

/// Most groups with their own learning rate; the network has 62 parameters.
const MAX_GROUPS: usize = 64;

pub(super) fn read(
    check: &mut Check,
    given: Option<&v1::OptimizerSpec>,
    trained: TrainableFrom,
) -> OptimizerOptions {
    let empty = v1::OptimizerSpec::default();
    let given = given.unwrap_or(&empty);
    let kind = check.choice("spec.optimizer.kind", given.kind, v1::OptimizerKind::Adam);
    let kind = match kind {
        v1::OptimizerKind::Unspecified | v1::OptimizerKind::Adam => OptimizerKind::Adam,
        v1::OptimizerKind::Adamw => OptimizerKind::AdamW,
        v1::OptimizerKind::Sgd => OptimizerKind::Sgd,
    };
    let default_decay = if kind == OptimizerKind::AdamW {
        0.01
    } else {
        0.0
    };
    let learning_rate =
        super::limits::learning_rate(check, "spec.optimizer.learning_rate", given.learning_rate);
    let mut number = |name: &str, given, default, allowed| {
        check.number(&format!("spec.optimizer.{name}"), given, default, allowed)
    };
    let options = OptimizerOptions {
        kind,
        learning_rate,
        beta1: number("beta1", given.beta1, 0.9, Range::BELOW_ONE),
        beta2: number("beta2", given.beta2, 0.999, Range::BELOW_ONE),
        epsilon: number("epsilon", given.epsilon, 1e-8, Range::POSITIVE),
        weight_decay: number(
            "weight_decay",
            given.weight_decay,
            default_decay,
            Range::NOT_NEGATIVE,
        ),
        momentum: number("momentum", given.momentum, 0.9, Range::BELOW_ONE),
        max_gradient_norm: given
            .max_gradient_norm
            .map(|norm| number("max_gradient_norm", Some(norm), norm, Range::POSITIVE)),
        groups: given
            .groups
            .iter()
            .map(|group| (group.prefix.clone(), group.factor))
            .collect(),
    };
    check_groups(check, &options.groups, trained);
    options
}

fn check_groups(check: &mut Check, groups: &[(String, f64)], trained: TrainableFrom) {
    if groups.len() > MAX_GROUPS {
        check.refuse(
            "spec.optimizer.groups",
            format!("must have at most {MAX_GROUPS} items, got {}", groups.len()),
        );
        return;
    }
    let parameters: Vec<String> = layout(1)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| is_parameter(name) && trained.contains_name(name))
        .collect();
    for (index, (prefix, factor)) in groups.iter().enumerate() {
        let field = |name: &str| format!("spec.optimizer.groups[{index}].{name}");
        check.number(
            &field("factor"),
            Some(*factor),
            *factor,
            Range::NOT_NEGATIVE,
        );
        let is_prefix = parameters
            .iter()
            .any(|name| name.starts_with(prefix.as_str()));
        if prefix.is_empty() || !is_prefix {
            check.refuse(
                &field("prefix"),
                format!(
                    "must be a prefix of a trained parameter, got {prefix:?}; the trained layers are {}",
                    trained.names().join(", ")
                ),
            );
        }
        if groups[..index].iter().any(|(earlier, _)| earlier == prefix) {
            check.refuse(
                &field("prefix"),
                format!("must be unique, got {prefix:?} twice"),
            );
        }
    }
}

pub(super) fn message(options: &OptimizerOptions) -> v1::OptimizerSpec {
    let kind = match options.kind {
        OptimizerKind::Adam => v1::OptimizerKind::Adam,
        OptimizerKind::AdamW => v1::OptimizerKind::Adamw,
        OptimizerKind::Sgd => v1::OptimizerKind::Sgd,
    };
    v1::OptimizerSpec {
        kind: kind.into(),
        learning_rate: Some(options.learning_rate),
        beta1: Some(options.beta1),
        beta2: Some(options.beta2),
        epsilon: Some(options.epsilon),
        weight_decay: Some(options.weight_decay),
        momentum: Some(options.momentum),
        max_gradient_norm: options.max_gradient_norm,
        groups: options
            .groups
            .iter()
            .map(|(prefix, factor)| v1::LearningRateGroup {
                prefix: prefix.clone(),
                factor: *factor,
            })
            .collect(),
    }
}
