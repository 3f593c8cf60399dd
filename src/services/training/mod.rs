//! TrainingService: `api` has the methods, `start` the checks of StartTraining, `initial_version`
//! those of a version as initial weights, and `validate` the dry run.

mod api;
mod initial_version;
mod start;
mod validate;

pub(crate) use self::{
    api::TrainingApi,
    start::{MAX_HUB_CHECKS, MAX_VALIDATIONS, MAX_WEIGHTS_CHECKS},
};
