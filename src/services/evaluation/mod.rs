//! EvaluateModelVersion: evaluates a version on a dataset of the server, at background priority.
//!
//! - `job`: a task for each call scans the dataset, predicts its images and sends the report. It
//!   ends when its client disconnects or does not read for a minute, or when the server shuts down.
//! - `report`: metrics, plots and warnings.

mod job;
mod report;

pub(crate) use self::job::{Evaluations, Responses};
