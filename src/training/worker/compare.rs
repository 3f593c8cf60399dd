//! Comparison of the best checkpoint with the live version on the validation images, for the
//! promotion rule IF_BETTER.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use tch::Tensor;

use crate::{
    dataset::Sample,
    evaluation::{ErrorSums, Scored},
    model::{
        checkpoint::{read_manifest, read_model},
        resnet18::{Mode, ResNet18, TrainableFrom},
        starter,
        training_images::TrainingImages,
    },
    proto::{
        v1,
        worker_v1::{Comparison, LiveRequested, LiveVersion, worker_event},
    },
    store::{MIN_COMPARED_IMAGES, Promotion},
    training::{
        control::ControlSignal,
        data_loader::{Draws, LoaderOptions, in_batches},
        feature_loader::FeatureLoader,
    },
};

use super::{
    build::to_device,
    error::Error,
    evaluate::{score, served},
    link::{ControlState, EventSender},
    pass::Pass,
    session::{Session, no_cache},
};

/// Phase of the progress reports.
const PHASE: &str = "promote";

impl Session<'_> {
    /// Compares the best weights with the live version, if the promotion depends on it.
    ///
    /// # Errors
    /// A cancelled training, or a closed pipe. Any other failure becomes part of the result,
    /// because it must not fail the training.
    pub(super) fn compare(
        &mut self,
        events: &EventSender,
        control: &ControlState,
    ) -> Result<Option<Comparison>, Error> {
        if self.spec.promote != Promotion::IfBetter {
            return Ok(None);
        }
        events.send(worker_event::Kind::LiveRequested(LiveRequested {}))?;
        let live = control.wait_for_live().ok_or(Error::Cancelled)?;
        let mut comparison = Comparison {
            live_version: live.number,
            failure: live.failure.clone(),
            ..Default::default()
        };
        if live.number == 0 || !live.failure.is_empty() {
            return Ok(Some(comparison));
        }
        match self.compare_with(&live, &mut comparison, events, control) {
            Ok(()) => {}
            Err(error @ (Error::Cancelled | Error::Pipe(_))) => return Err(error),
            Err(error) => {
                tracing::warn!(version = live.number, %error, "failed to compare the training with the live version");
                comparison.failure = error.to_string();
            }
        }
        Ok(Some(comparison))
    }

    fn compare_with(
        &mut self,
        live: &LiveVersion,
        comparison: &mut Comparison,
        events: &EventSender,
        control: &ControlState,
    ) -> Result<(), Error> {
        comparison.is_unrecorded = self.trained_on.images().is_none();
        let of_live = training_images(live)?;
        comparison.is_live_unrecorded = of_live.is_none();
        let (Some(own), Some(of_live)) = (self.trained_on.images(), of_live) else {
            return Ok(());
        };
        let kept = unseen(&self.dataset.val, [own, &of_live]);
        comparison.images = kept.len() as u64;
        comparison.excluded_images = (self.validation.len() - kept.len()) as u64;
        if comparison.images < MIN_COMPARED_IMAGES {
            return Ok(());
        }
        let live = self.score_live(live, &kept, events, control)?;
        let best = self.score_best(events, control)?;
        let mut errors = [ErrorSums::default(), ErrorSums::default()];
        for (index, scored) in live {
            // Both read the same files, unless one was damaged in between.
            if let Some(own) = best.get(&index) {
                errors[0].add(*own);
                errors[1].add(scored);
            }
        }
        let [best, live] = errors;
        comparison.images = best.images();
        if comparison.images >= MIN_COMPARED_IMAGES {
            (comparison.mse, comparison.live_mse) = (best.mse(), live.mse());
        }
        Ok(())
    }

    /// Predicts the validation images with the best weights; returns the predictions by position.
    fn score_best(
        &mut self,
        events: &EventSender,
        control: &ControlState,
    ) -> Result<BTreeMap<u32, Scored>, Error> {
        self.load_best()?;
        let validation = Arc::clone(&self.validation);
        let epoch = self.spec.max_epochs;
        // Taken out, because the pass borrows the session too.
        let mut cache = std::mem::replace(&mut self.validation_cache, no_cache());
        let found = self.score(&validation, &mut cache, PHASE, epoch, (events, control));
        self.validation_cache = cache;
        match found? {
            Pass::Complete(scored, indices) => {
                Ok(indices.into_iter().zip(served(scored)).collect())
            }
            // Only a validation that selects an epoch ends early.
            Pass::Stopped | Pass::Paused => Ok(BTreeMap::new()),
        }
    }

    /// Predicts validation images with the live version, in the precision of the training.
    fn score_live(
        &self,
        live: &LiveVersion,
        kept: &[u32],
        events: &EventSender,
        control: &ControlState,
    ) -> Result<Vec<(u32, Scored)>, Error> {
        let manifest = read_manifest(Path::new(&live.manifest_path))?;
        let state = read_model(Path::new(&live.weights_path), &live.weights_sha256)?;
        let state = to_device(state, self.device)?;
        let network = ResNet18::new(&state, TrainableFrom::HEAD, self.network.precision())?;
        let options = LoaderOptions {
            input: manifest.input,
            ..self.loader.clone()
        };
        let mut cache = no_cache();
        let draws = Draws::default();
        let batches = in_batches(kept, self.spec.batch_size);
        let mut loader = FeatureLoader::start(&self.validation, batches, &options, draws, &cache);
        let mut seconds = v1::EpochSeconds::default();
        let steps = loader.batches();
        let mut found = Vec::with_capacity(kept.len());
        for step in 0..steps {
            if control.signal() >= ControlSignal::Cancel {
                return Err(Error::Cancelled);
            }
            let (device, mode) = (self.device, Mode::Eval);
            let batch = loader.next(Some(&network), mode, device, &mut cache, &mut seconds)?;
            let Some(batch) = batch else { break };
            if !batch.ages.is_empty() {
                let output: Tensor =
                    tch::no_grad(|| network.forward_features(batch.features, Mode::Eval))?;
                let scored = score(&output, &batch.ages)?
                    .into_iter()
                    .map(|scored| Scored {
                        predicted: manifest.label.age(scored.predicted),
                        ..scored
                    });
                found.extend(batch.indices.into_iter().zip(scored));
            }
            events.progress(|| v1::Progress {
                epoch: self.spec.max_epochs,
                max_epochs: self.spec.max_epochs,
                step: step as u32 + 1,
                steps: steps as u32,
                phase: PHASE.to_owned(),
                fraction: 1.0,
                ..Default::default()
            })?;
        }
        Ok(found)
    }
}

