//! The batches of one pass over a list of images: decoded now, or from the features that an earlier pass kept.
//!
//! Both ways hand out the same images in the same batches, so that losses do not depend on where the features come from. Where images are mirrored at
//! random and nothing else is, the cache keeps both variants of each, which the first pass computes.

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
    feature_cache::FeatureCache,
    loader::{Batch, Draws, LabelledImage, Loader, LoaderOptions},
    timed,
};

/// What the frozen layers made of a batch, or the batch itself where there are none.
#[derive(Debug)]
pub struct Fed {
    /// `[N, C, H, W]` on the device that trains.
    pub features: Tensor,
    /// `[N]`, in years.
    pub ages: Vec<f32>,
    /// `[N]`, positions in the list of images.
    pub indices: Vec<u32>,
}

/// An image list's batches, one after the other.
#[derive(Debug)]
pub struct Feed {
    source: Source,
    images: Arc<Vec<LabelledImage>>,
    batches: usize,
    skipped: Skipped,
    /// Set when images are mirrored here, so that the cache can keep both variants.
    mirrored: Option<Draws>,
}

#[derive(Debug)]
enum Source {
    Decoded(Loader),
    Kept(std::vec::IntoIter<Vec<u32>>),
}

/// Images that could not be read in one pass.
#[derive(Debug, Default)]
pub struct Skipped {
    /// Their number.
    pub count: u64,
    /// The name of one, with the reason.
    pub example: Option<String>,
}

impl Feed {
    /// Begins a pass over the images in this order, with what is drawn for them. The cache must have been made for [`variants`] of each image.
    pub fn start(
        images: &Arc<Vec<LabelledImage>>,
        order: Vec<u32>,
        options: &LoaderOptions,
        draws: Draws,
        cache: &FeatureCache,
    ) -> Self {
        let mirrored = (variants(&draws.augmentation) == 2).then_some(draws);
        let draws = match mirrored {
            Some(_) => Draws::default(),
            None => draws,
        };
        let (source, batches) = if cache.is_complete() {
            let batches: Vec<Vec<u32>> = order
                .chunks(options.batch_size)
                .map(<[u32]>::to_vec)
                .collect();
            let count = batches.len();
            (Source::Kept(batches.into_iter()), count)
        } else {
            let loader = Loader::start(images, order, options, draws);
            let count = loader.batches();
            (Source::Decoded(loader), count)
        };
        Feed {
            source,
            images: Arc::clone(images),
            batches,
            skipped: Skipped::default(),
            mirrored,
        }
    }

    /// Number of batches of the pass.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Images that could not be read so far.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// The next batch, which the cache keeps; without images when none of it could be read, `None` at the end. Without a network the features are the images.
    ///
    /// The time goes into `seconds`: waiting for decoded images to `data`, the frozen layers to `forward`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn next(
        &mut self,
        network: Option<&ResNet18>,
        mode: Mode,
        device: Device,
        cache: &mut FeatureCache,
        seconds: &mut v1::EpochSeconds,
    ) -> Result<Option<Fed>, Error> {
        match &mut self.source {
            Source::Decoded(loader) => {
                let Some(batch) = timed(&mut seconds.data, || loader.next()) else {
                    return Ok(None);
                };
                if let Some(bytes) = batch.missing_memory {
                    let text = format!("a batch of {bytes} bytes does not fit into memory");
                    let error = std::io::Error::new(std::io::ErrorKind::OutOfMemory, text);
                    return Err(error.into());
                }
                self.skipped.add(&batch);
                let rows = rows(&batch.indices, self.mirrored);
                timed(&mut seconds.forward, || {
                    let images = images(device, &batch)?;
                    let features = match self.mirrored {
                        None => compute(network, mode, &images)?,
                        Some(_) => mirrored_features(network, mode, &images, &rows, cache)?,
                    };
                    cache.keep(&rows, &features)?;
                    Ok(Some(Fed {
                        features,
                        ages: batch.ages,
                        indices: batch.indices,
                    }))
                })
            }
            Source::Kept(batches) => {
                let Some(batch) = batches.next() else {
                    return Ok(None);
                };
                let all = batch.len();
                let rows = rows(&batch, self.mirrored);
                let has = |row: &u32| cache.has(*row);
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
                Ok(features.map(|features| Fed {
                    features,
                    ages,
                    indices,
                }))
            }
        }
    }
}

/// How many variants of each image there are, as far as they can be told apart before: 2 when images are mirrored and nothing else, 1 when nothing is drawn, 0
/// when each epoch has its own.
pub fn variants(augmentation: &Augmentation) -> usize {
    match (augmentation.is_none(), augmentation.has_few_variants()) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 0,
    }
}

/// Where the cache keeps the variants that are drawn for these images.
fn rows(indices: &[u32], mirrored: Option<Draws>) -> Vec<u32> {
    let row = |index: &u32| match mirrored {
        None => *index,
        Some(draws) => 2 * index + u32::from(draws.of(*index, 0).flip),
    };
    indices.iter().map(row).collect()
}

/// The pixels of a batch, `[N, 3, S, S]`.
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

/// The features of the variants that are drawn; those of the other ones go to the cache.
fn mirrored_features(
    network: Option<&ResNet18>,
    mode: Mode,
    images: &Tensor,
    rows: &[u32],
    cache: &mut FeatureCache,
) -> Result<Tensor, Error> {
    let is_mirrored: Vec<bool> = rows.iter().map(|row| row % 2 == 1).collect();
    let is_mirrored = Tensor::f_from_slice(&is_mirrored)?.f_view([-1, 1, 1, 1])?;
    let is_mirrored = is_mirrored.f_to_device(images.device())?;
    let mirror_image = images.f_flip([3])?;
    if cache.wants_more() {
        let others: Vec<u32> = rows.iter().map(|row| row ^ 1).collect();
        let other = images.f_where_self(&is_mirrored, &mirror_image)?;
        let features = tch::no_grad(|| compute(network, mode, &other))?;
        cache.keep(&others, &features)?;
    }
    compute(
        network,
        mode,
        &mirror_image.f_where_self(&is_mirrored, images)?,
    )
}

impl Skipped {
    fn add(&mut self, batch: &Batch) {
        self.count += batch.skipped.values().sum::<u64>();
        if let Some(example) = &batch.skipped_example {
            if self.example.is_none() {
                tracing::warn!(example, "left out an image that cannot be read");
            }
            self.example.get_or_insert_with(|| example.clone());
        }
    }
}
