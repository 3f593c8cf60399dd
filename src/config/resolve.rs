//! Merges the sources and records the source of each value.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fs_err as fs;

use super::{
    Environment, Error, HubConfig, ServeConfig, Setting, ValueSource,
    error::{SettingValue, nearest},
    rules,
    settings::{self, SETTINGS},
    value::{DisplayValue, RawValue},
};

/// The file that is read by default, if it exists.
const DEFAULT_FILE: &str = "visage.toml";
/// The variable that names the file.
const FILE_VARIABLE: &str = "VISAGE_CONFIG";

/// Values of the command line by setting; a list may have several.
pub(crate) type Flags = BTreeMap<&'static str, Vec<String>>;

/// The settings of a server, with the source of each.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub config: ServeConfig,
    sources: BTreeMap<&'static str, ValueSource>,
}

impl Resolved {
    #[must_use]
    pub(crate) fn source(&self, name: &str) -> &ValueSource {
        self.sources.get(name).unwrap_or(&ValueSource::Default)
    }

    /// The setting's value as text.
    fn text(&self, name: &str) -> String {
        let Some(setting) = settings::find(name) else {
            return String::new();
        };
        match setting.field.display(&mut self.config.clone()) {
            DisplayValue::Text(text) => text,
            DisplayValue::Integer(number) => number.to_string(),
            DisplayValue::Number(number) => number.to_string(),
            DisplayValue::Boolean(value) => value.to_string(),
            DisplayValue::List(items) => items.join(","),
            DisplayValue::Unset => "not set".to_owned(),
        }
    }

    pub(super) fn contradiction(
        &self,
        first: &'static str,
        rule: &'static str,
        second: &'static str,
    ) -> Error {
        let with_value = |setting: &'static str| {
            Box::new(SettingValue {
                setting,
                value: self.text(setting),
                source: self.source(setting).clone(),
            })
        };
        Error::Contradiction {
            first: with_value(first),
            rule,
            second: with_value(second),
        }
    }
}

/// Resolves the server's settings from the file, the environment and the flags.
///
/// The file is `config_flag`, else the value of `VISAGE_CONFIG`, else `visage.toml` in
/// `current_dir` if it exists. Relative paths start at `current_dir`.
///
/// # Errors
/// The file cannot be read, a name is unknown, a value is not allowed, or two values contradict
/// each other.
pub(crate) fn load(
    environment: &Environment,
    flags: &Flags,
    config_flag: Option<&Path>,
    current_dir: &Path,
) -> Result<Resolved, Error> {
    environment.check_names()?;
    let file = read_file(environment, config_flag, current_dir)?;
    let mut resolved = resolve(
        environment,
        flags,
        file.as_ref()
            .map(|(path, text)| (path.as_path(), text.as_str())),
        current_dir,
    )?;
    for setting in ROOTS {
        if resolved.source(setting) == &ValueSource::Default {
            roots(&mut resolved.config, setting).retain(|root| root.is_dir());
        }
    }
    Ok(resolved)
}

/// The settings with default roots.
const ROOTS: [&str; 2] = ["data_roots", "weights_roots"];

fn roots<'a>(config: &'a mut ServeConfig, setting: &str) -> &'a mut Vec<PathBuf> {
    if setting == ROOTS[0] {
        &mut config.data_roots
    } else {
        &mut config.weights_roots
    }
}

/// Where users of this machine keep their files. With authentication there are no default roots:
/// the clients may be others.
fn default_roots(environment: &Environment, current_dir: &Path) -> Vec<PathBuf> {
    let home = environment.get("HOME").map(PathBuf::from);
    let temporary = environment.get("TMPDIR").unwrap_or("/tmp");
    let mut roots = vec![current_dir.to_owned()];
    let others = home.into_iter().chain([PathBuf::from(temporary)]);
    roots.extend(others.chain(["/data", "/mnt", "/media", "/srv"].map(PathBuf::from)));
    let mut distinct: Vec<PathBuf> = Vec::new();
    for root in roots {
        // A service may have `/` as home and working directory.
        if root.is_absolute() && root.parent().is_some() && !distinct.contains(&root) {
            distinct.push(root);
        }
    }
    distinct
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
                &RawValue::Text(text.to_owned()),
                ValueSource::Variable(variable),
            )?;
        }
    }
    for (name, values) in flags {
        if let Some(setting) = settings::find(name) {
            let raw = match values.as_slice() {
                [value] => RawValue::Text(value.clone()),
                _ => RawValue::List(values.clone()),
            };
            layers.set(
                setting,
                &raw,
                ValueSource::Flag(format!("--{}", setting.flag())),
            )?;
        }
    }
    let mut resolved = Resolved {
        config: layers.config,
        sources: layers.sources,
    };
    for setting in ROOTS {
        if resolved.source(setting) == &ValueSource::Default && resolved.config.auth.is_off() {
            *roots(&mut resolved.config, setting) = default_roots(environment, current_dir);
        }
    }
    rules::check(&resolved)?;
    Ok(resolved)
}

struct Layers<'a> {
    config: ServeConfig,
    sources: BTreeMap<&'static str, ValueSource>,
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
            self.set(setting, &raw_of(value), ValueSource::File(path.to_owned()))?;
        }
        Ok(())
    }

    fn set(
        &mut self,
        setting: &'static Setting,
        raw: &RawValue,
        source: ValueSource,
    ) -> Result<(), Error> {
        let Some(()) = setting.field.set(&mut self.config, raw, self.current_dir) else {
            return Err(Error::Invalid {
                setting: setting.name.to_owned(),
                source_name: source,
                value: raw.display(),
                allowed: setting.field.allowed(),
            });
        };
        self.sources.insert(setting.name, source);
        Ok(())
    }
}

fn raw_of(value: toml::Value) -> RawValue {
    match value {
        toml::Value::String(text) => RawValue::Text(text),
        toml::Value::Integer(number) => RawValue::Integer(number),
        toml::Value::Float(number) => RawValue::Number(number),
        toml::Value::Boolean(value) => RawValue::Boolean(value),
        toml::Value::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            match texts {
                Some(texts) => RawValue::List(texts),
                None => RawValue::Other(toml::Value::Array(items).to_string()),
            }
        }
        other @ (toml::Value::Datetime(_) | toml::Value::Table(_)) => {
            RawValue::Other(other.to_string())
        }
    }
}
