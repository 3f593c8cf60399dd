//! TrainingService: `api` has the methods, `start` the checks of StartTraining, and `validate` its
//! dry run.

mod api;
mod start;
mod validate;

pub(crate) use self::{
    api::TrainingApi,
    start::{MAX_HUB_CHECKS, MAX_VALIDATIONS, MAX_WEIGHTS_CHECKS},
};
