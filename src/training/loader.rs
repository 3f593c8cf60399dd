//! Decodes batches ahead of the training loop, on threads of its own.
//!
//! Batch k is decoded by thread k modulo the number of threads, which hands it over through a channel with room for one. So batches arrive in
//! order whatever the threads' speed, and at most two batches for each thread are in memory.

use std::{
    collections::BTreeMap,
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

/// One image of the dataset, as the loader needs it.
#[derive(Debug, Clone)]
pub struct LabelledImage {
    /// The file.
    pub path: PathBuf,
    /// The true age in years.
    pub age: f32,
}

/// Decoded and normalised images.
#[derive(Debug, Default)]
pub struct Batch {
    /// `[N, 3, S, S]`, row-major.
    pub pixels: Vec<f32>,
    /// `[N]`, in years.
    pub ages: Vec<f32>,
    /// `[N]`, positions in the list of images.
    pub indices: Vec<u32>,
    /// Images that could not be read, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// One of their names with the reason, for the log.
    pub skipped_example: Option<String>,
    /// Bytes that could not be had; there are no images then.
    pub missing_memory: Option<usize>,
}

/// What is drawn for each image in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Draws {
    /// Which changes there are.
    pub augmentation: Augmentation,
    /// The training's seed.
    pub seed: u64,
    /// The epoch, from 1.
    pub epoch: u32,
}

impl Draws {
    /// What is done to the image at this position of the list.
    pub fn of(&self, position: u32, size: u32) -> Transform {
        self.augmentation
            .draw(self.seed, u64::from(self.epoch), position, size)
    }
}

/// What all batches have in common.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Images in a batch; the last batch may have fewer.
    pub batch_size: usize,
    /// Size and normalisation.
    pub input: InputSpec,
    /// Limits on one image.
    pub limits: Limits,
    /// Decoding threads, at least 1.
    pub threads: usize,
}

/// An iterator over the batches of one pass.
#[derive(Debug)]
pub struct Loader {
    channels: Vec<Receiver<Batch>>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
    batches: usize,
}

impl Loader {
    /// Begins to decode the images in this order, with what is drawn for them.
    pub fn start(
        images: &Arc<Vec<LabelledImage>>,
        order: Vec<u32>,
        options: &LoaderOptions,
        draws: Draws,
    ) -> Self {
        let batches = order.len().div_ceil(options.batch_size);
        let count = options.threads.clamp(1, batches.max(1));
        let order = Arc::new(order);
        let mut channels = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for first in 0..count {
            let (sender, receiver) = sync_channel(1);
            let (images, order, options) =
                (Arc::clone(images), Arc::clone(&order), options.clone());
            let work = move || {
                let mut preprocessor = Preprocessor::new();
                for batch in order.chunks(options.batch_size).skip(first).step_by(count) {
                    if sender
                        .send(decode(&images, batch, &options, draws, &mut preprocessor))
                        .is_err()
                    {
                        // The loop has ended early.
                        return;
                    }
                }
            };
            channels.push(receiver);
            threads.push(std::thread::spawn(work));
        }
        Loader {
            channels,
            threads,
            next: 0,
            batches,
        }
    }

    /// Number of batches of the pass.
    pub fn batches(&self) -> usize {
        self.batches
    }
}

impl Iterator for Loader {
    type Item = Batch;

    /// Waits for the next batch.
    fn next(&mut self) -> Option<Batch> {
        if self.next == self.batches {
            return None;
        }
        let channel = &self.channels[self.next % self.channels.len()];
        self.next += 1;
        // A thread ends early only by a panic, which the panic hook has logged; the pass must not look complete.
        Some(channel.recv().expect("a decoding thread panicked"))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.channels.clear();
        for thread in self.threads.drain(..) {
            // A panic has been reported when it happened.
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
    // A vector that cannot be made would end the process; this way the training says what is missing.
    if loaded
        .pixels
        .try_reserve_exact(values * batch.len())
        .is_err()
    {
        loaded.missing_memory = Some(4 * values * batch.len());
        return loaded;
    }
    loaded.pixels.resize(values * batch.len(), 0.0);
    for &index in batch {
        let image = &images[index as usize];
        let start = loaded.ages.len() * values;
        let pixels = &mut loaded.pixels[start..start + values];
        let failure = match fs_err::read(&image.path) {
            Ok(bytes) => {
                let transform = draws.of(index, options.input.size);
                let (limits, input) = (&options.limits, &options.input);
                match preprocessor.preprocess_changed(&bytes, limits, input, &transform, pixels) {
                    Ok(()) => None,
                    Err(error) => Some(("undecodable", error.to_string())),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Some(("missing", error.to_string()))
            }
            Err(error) => Some(("unreadable", error.to_string())),
        };
        match failure {
            None => {
                loaded.ages.push(image.age);
                loaded.indices.push(index);
            }
            Some((reason, message)) => {
                *loaded.skipped.entry(reason).or_default() += 1;
                loaded.skipped_example = Some(format!("{}: {message}", image.path.display()));
            }
        }
    }
    loaded.pixels.truncate(loaded.ages.len() * values);
    loaded
}
