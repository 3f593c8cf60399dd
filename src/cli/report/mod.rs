//! Trainings, evaluations and datasets as lines of text.

mod dataset;
mod evaluation;
mod scan;
pub(crate) mod settings;
mod training;
pub(crate) mod validation_sets;

pub(crate) use self::{
    dataset::check_sections,
    evaluation::{evaluation_report_lines, predicted_lines, test_lines, worst_lines},
    scan::{dataset_lines, step_text},
    training::{
        duration, epoch_line, estimate_line, initial_line, is_not_better, lost_sentence,
        progress_text, state_line, summary_lines,
    },
};
pub(crate) use crate::names::of_state as state_name;
