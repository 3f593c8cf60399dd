//! Decodes batches ahead of the training loop, on separate threads.
//!
//! Thread k modulo the number of threads decodes batch k and sends it through a channel with a
//! capacity of one. Batches therefore arrive in order whatever the speed of the threads, and each
//! thread holds at most two batches in memory.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::JoinHandle,
};

use crate::imaging::{
    InputSpec, Limits, Preprocessor,
    augment::{Augmentation, Transform},
};

#[derive(Debug, Clone)]
pub(super) struct LabelledImage {
    pub(super) path: PathBuf,
    /// In years.
    pub(super) age: f32,
}

/// Decoded and normalised images.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// `[N, 3, S, S]`, row-major.
    pub(super) pixels: Vec<f32>,
    /// `[N]`, in years.
    pub(super) ages: Vec<f32>,
    /// `[N]`, positions in the list of images.
    pub(super) indices: Vec<u32>,
    /// Number of unreadable images.
    pub(super) skipped: u64,
    /// Path and error of one of them, for the log.
    pub(super) skipped_example: Option<String>,
    /// Size in bytes of an allocation that failed; the batch is empty then.
    pub(super) failed_allocation: Option<usize>,
}

/// Random augmentation of one epoch's images.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Draws {
    pub(super) augmentation: Augmentation,
    pub(super) seed: u64,
    /// From 1.
    pub(super) epoch: u32,
}

impl Draws {
    /// Returns the transform of the image at a position of the list.
    pub(super) fn of(&self, position: u32, size: u32) -> Transform {
        self.augmentation
            .draw(self.seed, u64::from(self.epoch), position, size)
    }
}

#[derive(Debug, Clone)]
pub(super) struct LoaderOptions {
    pub(super) input: InputSpec,
    /// Limits on one image.
    pub(super) limits: Limits,
    /// Decoding threads, at least 1.
    pub(super) threads: usize,
}

/// Divides an order of images into batches of this size; the last one may be smaller.
pub(super) fn in_batches(order: &[u32], size: usize) -> Vec<Vec<u32>> {
    order.chunks(size).map(<[u32]>::to_vec).collect()
}

/// An iterator over the batches of one pass.
#[derive(Debug)]
pub(super) struct DataLoader {
    channels: Vec<Receiver<Batch>>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
    batches: usize,
}

impl DataLoader {
    /// Starts to decode these batches of images.
    pub(super) fn start(
        images: &Arc<Vec<LabelledImage>>,
        batches: Vec<Vec<u32>>,
        options: &LoaderOptions,
        draws: Draws,
    ) -> Self {
        let order = Arc::new(batches);
        let batches = order.len();
        let count = options.threads.clamp(1, batches.max(1));
        let mut channels = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for first in 0..count {
            let (sender, receiver) = sync_channel(1);
            let (images, order, options) =
                (Arc::clone(images), Arc::clone(&order), options.clone());
            let work = move || {
                let mut preprocessor = Preprocessor::new();
                for batch in order.iter().skip(first).step_by(count) {
                    if sender
                        .send(decode(&images, batch, &options, draws, &mut preprocessor))
                        .is_err()
                    {
                        // The training loop ended the pass early.
                        return;
                    }
                }
            };
            channels.push(receiver);
            threads.push(std::thread::spawn(work));
        }
        DataLoader {
            channels,
            threads,
            next: 0,
            batches,
        }
    }
}

impl Iterator for DataLoader {
    type Item = Batch;

    /// Waits for the next batch.
    fn next(&mut self) -> Option<Batch> {
        if self.next == self.batches {
            return None;
        }
        let channel = &self.channels[self.next % self.channels.len()];
        self.next += 1;
        // Only a panic, which the panic hook has logged, ends a thread early. The pass must not
        // look complete then.
        Some(channel.recv().expect("a decoding thread panicked"))
    }
}

impl Drop for DataLoader {
    fn drop(&mut self) {
        self.channels.clear();
        for thread in self.threads.drain(..) {
            // The panic hook has logged a panic.
            drop(thread.join());
        }
    }
}

fn decode(
    images: &[LabelledImage],
    batch: &[u32],
    options: &LoaderOptions,
    draws: Draws,
    preprocessor: &mut Preprocessor,
) -> Batch {
    let values = options.input.values();
    let mut loaded = Batch::default();
    // An infallible allocation would abort the process; this one gives the failure a reason.
    if loaded
        .pixels
        .try_reserve_exact(values * batch.len())
        .is_err()
    {
        loaded.failed_allocation = Some(4 * values * batch.len());
        return loaded;
    }
    loaded.pixels.resize(values * batch.len(), 0.0);
    for &index in batch {
        let image = &images[index as usize];
        let start = loaded.ages.len() * values;
        let pixels = &mut loaded.pixels[start..start + values];
        let decoded = match fs_err::read(&image.path) {
            Ok(bytes) => {
                let transform = draws.of(index, options.input.size);
                let (limits, input) = (&options.limits, &options.input);
                preprocessor
                    .preprocess_changed(&bytes, limits, input, &transform, pixels)
                    .map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match decoded {
            Ok(()) => {
                loaded.ages.push(image.age);
                loaded.indices.push(index);
            }
            Err(error) => {
                loaded.skipped += 1;
                loaded.skipped_example = Some(format!("{}: {error}", image.path.display()));
            }
        }
    }
    loaded.pixels.truncate(loaded.ages.len() * values);
    loaded
}
