use std::{path::PathBuf, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::access::{Limits, Role};

const EXAMPLES: &str = "\
Examples:
  visage token new admin --role admin           printed once, and not stored
  visage token new ci --role trainer --expires 90d
  visage token new prometheus --role metrics
  visage token user ada --role viewer --role deployer
  visage token certificate app.example.org --role predictor
  visage token list
  visage token revoke ci

The commands edit the file tokens.toml in the data directory of the server. Run
them on its machine, as its user. A running server accepts a new token within 5
seconds, and ends the calls of a revoked one. If the last administrator's token
is lost, create another one in the same way.

Roles:
  metrics    reads metrics and readiness
  viewer     reads everything but predictions
  predictor  predicts
  trainer    views, predicts, trains, evaluates, uploads
  deployer   views, predicts, chooses the served version
  admin      everything, also paths on the server's disk and deletion";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) file: FileArgs,
}

/// The token file, which the settings name if no argument does.
#[derive(Debug, clap::Args)]
pub(super) struct FileArgs {
    /// Token file of the server [default: the setting tokens_file, else tokens.toml in the data
    /// directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) tokens_file: Option<PathBuf>,
    /// Data directory of the server
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub(super) data_dir: Option<PathBuf>,
    /// TOML file with the settings of the server
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create a token and print it
    New {
        /// Name of the client, in logs and in the audit log
        name: String,
        #[command(flatten)]
        rights: Rights,
        /// Time until the token expires, such as `90d` or `12h` [default: never]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
    /// Add a user of the dashboard; the password comes from the terminal or from standard input
    User {
        name: String,
        #[command(flatten)]
        rights: Rights,
    },
    /// Add a client certificate by its DNS name or common name
    Certificate {
        /// Name in the certificate. With `cn:`, `dns:`, `uri:` or `email:` before it, only that
        /// kind of name counts
        subject: String,
        #[command(flatten)]
        rights: Rights,
    },
    /// List names, roles and expiry
    #[command(visible_alias = "ls")]
    List,
    /// Remove all entries of a name
    #[command(visible_alias = "rm")]
    Revoke { name: String },
}

#[derive(Debug, clap::Args)]
pub(super) struct Rights {
    /// Role of the client; may be repeated
    #[arg(long = "role", required = true, value_delimiter = ',', value_parser = roles())]
    pub(super) roles: Vec<Role>,
    /// Limit on the client's open calls
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    calls: Option<u32>,
    /// Limit on the calls that the client starts in a second
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    calls_per_second: Option<u32>,
}

impl Rights {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            calls: self.calls,
            calls_per_second: self.calls_per_second,
        }
    }
}

fn roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::as_str))
        .try_map(|name| Role::parse(&name).ok_or("an unknown role"))
}
