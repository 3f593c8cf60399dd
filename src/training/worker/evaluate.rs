//! Predictions for validation and test images.

use std::sync::Arc;

use tch::{Device, Tensor};

use crate::{
    dataset::left_out_columns,
    evaluation::{
        Image, Scored,
        metrics::{Baseline, Intervals, evaluate},
    },
    model::{self, calibration::DEFAULT_LEVEL, resnet18::Mode},
    proto::v1,
    training::{
        data_loader::{Draws, LabelledImage, in_batches},
        feature_cache::FeatureCache,
        feature_loader::FeatureLoader,
        loss::YEARS,
        spec::Spec,
    },
};

use super::{
    decision::Decision,
    error::Error,
    link::{ControlState, EventSender},
    pass::{Pass, PassPart},
    session::{Session, images, no_cache},
};

impl Session<'_> {
    /// Predicts the validation images. All ranks share the work and have the same result.
    pub(super) fn validate(
        &mut self,
        epoch: u32,
        events: &EventSender,
        control: &ControlState,
    ) -> Result<Pass, Error> {
        let validation = Arc::clone(&self.validation);
        // Taken out, because the pass borrows the session too.
        let mut cache = std::mem::replace(&mut self.validation_cache, no_cache());
        let pass = (events, control);
        let scored = self.score(&validation, &mut cache, "validate", epoch, pass);
        self.validation_cache = cache;
        scored
    }

    /// Predicts images in eval mode.
    pub(super) fn score(
        &mut self,
        images: &Arc<Vec<LabelledImage>>,
        cache: &mut FeatureCache,
        phase: &str,
        epoch: u32,
        (events, control): (&EventSender, &ControlState),
    ) -> Result<Pass, Error> {
        let order: Vec<u32> = (0..images.len() as u32).collect();
        let batches = self.ranks.share(in_batches(&order, self.spec.batch_size));
        let mut part = PassPart::default();
        let mut loader =
            FeatureLoader::start(images, batches, &self.loader, Draws::default(), cache);
        let steps = loader.batches();
        // Callers measure the whole pass instead.
        let mut seconds = v1::EpochSeconds::default();
        self.load_fused();
        for step in 0..steps {
            // Several ranks decide together at the end of the pass.
            if self.ranks.count() == 1
                && let Some(end) = Pass::early_end(self.own_decision(control), phase)?
            {
                return Ok(end);
            }
            let extractor = self.feature_extractor();
            let batch = tch::no_grad(|| {
                loader.next(extractor, Mode::Eval, self.device, cache, &mut seconds)
            })?;
            let Some(batch) = batch else { break };
            if !batch.ages.is_empty() {
                let output = tch::no_grad(|| self.predict(&batch.features, Mode::Eval))?;
                let scored = score(&self.loss.years(&output)?, &batch.ages)?;
                part.scored.extend(batch.indices.into_iter().zip(scored));
            }
            events.progress(|| v1::Progress {
                epoch,
                max_epochs: self.spec.max_epochs,
                step: step as u32 + 1,
                steps: steps as u32,
                phase: phase.to_owned(),
                fraction: f64::from(epoch) / f64::from(self.spec.max_epochs),
                ..Default::default()
            })?;
        }
        part.skipped = loader.skipped().count;
        if self.ranks.count() > 1 {
            let own = part.encode(self.own_decision(control));
            let gathered = self.ranks.gather(own)?;
            let decision = gathered.first().and_then(|first| first.first());
            let decision = Decision::of_code(decision.copied().unwrap_or(u8::MAX));
            if let Some(end) = Pass::early_end(decision, phase)? {
                return Ok(end);
            }
            part = PassPart::merge(&gathered, images);
        }
        let example = loader.skipped().example.as_deref();
        check_skipped(part.skipped, example, epoch, images.len(), &self.spec)?;
        cache.complete();
        let (indices, scored) = part.scored.into_iter().unzip();
        Ok(Pass::Complete(scored, indices))
    }

    /// Evaluates the best weights on the test images, if there are any.
    pub(super) fn test(
        &mut self,
        events: &EventSender,
        control: &ControlState,
    ) -> Result<Option<v1::Evaluation>, Error> {
        if self.dataset.test.is_empty() {
            return Ok(None);
        }
        self.load_best()?;
        let images = images(&self.dataset.test);
        let epoch = self.spec.max_epochs;
        let scored = self.score(&images, &mut no_cache(), "test", epoch, (events, control))?;
        let Pass::Complete(scored, indices) = scored else {
            return Ok(None);
        };
        let image = |(scored, index): (&Scored, &u32)| {
            let sample = &self.dataset.test[*index as usize];
            Image {
                name: &sample.name,
                labels: sample.labels.iter().collect(),
                scored: *scored,
            }
        };
        let served = served(scored);
        let images: Vec<_> = served.iter().zip(&indices).map(image).collect();
        let best = self.best.as_ref();
        let calibration = best.and_then(|best| best.calibration.as_ref());
        let mut evaluation = evaluate(
            &images,
            Baseline::new(Some(self.mean_age), &images),
            Intervals::at(calibration, DEFAULT_LEVEL),
            left_out_columns(self.dataset),
        );
        let hash = |index: &u32| &self.dataset.test[*index as usize].content_hash;
        let trained_on = self.trained_on.images();
        evaluation.trained_on_images =
            trained_on.map(|trained_on| trained_on.count(indices.iter().map(hash)));
        Ok(Some(evaluation))
    }

    /// Loads the best weights, which predict years; the session does not train after that.
    pub(super) fn load_best(&mut self) -> Result<(), Error> {
        let Some(best) = &self.best else {
            return Ok(());
        };
        tch::no_grad(|| {
            for (name, tensor) in &best.trained {
                self.state[name].shallow_clone().f_copy_(tensor)?;
            }
            Ok::<_, model::Error>(())
        })?;
        self.loss.scale = YEARS;
        Ok(self.parameters.update_rounded()?)
    }
}

