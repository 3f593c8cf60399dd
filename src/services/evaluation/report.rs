use crate::{
    dataset::Sample,
    evaluation::{
        Image, Scored,
        metrics::{Baseline, Intervals, evaluate, predicted_image},
        plots,
    },
    inference::{FilePrediction, ServedModel},
    proto::v1::{self, DatasetSplit},
};

/// The requested results in addition to the metrics.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// The level of intervals.
    pub(super) level: Option<f64>,
    pub(super) plots: bool,
    pub(super) predictions: bool,
}

pub(super) struct Results {
    pub(super) evaluation: v1::Evaluation,
    pub(super) predictions: Vec<v1::PredictedImage>,
    pub(super) predicted_plot: Vec<u8>,
    pub(super) residual_plot: Vec<u8>,
}

/// Computes metrics and draws plots, which takes too long for an async thread.
pub(super) fn compute(
    model: &ServedModel,
    samples: &[Sample],
    predictions: Vec<FilePrediction>,
    left_out: Option<v1::LeftOutColumns>,
    options: Options,
) -> Result<Results, plots::Error> {
    let images: Vec<Image<'_>> = samples
        .iter()
        .zip(predictions)
        .filter_map(|(sample, predicted)| {
            Some(Image {
                name: &sample.name,
                labels: sample.labels.iter().collect(),
                scored: Scored {
                    age: f64::from(sample.age),
                    predicted: predicted.ok()?,
                },
            })
        })
        .collect();
    let intervals = options
        .level
        .and_then(|level| Intervals::at(model.calibration.as_ref(), level));
    let baseline = Baseline::new(model.mean_training_age, &images);
    let mut results = Results {
        evaluation: evaluate(&images, baseline, intervals, left_out),
        predictions: Vec::new(),
        predicted_plot: Vec::new(),
        residual_plot: Vec::new(),
    };
    if options.predictions {
        results.predictions = images.iter().map(predicted_image).collect();
    }
    if options.plots {
        let scored: Vec<Scored> = images.iter().map(|image| image.scored).collect();
        let caption = format!(
            "{} on {} images: MAE {:.2} years",
            model.name,
            images.len(),
            results.evaluation.mae
        );
        results.predicted_plot = plots::predicted_against_true(&scored, intervals, &caption)?;
        results.residual_plot = plots::residuals_against_true(&scored, &caption)?;
    }
    Ok(results)
}

/// The warning for an evaluation on the dataset of the version's own training.
pub(super) fn own_dataset_warning(split: DatasetSplit) -> Option<String> {
    let warning = match split {
        DatasetSplit::Unspecified | DatasetSplit::All => {
            "this is the dataset of the version's training, and most of these images were used for training; the metrics are optimistic"
        }
        DatasetSplit::Train => "these images were used for training; the metrics are optimistic",
        DatasetSplit::Validation => {
            "the version's best epoch was selected and its intervals were calibrated on these images; the metrics are slightly optimistic"
        }
        DatasetSplit::Test => return None,
    };
    Some(warning.to_owned())
}
