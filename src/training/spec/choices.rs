//! Fields with a fixed set of values.

use crate::{
    model::precision::Precision,
    proto::{
        v1,
        validation::{Check, Range},
    },
    store::Promotion,
    training::{feature_cache::CachePolicy, metric::Metric},
};

pub(super) fn read_metric(check: &mut Check, field: &str, given: i32, default: Metric) -> Metric {
    match check.choice(field, given, v1::Metric::Unspecified) {
        v1::Metric::Unspecified => default,
        v1::Metric::ValLoss => Metric::Loss,
        v1::Metric::ValRmse => Metric::Rmse,
        v1::Metric::ValMae => Metric::Mae,
    }
}

pub(super) fn metric_message(metric: Metric) -> v1::Metric {
    match metric {
        Metric::Loss => v1::Metric::ValLoss,
        Metric::Rmse => v1::Metric::ValRmse,
        Metric::Mae => v1::Metric::ValMae,
    }
}

pub(super) fn read_target(
    check: &mut Check,
    given: Option<&v1::TargetSpec>,
) -> Option<(Metric, f64)> {
    let given = given?;
    let metric = read_metric(check, "spec.target.metric", given.metric, Metric::Mae);
    let value = Some(given.value);
    let value = check.number("spec.target.value", value, 0.0, Range::POSITIVE);
    Some((metric, value))
}

pub(super) fn read_promotion(
    check: &mut Check,
    given: i32,
    create_version: Option<bool>,
) -> Promotion {
    let has_version = create_version.unwrap_or(true);
    let default = if has_version {
        v1::Promote::IfBetter
    } else {
        v1::Promote::Never
    };
    let promote = check.choice("spec.promote", given, default);
    if !has_version && promote != v1::Promote::Never {
        check.refuse(
            "spec.promote",
            format!(
                "must be unset or NEVER if spec.create_version is false, got {}; without a version nothing can become live",
                promote.as_str_name().trim_start_matches("PROMOTE_")
            ),
        );
    }
    match promote {
        v1::Promote::Always => Promotion::Always,
        v1::Promote::Unspecified | v1::Promote::IfBetter => Promotion::IfBetter,
        v1::Promote::Never => Promotion::Never,
    }
}

pub(super) fn promotion_message(promotion: Promotion) -> v1::Promote {
    match promotion {
        Promotion::Always => v1::Promote::Always,
        Promotion::IfBetter => v1::Promote::IfBetter,
        Promotion::Never => v1::Promote::Never,
    }
}

pub(super) fn read_cache_policy(check: &mut Check, given: i32) -> CachePolicy {
    match check.choice("spec.feature_cache", given, v1::FeatureCache::Auto) {
        v1::FeatureCache::Unspecified | v1::FeatureCache::Auto => CachePolicy::Auto,
        v1::FeatureCache::Off => CachePolicy::Off,
        v1::FeatureCache::Memory => CachePolicy::Memory,
        v1::FeatureCache::Disk => CachePolicy::Disk,
        v1::FeatureCache::Device => CachePolicy::Device,
    }
}

pub(super) fn cache_policy_message(policy: CachePolicy) -> v1::FeatureCache {
    match policy {
        CachePolicy::Auto => v1::FeatureCache::Auto,
        CachePolicy::Off => v1::FeatureCache::Off,
        CachePolicy::Memory => v1::FeatureCache::Memory,
        CachePolicy::Disk => v1::FeatureCache::Disk,
        CachePolicy::Device => v1::FeatureCache::Device,
    }
}

/// Returns `None` for the fastest precision of the device.
pub(super) fn read_precision(check: &mut Check, given: i32) -> Option<Precision> {
    match check.choice("spec.precision", given, v1::Precision::Auto) {
        v1::Precision::Unspecified | v1::Precision::Auto => None,
        v1::Precision::F32 => Some(Precision::F32),
        v1::Precision::Bf16 => Some(Precision::Bf16),
    }
}

pub(super) fn precision_message(precision: Option<Precision>) -> v1::Precision {
    match precision {
        None => v1::Precision::Auto,
        Some(Precision::F32) => v1::Precision::F32,
        Some(Precision::Bf16) => v1::Precision::Bf16,
        Some(Precision::F16 | Precision::F16Weights) => {
            unreachable!("a spec resolves to f32 or bf16")
        }
    }
}
