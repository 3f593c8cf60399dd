//! What a training will need, told before it starts.

use crate::model::{precision::Precision, resnet18};

use super::{
    feature_cache::{CachePolicy, bytes_of_features},
    feed::variants,
    spec::Spec,
};

/// Peak memory of the process in bytes, for so many training and so many validation images.
pub fn memory_bytes(spec: &Spec, train: usize, validation: usize) -> u64 {
    let images = train * variants(&spec.augmentation) + validation;
    without_features(spec) + kept_features(spec, images)
}

/// Disk in bytes: the best checkpoint so far and the one that may take its place, and the full checkpoint and the one that follows it.
pub fn disk_bytes(spec: &Spec) -> u64 {
    2 * 4 * parameters(|_| true) + 2 * full_checkpoint(spec)
}

/// Bytes of a full checkpoint: all weights, both moments of what is trained, and its moving average.
fn full_checkpoint(spec: &Spec) -> u64 {
    let trained = parameters(|name| spec.trained.contains_name(name));
    let copies = 2 + u64::from(spec.ema_decay.is_some());
    4 * (parameters(|_| true) + copies * trained)
}

/// Memory in bytes of the features that are kept, if they are kept in memory.
fn kept_features(spec: &Spec, images: usize) -> u64 {
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

/// Peak memory of the process in bytes, kept features not counted: what libtorch and the weights take, three more copies of what is trained (gradient and both
/// moments) and one of the best weights, a full checkpoint that is being written and the one that follows it, and the activations, which grow with the batch and the image.
pub(super) fn without_features(spec: &Spec) -> u64 {
    const LIBTORCH: u64 = 350 << 20;
    // Measured at 224 pixels, decoded batches included: batch 32 with layer4 trained; batch 64 with all layers, in bf16, of which f32 has twice the bytes.
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
    let activations = (spec.batch_size as u64 * image) as f64 * area;
    let weights = 4 * (parameters(|_| true) + 4 * trained);
    LIBTORCH + weights + 2 * full_checkpoint(spec) + activations as u64
}

/// Number of elements of the network's tensors that the test lets through.
fn parameters(wanted: impl Fn(&str) -> bool) -> u64 {
    let entries = resnet18::layout(1)
        .into_iter()
        .filter(|(name, _)| wanted(name));
    entries
        .map(|(_, shape)| shape.iter().product::<usize>() as u64)
        .sum()
}
