//! The process environment, read once and checked for misspelt names, and the settings of clients.

use std::{collections::BTreeMap, env};

use super::{Error, ValueSource, error::nearest, settings::SETTINGS};

/// The default server of clients.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";

/// Variables of Visage that are not settings of the server.
const OTHER_VARIABLES: [&str; 2] = ["VISAGE_CONFIG", "VISAGE_SERVER"];
/// Variables of other programs that Visage reads.
const FOREIGN_VARIABLES: [&str; 8] = [
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "TORCH_HOME",
    "HOME",
    "TMPDIR",
    "NO_COLOR",
];

/// The variables that Visage reads; an empty one counts as unset.
#[derive(Clone, Debug, Default)]
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

/// Settings of the commands that call a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientConfig {
    /// `http://host:port`.
    pub server: String,
    /// Coloured messages, unless `NO_COLOR` is set.
    pub color: bool,
}

impl ClientConfig {
    /// Resolves the server from `--server`, else `VISAGE_SERVER`, else [`DEFAULT_SERVER`];
    /// completes `host:port` to a URL.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid address, [`Error::UnknownVariable`] for a misspelt
    /// `VISAGE_*` variable.
    pub(crate) fn resolve(
        environment: &Environment,
        server_flag: Option<&str>,
    ) -> Result<Self, Error> {
        environment.check_names()?;
        let (server, source) = match (server_flag, environment.get("VISAGE_SERVER")) {
            (Some(server), _) => (server, ValueSource::Flag("--server".to_owned())),
            (None, Some(server)) => (server, ValueSource::Variable("VISAGE_SERVER".to_owned())),
            (None, None) => (DEFAULT_SERVER, ValueSource::Default),
        };
        let address = parse_server(server).ok_or_else(|| Error::Invalid {
            setting: "server".to_owned(),
            source_name: source,
            value: server.to_owned(),
            allowed: "host:port or http://host:port (TLS ends at a proxy in front of the server)"
                .to_owned(),
        })?;
        Ok(Self {
            server: address,
            color: environment.get("NO_COLOR").is_none(),
        })
    }
}

fn parse_server(text: &str) -> Option<String> {
    let bare = text.strip_prefix("http://").unwrap_or(text);
    let authority = bare.strip_suffix('/').unwrap_or(bare);
    let (host, port) = authority.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let is_host =
        !host.is_empty() && !host.contains(|c: char| c == '/' || c == '@' || c.is_whitespace());
    if !is_host || port == 0 || (host.contains(':') && !is_bracketed) {
        return None;
    }
    Some(format!("http://{host}:{port}"))
}
