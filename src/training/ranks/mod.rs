//! Ranks: the processes that compute one training together.
//!
//! Rank 0 is the worker that the server started. It starts the others on the same machine, and all
//! exchange data through libtorch's process group on gloo, over TCP on the loopback interface. Only
//! a lost or silent rank makes an exchange fail; every rank then ends.
//!
//! - `exchange`: exchanges between the ranks. `c10d`: the binding of libtorch's process group.
//! - `local`: processes of the other ranks.

#[cfg(has_c10d)]
mod c10d;
#[cfg(not(has_c10d))]
#[path = "no_c10d.rs"]
mod c10d;
mod error;
mod exchange;
mod local;

pub(crate) use self::{error::Error, exchange::Ranks, local::RankOptions};
