//! Model versions and aliases: registers checkpoints as versions, moves aliases, and opens versions
//! for inference. All changes of versions and aliases go through [`Registry`].
//!
//! - `resolve`: from a name to a version that inference can load.
//! - `promote`: new versions and alias moves. A version is loaded and warmed up before an alias
//!   points to it, so that weights that do not load never become live.
//! - `delete`: deletes versions. `live`: keeps the live version loaded. `describe`: the records of
//!   versions.
//!
//! The registry joins training and inference, which do not depend on each other.

mod delete;
mod describe;
mod error;
mod live;
mod promote;
mod resolve;

pub(crate) use self::{error::Error, live::LiveStatus, resolve::Registry};
