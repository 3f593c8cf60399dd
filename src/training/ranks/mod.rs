//! Ranks: the processes that compute one training together.
//!
//! Rank 0 is the worker that communicates with the server. It starts the others on the same
//! machine, unless a launcher such as `mpirun` started all of them. They exchange data through
//! libtorch's process group on gloo, over TCP; on one machine, on the loopback interface. A lost or
//! silent rank makes an exchange fail; every rank then ends.
//!
//! - `exchange`: exchanges between the ranks. `c10d`: the binding of libtorch's process group.
//! - `local`: processes of the other ranks. `environment`: ranks that a launcher started;
//!   `slurm_hosts`: lists of hosts in its variables.
//! - `waiting`: launched ranks while rank 0 prepares the training.

#[cfg(has_c10d)]
mod c10d;
#[cfg(not(has_c10d))]
#[path = "no_c10d.rs"]
mod c10d;
mod environment;
mod error;
mod exchange;
mod local;
mod slurm_hosts;
mod waiting;

pub(crate) use self::{
    environment::{EnvironmentError, launch, rank_variables},
    error::Error,
    exchange::Ranks,
    local::RankOptions,
    waiting::{Instruction, WaitingRanks},
};
