//! The worker process of one training.
//!
//! - `run`: entry point. `link`: events to the server, commands from it.
//! - `trainer`: the training from the scan of the dataset to the test. `error`: its failures.
//! - `session`: state of a training; `build` creates it, `clock` limits its time.
//! - `epoch` trains and validates one epoch, `sharded` computes the steps of a training with
//!   shards, `evaluate` predicts validation and test images, `compare` compares the result with the
//!   live version. `trained_on`: record of training images.
//! - `agreement`, `decision`, `setup`, `follower` and `pass`: the other ranks of a training with
//!   several processes, and what they share.
//! - `checkpointing` and `full_checkpoint`: resume points. `export`: checkpoints to serve.
//! - `spans`: spans of a traced training.

mod agreement;
mod build;
mod checkpointing;
mod clock;
mod compare;
mod decision;
mod epoch;
mod error;
mod evaluate;
mod export;
mod follower;
mod full_checkpoint;
mod initial;
mod link;
mod pass;
mod run;
mod session;
mod setup;
mod sharded;
mod spans;
mod trained_on;
mod trainer;

pub(crate) use self::run::main;
pub(crate) use super::ranks::{EnvironmentError, RankOptions, launch};
