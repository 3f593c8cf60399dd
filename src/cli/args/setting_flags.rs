//! The server's settings as flags, generated from the table of settings.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::{
    cli::{args::paths::current_dir, error::Error},
    config::{Environment, Flags, Resolved, SETTINGS, load},
};

/// Settings that were given on the command line.
#[derive(Debug)]
pub(crate) struct SettingFlags {
    config: Option<PathBuf>,
    values: Flags,
}

impl SettingFlags {
    pub(crate) fn resolve(&self, environment: &Environment) -> Result<Resolved, Error> {
        Ok(load(
            environment,
            &self.values,
            self.config.as_deref(),
            &current_dir()?,
        )?)
    }
}

impl clap::FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut values = Flags::new();
        for setting in SETTINGS {
            if let Some(given) = matches.get_many::<String>(setting.name) {
                values.insert(setting.name, given.cloned().collect());
            }
        }
        Ok(Self {
            config: matches.get_one::<PathBuf>("config").cloned(),
            values,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(
                "TOML file with settings [env: VISAGE_CONFIG] [default: visage.toml if it exists]",
            );
        let settings = SETTINGS.iter().map(|setting| {
            let action = match setting.is_list() {
                true => ArgAction::Append,
                false => ArgAction::Set,
            };
            let arg = match setting.is_switch() {
                true => Arg::new(setting.name)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
                // A value may start with a hyphen.
                false => Arg::new(setting.name).allow_hyphen_values(true),
            };
            arg.long(setting.flag())
                .value_name(setting.name.to_ascii_uppercase())
                .action(action)
                .help(format!(
                    "{} [env: {}] [default: {}]",
                    setting.doc,
                    setting.variable(),
                    setting.default_text().replace('`', "")
                ))
                .help_heading("Settings")
        });
        command.arg(config).args(settings)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
