//! Record of the images that a session trains on.

use std::path::Path;

use crate::{
    dataset::Sample,
    model::training_images::{TRAINING_IMAGES_FILE, TrainingImages},
};

/// Images that the weights of a session are trained on, those of the initial weights included.
#[derive(Debug)]
pub(super) struct TrainedOn {
    /// Record of the initial weights, for full checkpoints; `None` if it is unknown.
    initial: Option<Vec<u8>>,
    /// `None` if the record of the initial weights is unknown.
    images: Option<TrainingImages>,
}

impl TrainedOn {
    /// Adds the training images of a session to those of its initial weights.
    pub(super) fn new(initial: Option<TrainingImages>, train: &[Sample]) -> Self {
        let own = TrainingImages::of(train.iter().map(|sample| &sample.content_hash));
        TrainedOn {
            images: initial.as_ref().and_then(|initial| initial.union(&own)),
            initial: initial.map(|initial| initial.to_bytes()),
        }
    }

    /// Restores the record of the initial weights from a full checkpoint.
    pub(super) fn restore(initial: Option<&[u8]>, train: &[Sample]) -> Self {
        let initial = initial.and_then(|bytes| {
            TrainingImages::parse(bytes, Path::new(TRAINING_IMAGES_FILE))
                .inspect_err(|error| tracing::warn!(%error, "the full checkpoint has no usable record of the training images of its initial weights"))
                .ok()
        });
        Self::new(initial, train)
    }

    /// Record of the initial weights for a full checkpoint.
    pub(super) fn initial(&self) -> Option<Vec<u8>> {
        self.initial.clone()
    }

    /// All images; `None` if they are unknown.
    pub(super) fn images(&self) -> Option<&TrainingImages> {
        self.images.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(first: u8) -> Sample {
        Sample {
            name: format!("{first}.jpg"),
            path: "/faces".into(),
            age: 30.0,
            labels: Default::default(),
            bytes: 1,
            content_hash: [first; 32],
        }
    }

    #[test]
    fn a_session_is_trained_on_its_images_and_those_of_its_initial_weights() {
        let initial = TrainingImages::of(&[[1; 32], [2; 32]]);
        let train = [sample(2), sample(3)];
        let first = TrainedOn::new(Some(initial.clone()), &train);
        let expected = TrainingImages::of(&[[1; 32], [2; 32], [3; 32]]);
        assert_eq!(first.images(), Some(&expected));

        // Another process, after a full checkpoint.
        let saved = first.initial().unwrap();
        assert_eq!(saved, initial.to_bytes());
        let again = TrainedOn::restore(Some(&saved), &train);
        assert_eq!(again.images(), Some(&expected));
        assert_eq!(again.initial(), Some(saved.clone()));

        let unknown = TrainedOn::new(None, &train);
        assert_eq!((unknown.images(), unknown.initial()), (None, None));
        for lost in [None, Some(&saved[1..])] {
            assert_eq!(TrainedOn::restore(lost, &train).images(), None);
        }
    }
}
