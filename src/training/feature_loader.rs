//! Features of one pass over a list of images: computed from decoded images, or read from the
//! cache.
//!
//! Both sources return the same images in the same batches, so that losses do not depend on the
//! source. If horizontal flips are the only augmentation, the cache holds both variants of each
//! image, which the first pass computes.

use std::sync::Arc;

use tch::{Device, Tensor};

use crate::{
    imaging::augment::Augmentation,
    model::{
        Error,
        resnet18::{Mode, ResNet18},
    },
    proto::v1,
};

use super::{
    data_loader::{Batch, DataLoader, Draws, LabelledImage, LoaderOptions},
    feature_cache::FeatureCache,
    timing::timed,
};

/// Output of the frozen layers for a batch, or its images if no layer is frozen.
#[derive(Debug)]
pub(super) struct FeatureBatch {
    /// `[N, C, H, W]`, on the training device.
    pub(super) features: Tensor,
    /// `[N]`, in years.
    pub(super) ages: Vec<f32>,
    /// `[N]`, positions in the list of images.
    pub(super) indices: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct FeatureLoader {
    source: Source,
    images: Arc<Vec<LabelledImage>>,
    batches: usize,
    skipped: Skipped,
    /// Set if images are flipped here instead of by the data loader, to cache both variants.
    flips: Option<Draws>,
}

#[derive(Debug)]
enum Source {
    Decoded(DataLoader),
    Cached(std::vec::IntoIter<Vec<u32>>),
}

/// Unreadable images of one pass.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    pub(super) count: u64,
    /// Path and error of one of them.
    pub(super) example: Option<String>,
}

impl FeatureLoader {
    /// Starts a pass over these batches of images. The cache must have room for [`variants`] of
    /// each image.
    pub(super) fn start(
        images: &Arc<Vec<LabelledImage>>,
        batches: Vec<Vec<u32>>,
        options: &LoaderOptions,
        draws: Draws,
        cache: &FeatureCache,
    ) -> Self {
        let flips = (variants(&draws.augmentation) == 2).then_some(draws);
        let draws = match flips {
            Some(_) => Draws::default(),
            None => draws,
        };
        let count = batches.len();
        let source = if cache.is_complete() {
            Source::Cached(batches.into_iter())
        } else {
            Source::Decoded(DataLoader::start(images, batches, options, draws))
        };
        FeatureLoader {
            source,
            images: Arc::clone(images),
            batches: count,
            skipped: Skipped::default(),
            flips,
        }
    }

    pub(super) fn batches(&self) -> usize {
        self.batches
    }

    pub(super) fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Returns the next batch and adds it to the cache; `None` at the end. A batch is empty if all
    /// of its images are unreadable. Without a network the features are the images.
    ///
    /// Adds the wait for decoded images to `seconds.data` and the frozen layers to
    /// `seconds.forward`.
    ///
    /// # Errors
    /// An error of libtorch, or a lack of memory.
    pub(super) fn next(
        &mut self,
        network: Option<&ResNet18>,
        mode: Mode,
        device: Device,
        cache: &mut FeatureCache,
        seconds: &mut v1::EpochSeconds,
    ) -> Result<Option<FeatureBatch>, Error> {
        match &mut self.source {
            Source::Decoded(loader) => {
                let Some(batch) = timed(&mut seconds.data, || loader.next()) else {
                    return Ok(None);
                };
                if let Some(bytes) = batch.failed_allocation {
                    let text = format!("failed to allocate {bytes} bytes for a batch");
                    let error = std::io::Error::new(std::io::ErrorKind::OutOfMemory, text);
                    return Err(error.into());
                }
                self.skipped.add(&batch);
                let rows = rows(&batch.indices, self.flips);
                timed(&mut seconds.forward, || {
                    let images = images(device, &batch)?;
                    let features = match self.flips {
                        None => compute(network, mode, &images)?,
                        Some(_) => flipped_features(network, mode, &images, &rows, cache)?,
                    };
                    cache.insert(&rows, &features)?;
                    Ok(Some(FeatureBatch {
                        features,
                        ages: batch.ages,
                        indices: batch.indices,
                    }))
                })
            }
            Source::Cached(batches) => {
                let Some(batch) = batches.next() else {
                    return Ok(None);
                };
                let all = batch.len();
                let rows = rows(&batch, self.flips);
                let has = |row: &u32| cache.contains(*row);
                let indices: Vec<u32> = batch
                    .iter()
                    .zip(&rows)
                    .filter(|(_, row)| has(row))
                    .map(|(index, _)| *index)
                    .collect();
                let rows: Vec<u32> = rows.into_iter().filter(has).collect();
                self.skipped.count += (all - indices.len()) as u64;
                let age = |index: &u32| self.images[*index as usize].age;
                let ages = indices.iter().map(age).collect();
                let features = timed(&mut seconds.forward, || cache.gather(&rows))?;
                Ok(features.map(|features| FeatureBatch {
                    features,
                    ages,
                    indices,
                }))
            }
        }
    }
}

/// Number of variants of each image that the cache can hold: 1 without augmentation, 2 with flips
/// only, 0 if each epoch has other variants.
pub(super) fn variants(augmentation: &Augmentation) -> usize {
    match (augmentation.is_none(), augmentation.has_few_variants()) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 0,
    }
}

/// Rows of the cache for the drawn variants of images.
fn rows(indices: &[u32], flips: Option<Draws>) -> Vec<u32> {
    let row = |index: &u32| match flips {
        None => *index,
        Some(draws) => 2 * index + u32::from(draws.of(*index, 0).flip),
    };
    indices.iter().map(row).collect()
}

/// Returns the images of a batch, `[N, 3, S, S]`.
fn images(device: Device, batch: &Batch) -> Result<Tensor, Error> {
    let count = batch.ages.len() as i64;
    let side = (batch.pixels.len() / (3 * batch.ages.len().max(1))).isqrt() as i64;
    let images = Tensor::f_from_slice(&batch.pixels)?.f_view([count, 3, side, side])?;
    Ok(images.f_to_device(device)?)
}

fn compute(network: Option<&ResNet18>, mode: Mode, images: &Tensor) -> Result<Tensor, Error> {
    match network {
        Some(network) if images.size()[0] > 0 => network.features(images, mode),
        Some(_) | None => Ok(images.shallow_clone()),
    }
}

/// Computes the features of the drawn variants, and adds those of the other variants to the cache.
fn flipped_features(
    network: Option<&ResNet18>,
    mode: Mode,
    images: &Tensor,
    rows: &[u32],
    cache: &mut FeatureCache,
) -> Result<Tensor, Error> {
    let is_flipped: Vec<bool> = rows.iter().map(|row| row % 2 == 1).collect();
    let is_flipped = Tensor::f_from_slice(&is_flipped)?.f_view([-1, 1, 1, 1])?;
    let is_flipped = is_flipped.f_to_device(images.device())?;
    let flipped = images.f_flip([3])?;
    if cache.is_incomplete() {
        let others: Vec<u32> = rows.iter().map(|row| row ^ 1).collect();
        let other = images.f_where_self(&is_flipped, &flipped)?;
        let features = tch::no_grad(|| compute(network, mode, &other))?;
        cache.insert(&others, &features)?;
    }
    compute(network, mode, &flipped.f_where_self(&is_flipped, images)?)
}

impl Skipped {
    fn add(&mut self, batch: &Batch) {
        self.count += batch.skipped;
        if let Some(example) = &batch.skipped_example {
            if self.example.is_none() {
                tracing::warn!(example, "skipped an unreadable image");
            }
            self.example.get_or_insert_with(|| example.clone());
        }
    }
}
