//! State that rank 0 sends to the other ranks: the job, the images and a full checkpoint.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use prost::Message;

use crate::{
    dataset::{Dataset, Sample},
    proto::worker_v1::Job,
    training::ranks::{Instruction, Ranks},
};

use super::{
    error::Error,
    full_checkpoint::Restored,
    session::{Session, no_cache},
};

/// Images of one split.
#[derive(Clone, PartialEq, Message)]
struct Images {
    #[prost(bytes = "vec", repeated, tag = "1")]
    paths: Vec<Vec<u8>>,
    /// In years.
    #[prost(float, repeated, tag = "2")]
    ages: Vec<f32>,
}

/// Content of a session for another rank.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) job: Job,
    pub(super) dataset: Dataset,
    pub(super) restored: Restored,
}

impl Session<'_> {
    /// Sends the state of this rank to the others.
    ///
    /// # Errors
    /// A lost rank, or a lack of memory.
    pub(super) fn start_ranks(&mut self, ranks: Ranks) -> Result<(), Error> {
        Instruction::Start.send(&ranks)?;
        ranks.broadcast(self.job.encode_to_vec())?;
        for samples in [&self.dataset.train, &self.dataset.val] {
            ranks.broadcast(encode(samples))?;
        }
        ranks.broadcast(self.snapshot()?.to_bytes()?)?;
        self.loader.threads = (self.loader.threads / ranks.count()).max(1);
        tracing::info!(ranks = ranks.count(), "ranks of the training connected");
        self.ranks = ranks;
        Ok(())
    }

    /// Ends the other ranks after the epochs; this one computes the rest.
    pub(super) fn end_ranks(&mut self) {
        if self.ranks.count() > 1 {
            self.ranks = Ranks::solo();
            // It has the features of this rank's batches only.
            self.validation_cache = no_cache();
        }
    }
}

impl Setup {
    /// Receives the state from rank 0; `None` if it does not need this rank.
    ///
    /// # Errors
    /// A lost rank, or the text of an unreadable message.
    pub(super) fn receive(ranks: &Ranks) -> Result<Option<Self>, Error> {
        loop {
            match Instruction::receive(ranks)? {
                Instruction::Wait => {}
                Instruction::Start => break,
                Instruction::Leave => return Ok(None),
            }
        }
        let unreadable = |error: &dyn std::fmt::Display| Error::Setup(error.to_string());
        let job = ranks.broadcast(Vec::new())?;
        let job = Job::decode(job.as_slice()).map_err(|error| unreadable(&error))?;
        let mut splits = Vec::new();
        for _ in 0..2 {
            let images = ranks.broadcast(Vec::new())?;
            splits.push(decode(&images).map_err(|error| unreadable(&error))?);
        }
        let restored = Restored::from_bytes(&ranks.broadcast(Vec::new())?);
        let restored = restored.map_err(|error| unreadable(&error))?;
        let (val, train) = (splits.pop(), splits.pop());
        Ok(Some(Setup {
            job,
            dataset: Dataset::of_samples(train.unwrap_or_default(), val.unwrap_or_default()),
            restored,
        }))
    }
}

fn encode(samples: &[Sample]) -> Vec<u8> {
    let path = |sample: &Sample| sample.path.as_os_str().as_bytes().to_vec();
    let images = Images {
        paths: samples.iter().map(path).collect(),
        ages: samples.iter().map(|sample| sample.age).collect(),
    };
    images.encode_to_vec()
}

fn decode(bytes: &[u8]) -> Result<Vec<Sample>, prost::DecodeError> {
    let images = Images::decode(bytes)?;
    let sample = |(path, age): (Vec<u8>, f32)| Sample {
        path: PathBuf::from(OsStr::from_bytes(&path)),
        age,
        ..Sample::default()
    };
    Ok(images
        .paths
        .into_iter()
        .zip(images.ages)
        .map(sample)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_ages_arrive_as_they_were_sent() {
        let sample = |path: &[u8], age: f32| Sample {
            path: PathBuf::from(OsStr::from_bytes(path)),
            age,
            ..Sample::default()
        };
        let samples = [
            sample(b"/faces/31 \xff.jpg", 31.5),
            sample("/ä".as_bytes(), 0.0),
        ];
        assert_eq!(decode(&encode(&samples)).unwrap(), samples);
        assert_eq!(decode(&encode(&[])).unwrap(), []);
    }
}
