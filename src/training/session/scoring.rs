//! What the network says about validation and test images.

use std::sync::Arc;

use tch::{Device, Tensor};

use crate::{
    dataset::left_out_columns,
    evaluation::{
        Scored,
        metrics::{Baseline, Image, Intervals, evaluate},
    },
    model::{self, calibration::DEFAULT_LEVEL},
    proto::v1,
};

use super::{
    super::{
        failure::Error,
        feature_cache::FeatureCache,
        feed::Feed,
        loader::{Draws, LabelledImage},
        objective::YEARS,
        process::{Control, Reporter, Wish},
        spec::Spec,
    },
    Mode, Session, images, no_cache,
};

/// Predictions for the images that could be read, and the positions of these.
type Evaluated = (Vec<Scored>, Vec<u32>);

impl Session<'_> {
    /// Predicts the validation images; `None` when a stop or a pause came before the end.
    pub(super) fn validate(
        &mut self,
        epoch: u32,
        reporter: &Reporter,
        control: &Control,
    ) -> Result<Option<Vec<Scored>>, Error> {
        let validation = Arc::clone(&self.validation);
        // Taken out for the time of the pass, because the pass borrows the session.
        let mut cache = std::mem::replace(&mut self.validation_cache, no_cache());
        let pass = (reporter, control);
        let scored = self.score(&validation, &mut cache, "validate", epoch, pass);
        self.validation_cache = cache;
        Ok(scored?.map(|(scored, _)| scored))
    }

    /// Predicts all images in eval mode; `None` when a stop came before the end. Also returns which images could be read.
    fn score(
        &mut self,
        images: &Arc<Vec<LabelledImage>>,
        cache: &mut FeatureCache,
        phase: &str,
        epoch: u32,
        (reporter, control): (&Reporter, &Control),
    ) -> Result<Option<Evaluated>, Error> {
        let order = (0..images.len() as u32).collect();
        let mut scored = Vec::with_capacity(images.len());
        let mut indices = Vec::with_capacity(images.len());
        let mut feed = Feed::start(images, order, &self.loader, Draws::default(), cache);
        let steps = feed.batches();
        // Told as a whole, by whoever asked.
        let mut seconds = v1::EpochSeconds::default();
        self.load_tail();
        for step in 0..steps {
            match control.wish() {
                Wish::Cancel | Wish::Orphaned => return Err(Error::Cancelled),
                // A stop or a pause lets the test finish, which ends the training anyhow.
                Wish::Stop | Wish::Pause if phase == "validate" => return Ok(None),
                Wish::Stop | Wish::Pause | Wish::GoOn => {}
            }
            let fed = tch::no_grad(|| {
                feed.next(self.feeder(), Mode::Eval, self.device, cache, &mut seconds)
            })?;
            let Some(fed) = fed else { break };
            if !fed.ages.is_empty() {
                let output = tch::no_grad(|| self.predict(&fed.features, Mode::Eval))?;
                scored.extend(score(&self.objective.years(&output)?, &fed.ages)?);
                indices.extend_from_slice(&fed.indices);
            }
            let report = reporter.progress(|| v1::Progress {
                epoch,
                max_epochs: self.spec.max_epochs,
                step: step as u32 + 1,
                steps: steps as u32,
                phase: phase.to_owned(),
                fraction: f64::from(epoch) / f64::from(self.spec.max_epochs),
                ..Default::default()
            });
            report.map_err(Error::Pipe)?;
        }
        let skipped = feed.skipped();
        let example = skipped.example.as_deref();
        check_skipped(skipped.count, example, epoch, images.len(), &self.spec)?;
        cache.complete();
        Ok(Some((scored, indices)))
    }

    /// Evaluates the best weights on the test images, if there are any; the last thing that is done with a session.
    pub(in super::super) fn test(
        &mut self,
        reporter: &Reporter,
        control: &Control,
    ) -> Result<Option<v1::Evaluation>, Error> {
        let Some(best) = self.best.take().filter(|_| !self.dataset.test.is_empty()) else {
            return Ok(None);
        };
        tch::no_grad(|| {
            for (name, tensor) in &best.trained {
                self.state[name].shallow_clone().f_copy_(tensor)?;
            }
            Ok::<_, model::Error>(())
        })?;
        self.parameters.renew_rounded()?;
        self.objective.scale = YEARS;
        let images = images(&self.dataset.test);
        let epoch = self.spec.max_epochs;
        let scored = self.score(&images, &mut no_cache(), "test", epoch, (reporter, control))?;
        let Some((scored, indices)) = scored else {
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
        Ok(Some(evaluate(
            &images,
            Baseline::new(Some(self.mean_age), &images),
            Intervals::at(best.calibration.as_ref(), DEFAULT_LEVEL),
            left_out_columns(self.dataset),
        )))
    }
}

/// Refuses a pass in which too many images, or all, could not be read.
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

/// The same images with the ages that the model predicts once it is served.
///
/// The metrics of an epoch are computed from the network's outputs, as the loss is. Intervals and the evaluation on test images are about served ages.
pub(super) fn served(mut scored: Vec<Scored>) -> Vec<Scored> {
    for one in &mut scored {
        one.predicted = YEARS.age(one.predicted);
    }
    scored
}

/// True and predicted ages in years, side by side.
pub(super) fn score(predicted: &Tensor, ages: &[f32]) -> Result<Vec<Scored>, Error> {
    let predicted = predicted.f_to_device(Device::Cpu);
    let predicted =
        Vec::<f32>::try_from(predicted.map_err(model::Error::from)?).map_err(model::Error::from)?;
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
    fn a_negative_output_is_a_served_age_of_0_and_others_stay_as_they_are() {
        let scored = [(1.0, -4.5), (2.0, 0.25), (30.0, 41.0)]
            .map(|(age, predicted)| Scored { age, predicted });
        let found = served(scored.to_vec());
        let expected = [(1.0, 0.0), (2.0, 0.25), (30.0, 41.0)]
            .map(|(age, predicted)| Scored { age, predicted });
        assert_eq!(found, expected);
    }
}
