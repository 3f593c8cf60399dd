//! Lays the sources over one another and keeps where each value came from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fs_err as fs;

use super::{
    Environment, Error, HubConfig, ServeConfig, Setting, Source,
    error::{Stated, nearest},
    serve,
    settings::{self, SETTINGS},
    value::{Raw, Shown},
};

/// The file that is read when nobody names one.
const DEFAULT_FILE: &str = "visage.toml";
/// The variable that names the file.
const FILE_VARIABLE: &str = "VISAGE_CONFIG";

/// What the command line set: a setting's name and what was given for it, several values for a list.
pub type Flags = BTreeMap<&'static str, Vec<String>>;

/// The settings of a server, and where each came from.
#[derive(Debug)]
pub struct Resolved {
    /// The values.
    pub config: ServeConfig,
    sources: BTreeMap<&'static str, Source>,
}

impl Resolved {
    /// Where the setting's value came from.
    #[must_use]
    pub fn source(&self, name: &str) -> &Source {
        self.sources.get(name).unwrap_or(&Source::Default)
    }

    /// The setting's value as text.
    fn text(&self, name: &str) -> String {
        let Some(setting) = settings::find(name) else {
            return String::new();
        };
        match setting.field.shown(&mut self.config.clone()) {
            Shown::Text(text) => text,
            Shown::Integer(number) => number.to_string(),
            Shown::Number(number) => number.to_string(),
            Shown::Boolean(value) => value.to_string(),
            Shown::List(items) => items.join(","),
            Shown::Unset => "not set".to_owned(),
        }
    }

    pub(super) fn contradiction(
        &self,
        first: &'static str,
        rule: &'static str,
        second: &'static str,
    ) -> Error {
        let stated = |setting: &'static str| {
            Box::new(Stated {
                setting,
                value: self.text(setting),
                source: self.source(setting).clone(),
            })
        };
        Error::Contradiction {
            first: stated(first),
            rule,
            second: stated(second),
        }
    }
}

/// Resolves the server's settings from the file, the environment and the flags.
///
/// The file is `config_flag`, else the one that `VISAGE_CONFIG` names, else `visage.toml` in `current_dir` when it is there. Relative
/// paths count from `current_dir`.
///
/// # Errors
/// [`Error`] when the file cannot be read, a name is unknown, a value is not allowed or two values contradict each other.
pub fn load(
    environment: &Environment,
    flags: &Flags,
    config_flag: Option<&Path>,
    current_dir: &Path,
) -> Result<Resolved, Error> {
    environment.check_names()?;
    let file = read_file(environment, config_flag, current_dir)?;
    resolve(
        environment,
        flags,
        file.as_ref()
            .map(|(path, text)| (path.as_path(), text.as_str())),
        current_dir,
    )
}

fn read_file(
    environment: &Environment,
    config_flag: Option<&Path>,
    current_dir: &Path,
) -> Result<Option<(PathBuf, String)>, Error> {
    let named = config_flag.or_else(|| environment.get(FILE_VARIABLE).map(Path::new));
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let full_path = current_dir.join(path);
    if named.is_none() && !full_path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(full_path).map_err(Error::Read)?;
    Ok(Some((path.to_owned(), text)))
}

/// [`load`] without the file system.
pub(super) fn resolve(
    environment: &Environment,
    flags: &Flags,
    file: Option<(&Path, &str)>,
    current_dir: &Path,
) -> Result<Resolved, Error> {
    let mut layers = Layers {
        config: ServeConfig {
            hub: HubConfig::from_environment(environment)?,
            ..ServeConfig::default()
        },
        sources: BTreeMap::new(),
        current_dir,
    };
    layers.config.data_dir = current_dir
        .join(&layers.config.data_dir)
        .components()
        .collect();
    if let Some((path, text)) = file {
        layers.file(path, text)?;
    }
    for setting in SETTINGS {
        let variable = setting.variable();
        if let Some(text) = environment.get(&variable) {
            layers.set(
                setting,
                &Raw::Text(text.to_owned()),
                Source::Variable(variable),
            )?;
        }
    }
    for (name, values) in flags {
        if let Some(setting) = settings::find(name) {
            let raw = match values.as_slice() {
                [value] => Raw::Text(value.clone()),
                _ => Raw::List(values.clone()),
            };
            layers.set(setting, &raw, Source::Flag(format!("--{}", setting.flag())))?;
        }
    }
    let resolved = Resolved {
        config: layers.config,
        sources: layers.sources,
    };
    serve::check(&resolved)?;
    Ok(resolved)
}

struct Layers<'a> {
    config: ServeConfig,
    sources: BTreeMap<&'static str, Source>,
    current_dir: &'a Path,
}

impl Layers<'_> {
    fn file(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let table: toml::Table = toml::from_str(text).map_err(|cause| Error::Syntax {
            path: path.to_owned(),
            cause: Box::new(cause),
        })?;
        for (key, value) in table {
            let Some(setting) = settings::find(&key) else {
                return Err(Error::UnknownKey {
                    path: path.to_owned(),
                    nearest: nearest(&key, SETTINGS.iter().map(|setting| setting.name.to_owned())),
                    key,
                });
            };
            self.set(setting, &raw_of(value), Source::File(path.to_owned()))?;
        }
        Ok(())
    }

    fn set(&mut self, setting: &'static Setting, raw: &Raw, source: Source) -> Result<(), Error> {
        let Some(()) = setting.field.set(&mut self.config, raw, self.current_dir) else {
            return Err(Error::Invalid {
                setting: setting.name.to_owned(),
                source_name: source,
                value: raw.shown(),
                allowed: setting.field.allowed(),
            });
        };
        self.sources.insert(setting.name, source);
        Ok(())
    }
}

fn raw_of(value: toml::Value) -> Raw {
    match value {
        toml::Value::String(text) => Raw::Text(text),
        toml::Value::Integer(number) => Raw::Integer(number),
        toml::Value::Float(number) => Raw::Number(number),
        toml::Value::Boolean(value) => Raw::Boolean(value),
        toml::Value::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            match texts {
                Some(texts) => Raw::List(texts),
                None => Raw::Other(toml::Value::Array(items).to_string()),
            }
        }
        other @ (toml::Value::Datetime(_) | toml::Value::Table(_)) => Raw::Other(other.to_string()),
    }
}
