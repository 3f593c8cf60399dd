//! Input and outcome of a command.

use crate::{
    cli::{
        client::{Client, RetryPolicy},
        error::Error,
        output::Output,
    },
    config::{ClientConfig, Environment},
};

/// Settings of the client and the output of a command.
pub(crate) struct Context {
    pub(crate) environment: Environment,
    pub(crate) client: ClientConfig,
    pub(crate) retry: RetryPolicy,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        Client::connect(&self.client.server).await
    }
}

/// End of a command that did not return an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The command ran and reported a failure, such as a failed training.
    Failed,
    /// Ctrl-C.
    Interrupted,
}

impl Outcome {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Interrupted => 130,
        }
    }
}
