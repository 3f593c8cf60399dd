//! Input and outcome of a command.

use crate::{
    cli::{
        client::{Client, Credentials, RetryPolicy},
        error::Error,
        output::Output,
    },
    config::{ClientConfig, ClientFlags, Environment},
};

/// Settings of the client and the output of a command.
pub(crate) struct Context {
    pub(crate) environment: Environment,
    pub(crate) client: ClientConfig,
    /// The flags of `client`.
    pub(crate) flags: ClientFlags,
    pub(crate) retry: RetryPolicy,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        let credentials = Credentials::load(&self.client, |text| self.output.warn(text))?;
        Client::connect(&self.client.server, credentials).await
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
