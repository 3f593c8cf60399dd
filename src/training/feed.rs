//! The batches of one pass over a list of images: decoded now, or from the features that an earlier pass kept.
//!
//! Both ways hand out the same images in the same batches, so that losses do not depend on where the features come from.

use std::sync::Arc;

use tch::{Device, Tensor};

use crate::{
    model::{
        Error,
        resnet18::{Mode, ResNet18},
    },
    proto::v1,
};

use super::{
    feature_cache::FeatureCache,
    loader::{Batch, Loader, LoaderOptions, Picture},
    timed,
};

/// What the frozen layers made of a batch.
#[derive(Debug)]
pub struct Fed {
    /// `[N, C, H, W]`, on the device that trains.
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
    pictures: Arc<Vec<Picture>>,
    batches: usize,
    skipped: Skipped,
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
    /// Begins a pass over the images in this order.
    pub fn start(
        pictures: &Arc<Vec<Picture>>,
        order: Vec<u32>,
        options: &LoaderOptions,
        cache: &FeatureCache,
    ) -> Self {
        let (source, batches) = if cache.is_complete() {
            let batches: Vec<Vec<u32>> = order
                .chunks(options.batch_size)
                .map(<[u32]>::to_vec)
                .collect();
            let count = batches.len();
            (Source::Kept(batches.into_iter()), count)
        } else {
            let loader = Loader::start(pictures, order, options);
            let count = loader.batches();
            (Source::Decoded(loader), count)
        };
        Feed {
            source,
            pictures: Arc::clone(pictures),
            batches,
            skipped: Skipped::default(),
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

    /// The next batch, which the cache keeps; without images when none of it could be read, `None` at the end.
    ///
    /// The time goes into `seconds`: waiting for decoded images to `data`, the frozen layers to `forward`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn next(
        &mut self,
        network: &ResNet18,
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
                self.skipped.add(&batch);
                timed(&mut seconds.forward, || {
                    let features = compute(network, mode, device, &batch)?;
                    cache.keep(&batch.indices, &features)?;
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
                let indices: Vec<u32> = batch
                    .into_iter()
                    .filter(|index| cache.has(*index))
                    .collect();
                self.skipped.count += (all - indices.len()) as u64;
                let age = |index: &u32| self.pictures[*index as usize].age;
                let ages = indices.iter().map(age).collect();
                let features = timed(&mut seconds.forward, || cache.gather(&indices))?;
                Ok(features.map(|features| Fed {
                    features,
                    ages,
                    indices,
                }))
            }
        }
    }
}

fn compute(network: &ResNet18, mode: Mode, device: Device, batch: &Batch) -> Result<Tensor, Error> {
    let count = batch.ages.len() as i64;
    let side = (batch.pixels.len() / (3 * batch.ages.len().max(1))).isqrt() as i64;
    let images = Tensor::f_from_slice(&batch.pixels)?.f_view([count, 3, side, side])?;
    if count == 0 {
        return Ok(images);
    }
    network.features(&images.f_to_device(device)?, mode)
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
