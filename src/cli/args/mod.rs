//! Arguments that several commands share, and their conversion to the API.

pub(crate) mod api_enum;
pub(crate) mod dataset_args;
pub(crate) mod initial_weights;
pub(crate) mod label;
pub(crate) mod model_arg;
pub(crate) mod paths;
pub(crate) mod setting_flags;
pub(crate) mod short_names;
pub(crate) mod spec_field;

pub(crate) mod watch_flag;