/// Fails if too many images of a pass, or all, are unreadable.
pub(super) fn check_skipped(
    skipped: u64,
    example: Option<&str>,
    epoch: u32,
    all: usize,
    spec: &Spec,
) -> Result<(), Error> {
    let limit = spec.dataset.max_reject_share;
    if skipped as f64 <= limit * all as f64 && (skipped as usize) < all {
        return Ok(());
    }
    Err(Error::TooManySkipped {
        epoch,
        skipped,
        all,
        limit,
        example: example.unwrap_or_default().to_owned(),
    })
}

/// Replaces outputs of the network by the ages that a served model predicts.
///
/// The metrics of an epoch use the outputs, like the loss. Intervals and the evaluation on test
/// images use served ages.
pub(super) fn served(mut scored: Vec<Scored>) -> Vec<Scored> {
    for one in &mut scored {
        one.predicted = YEARS.age(one.predicted);
    }
    scored
}

/// Pairs true and predicted ages in years.
pub(super) fn score(predicted: &Tensor, ages: &[f32]) -> Result<Vec<Scored>, Error> {
    let predicted = Vec::<f32>::try_from(predicted.f_to_device(Device::Cpu)?)?;
    let pairs = ages.iter().zip(predicted);
    let scored = pairs.map(|(age, predicted)| Scored {
        age: f64::from(*age),
        predicted: f64::from(predicted),
    });
    Ok(scored.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_output_is_served_as_age_0_and_others_are_unchanged() {
        let scored = [(1.0, -4.5), (2.0, 0.25), (30.0, 41.0)]
            .map(|(age, predicted)| Scored { age, predicted });
        let found = served(scored.to_vec());
        let expected = [(1.0, 0.0), (2.0, 0.25), (30.0, 41.0)]
            .map(|(age, predicted)| Scored { age, predicted });
        assert_eq!(found, expected);
    }
}
