//! Counts of the results, and a hint about large images.

use crate::cli::commands::predict::requests::ImageResult;

/// Larger side in pixels from which an image is probably not one cropped face.
const LARGE_SIDE: u32 = 800;

#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) images: usize,
    pub(super) failed: usize,
    /// Images in which no face was found; with `--detect-faces`.
    without_face: usize,
    large: usize,
    /// Label and size of the first large image.
    first_large: Option<(String, u32, u32)>,
}

impl Summary {
    pub(super) fn add(&mut self, label: &str, result: &ImageResult, has_faces: bool) {
        self.images += 1;
        let Ok(predicted) = result else {
            self.failed += 1;
            return;
        };
        let prediction = &predicted.prediction;
        if has_faces {
            self.without_face += usize::from(prediction.faces.is_empty());
            return;
        }
        let (width, height) = (prediction.width, prediction.height);
        if width.max(height) >= LARGE_SIDE {
            self.large += 1;
            self.first_large
                .get_or_insert_with(|| (label.to_owned(), width, height));
        }
    }

    /// True if there were images and none was predicted.
    pub(super) fn all_failed(&self) -> bool {
        self.failed > 0 && self.failed == self.images
    }

    /// `300 images: 296 predicted, 4 failed`.
    pub(super) fn text(&self) -> String {
        let images = match self.images {
            1 => "1 image".to_owned(),
            count => format!("{count} images"),
        };
        let mut text = format!("{images}: {} predicted", self.images - self.failed);
        if self.without_face > 0 {
            text.push_str(&format!(", {} of them without a face", self.without_face));
        }
        if self.failed > 0 {
            text.push_str(&format!(", {} failed", self.failed));
        }
        text
    }

    /// A sentence about images that look like whole photos.
    pub(super) fn hint(&self) -> Option<String> {
        let (label, width, height) = self.first_large.as_ref()?;
        let more = match self.large - 1 {
            0 => String::new(),
            1 => " (and 1 more like it)".to_owned(),
            more => format!(" (and {more} more like it)"),
        };
        Some(format!(
            "{label} is {width}x{height}{more}; without --detect-faces the whole image counts as \
             one cropped face."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::commands::predict::requests::PredictedImage,
        proto::v1::{FacePrediction, PredictDurations, Prediction},
    };

    fn image(width: u32, height: u32, faces: usize) -> ImageResult {
        Ok(PredictedImage {
            prediction: Prediction {
                width,
                height,
                faces: vec![FacePrediction::default(); faces],
                ..Prediction::default()
            },
            model_version: "models/age/versions/1".to_owned(),
            durations: PredictDurations::default(),
        })
    }

    #[test]
    fn results_are_counted_and_large_images_named_once() {
        let mut summary = Summary::default();
        summary.add("a.jpg", &image(200, 200, 0), false);
        assert_eq!(summary.text(), "1 image: 1 predicted");
        assert_eq!(summary.hint(), None);
        summary.add("group.jpg", &image(1600, 1000, 0), false);
        summary.add("tall.jpg", &image(300, 900, 0), false);
        summary.add("b.jpg", &Err("is empty".to_owned()), false);
        assert_eq!(summary.text(), "4 images: 3 predicted, 1 failed");
        assert!(!summary.all_failed());
        assert_eq!(
            summary.hint().unwrap(),
            "group.jpg is 1600x1000 (and 1 more like it); without --detect-faces the whole image \
             counts as one cropped face."
        );
    }

    #[test]
    fn images_without_a_face_are_not_failures() {
        let mut summary = Summary::default();
        summary.add("a.jpg", &image(1600, 1000, 2), true);
        summary.add("wall.jpg", &image(1600, 1000, 0), true);
        assert_eq!(
            summary.text(),
            "2 images: 2 predicted, 1 of them without a face"
        );
        assert_eq!(summary.hint(), None);
        let mut failed = Summary::default();
        assert!(!failed.all_failed());
        failed.add("b.jpg", &Err("is empty".to_owned()), true);
        assert!(failed.all_failed());
    }
}
