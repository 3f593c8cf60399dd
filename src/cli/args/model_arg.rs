//! `--model` of the commands that work on model versions.

#[derive(Debug, clap::Args)]
pub(crate) struct ModelArg {
    /// Name of the model
    #[arg(long, value_name = "MODEL", default_value = "age")]
    pub(crate) model: String,
}