/// Images that the live version was trained on, if they are recorded.
fn training_images(live: &LiveVersion) -> Result<Option<TrainingImages>, Error> {
    if live.training_images_path.is_empty() {
        // Older programs registered the starter without its record.
        let is_starter = live.weights_sha256 == starter::sha256();
        return Ok(is_starter.then(starter::training_images).transpose()?);
    }
    let path = Path::new(&live.training_images_path);
    Ok(Some(TrainingImages::read(
        path,
        &live.training_images_sha256,
    )?))
}

/// Positions of the images that no model was trained on.
fn unseen(images: &[Sample], trained_on: [&TrainingImages; 2]) -> Vec<u32> {
    let is_unseen = |sample: &Sample| {
        !trained_on
            .iter()
            .any(|trained_on| trained_on.contains(&sample.content_hash))
    };
    let unseen = images.iter().enumerate();
    unseen
        .filter(|(_, sample)| is_unseen(sample))
        .map(|(index, _)| index as u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_one_model_was_trained_on_are_not_compared() {
        let sample = |first: u8| Sample {
            name: format!("{first}.jpg"),
            path: "/faces".into(),
            age: 30.0,
            labels: Default::default(),
            bytes: 1,
            content_hash: [first; 32],
        };
        let images = [sample(0), sample(1), sample(2), sample(3), sample(1)];
        let own = TrainingImages::of(&[[1; 32]]);
        let of_live = TrainingImages::of(&[[3; 32], [9; 32]]);
        assert_eq!(unseen(&images, [&own, &of_live]), [0, 2]);
    }
}
