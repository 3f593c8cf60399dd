//! One image's part of a request, as it moves through the pipeline.

use std::{sync::Arc, time::Instant};

use crate::telemetry::{metrics::RejectionReason, traces::Trace};

use super::{Client, Error, PredictOptions, Priority, ServedModel};

/// Everything but the image itself.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Position of the image in the request, from 0, for error messages.
    pub(crate) index: usize,
    pub(crate) model: Arc<ServedModel>,
    pub(crate) options: PredictOptions,
    pub(crate) deadline: Option<Instant>,
    pub(crate) priority: Priority,
    pub(crate) client: Client,
    /// Span of the request, if it is sampled.
    pub(crate) trace: Option<Trace>,
}

impl Job {
    /// Returns true if a small copy of the image is kept for drawing.
    pub(crate) fn keeps_image(&self) -> bool {
        let PredictOptions {
            annotate,
            explain,
            detect_faces,
            ..
        } = self.options;
        annotate || (explain && !detect_faces)
    }

    pub(crate) fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Returns why the result is no longer needed, if so. A deadline that has passed comes first:
    /// the request ends at its deadline, so its client always appears to be gone as well.
    pub(crate) fn drop_reason(&self, is_client_gone: bool) -> Option<RejectionReason> {
        if self.is_late() {
            return Some(RejectionReason::DeadlineExceeded);
        }
        is_client_gone.then_some(RejectionReason::ClientGone)
    }

    /// Returns the age if it is finite.
    ///
    /// # Errors
    /// `Pixels` for preprocessed input: the network can overflow on values that no image has, so
    /// its weights are not to blame. `NotFinite` otherwise.
    pub(crate) fn check_age(&self, age: f64, is_preprocessed: bool) -> Result<f64, Error> {
        if age.is_finite() {
            return Ok(age);
        }
        let index = self.index;
        if is_preprocessed {
            let reason = format!("the values are too large: the age is {age}");
            return Err(Error::Pixels { index, reason });
        }
        Err(Error::NotFinite {
            model: self.model.name.clone(),
            value: age,
            index,
        })
    }
}
