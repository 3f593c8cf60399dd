//! The process environment, read once and checked for misspelt names.

use std::{collections::BTreeMap, env, fmt};

use super::{Error, error::nearest, settings::SETTINGS};

/// Variables of Visage that are not settings of the server.
const OTHER_VARIABLES: [&str; 7] = [
    "VISAGE_CONFIG",
    "VISAGE_SERVER",
    "VISAGE_CA",
    "VISAGE_CERT",
    "VISAGE_KEY",
    "VISAGE_TOKEN",
    "VISAGE_TOKEN_FILE",
];
/// Variables of other programs that Visage reads.
const FOREIGN_VARIABLES: [&str; 9] = [
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "TORCH_HOME",
    "HOME",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "NO_COLOR",
];

/// The variables that Visage reads; an empty one counts as unset.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the process environment.
    ///
    /// # Errors
    /// [`Error::NotUnicode`] if a relevant variable is not valid text.
    pub(crate) fn of_process() -> Result<Self, Error> {
        let mut variables = BTreeMap::new();
        for (name, value) in env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue;
            };
            let matters = name.starts_with("VISAGE_") || FOREIGN_VARIABLES.contains(&name.as_str());
            if !matters {
                continue;
            }
            let value = value
                .into_string()
                .map_err(|_| Error::NotUnicode(name.clone()))?;
            variables.insert(name, value);
        }
        Ok(Self(variables))
    }

    /// Returns a variable with which a launcher of worker processes describes its launch.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this module reads the environment"
    )]
    pub(crate) fn launcher_variable(name: &str) -> Option<String> {
        env::var(name).ok()
    }

    #[cfg(test)]
    pub(super) fn insert(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Refuses an unknown `VISAGE_*` variable, because it is probably misspelt.
    ///
    /// # Errors
    /// [`Error::UnknownVariable`].
    pub(crate) fn check_names(&self) -> Result<(), Error> {
        let known: Vec<String> = SETTINGS
            .iter()
            .map(super::Setting::variable)
            .chain(OTHER_VARIABLES.map(str::to_owned))
            .collect();
        let unknown = self
            .0
            .keys()
            .filter(|name| name.starts_with("VISAGE_"))
            .find(|name| !known.contains(name) && !is_service_link(name));
        match unknown {
            None => Ok(()),
            Some(name) => Err(Error::UnknownVariable {
                name: name.clone(),
                nearest: nearest(name, known.into_iter()),
            }),
        }
    }
}

/// Kubernetes sets `VISAGE_SERVICE_HOST`, `VISAGE_PORT_50051_TCP_ADDR` and the like in every pod
/// beside a service named `visage…`.
fn is_service_link(name: &str) -> bool {
    let is_port = name.split_once("_PORT").is_some_and(|(_, rest)| {
        rest.is_empty()
            || rest
                .strip_prefix('_')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || is_port
}

/// Names only: a value may be secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
