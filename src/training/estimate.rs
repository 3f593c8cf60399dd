//! Estimates of the memory and disk space of a training.

use crate::model::{precision::Precision, resnet18};

use super::{
    feature_cache::{CachePolicy, bytes_of_features},
    feature_loader::variants,
    spec::Spec,
};

/// Peak memory of the process in bytes, for these numbers of training and validation images.
pub(crate) fn memory_bytes(spec: &Spec, train: usize, validation: usize) -> u64 {
    let images = train * variants(&spec.augmentation) + validation;
    without_features(spec) + cached_features(spec, images)
}

/// Disk space in bytes: two checkpoints and two full checkpoints, each the current and the next
/// one.
pub(crate) fn disk_bytes(spec: &Spec) -> u64 {
    2 * 4 * parameters(|_| true) + 2 * full_checkpoint(spec)
}

/// Size of a full checkpoint in bytes: all weights, and both moments and the moving average of the
/// trained parameters.
fn full_checkpoint(spec: &Spec) -> u64 {
    let trained = parameters(|name| spec.trained.contains_name(name));
    let copies = 2 + u64::from(spec.ema_decay.is_some());
    4 * (parameters(|_| true) + copies * trained)
}

/// Size in bytes of a feature cache in memory.
fn cached_features(spec: &Spec, images: usize) -> u64 {
    if !matches!(spec.feature_cache, CachePolicy::Auto | CachePolicy::Memory) {
        return 0;
    }
    let precision = spec.precision.unwrap_or(Precision::Bf16);
    let bytes = bytes_of_features(spec.trained, spec.input_size, precision, images).unwrap_or(0);
    match spec.cache_budget {
        Some(budget) if bytes > budget => 0,
        Some(_) | None => bytes,
    }
}

/// Peak memory of the process in bytes without cached features.
///
/// Consists of libtorch, the weights, four copies of the trained parameters (gradient, both moments
/// and the best weights), the sums of shards' gradients, two full checkpoints (one being written,
/// one next) and the activations.
pub(super) fn without_features(spec: &Spec) -> u64 {
    const LIBTORCH: u64 = 350 << 20;
    // Measured at 224 pixels with decoded batches: batch 32 with layer4 trained; batch 64 with all
    // layers trained in bf16, half the size of f32.
    const IMAGE_WITH_LAYER4: u64 = 12 << 20;
    const IMAGE_WITH_MORE: u64 = 20 << 20;
    let trained = parameters(|name| spec.trained.contains_name(name));
    let area = u64::from(spec.input_size).pow(2) as f64 / f64::from(224 * 224);
    let image = match (
        spec.trained.contains_name("layer3.0.conv1.weight"),
        spec.precision,
    ) {
        (false, _) => IMAGE_WITH_LAYER4,
        (true, Some(Precision::F32)) => 2 * IMAGE_WITH_MORE,
        (true, _) => IMAGE_WITH_MORE,
    };
    // Shards are computed one after the other.
    let activations = ((spec.batch_size / spec.shards) as u64 * image) as f64 * area;
    // Each level of the tree of their gradients has a sum.
    let sums = match spec.shards {
        1 => 0,
        shards => 1 + u64::from(shards.ilog2()),
    };
    let weights = 4 * (parameters(|_| true) + (4 + sums) * trained);
    LIBTORCH + weights + 2 * full_checkpoint(spec) + activations as u64
}

/// Number of elements of the selected tensors of the network.
fn parameters(is_selected: impl Fn(&str) -> bool) -> u64 {
    let entries = resnet18::layout(1)
        .into_iter()
        .filter(|(name, _)| is_selected(name));
    entries
        .map(|(_, shape)| shape.iter().product::<usize>() as u64)
        .sum()
}
