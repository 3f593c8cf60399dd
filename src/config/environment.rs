//! The process environment: read once, checked for misspelt names, and turned into what others need of it.

use std::{collections::BTreeMap, env, fmt, path::PathBuf};

use super::{Error, Source, error::nearest, settings::SETTINGS};

/// The server that clients call when nobody names one.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";

/// Variables of ours that are not settings of the server.
const OTHER_VARIABLES: [&str; 2] = ["VISAGE_CONFIG", "VISAGE_SERVER"];
/// Every variable of other programs that we read.
const FOREIGN_VARIABLES: [&str; 7] = [
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "TORCH_HOME",
    "HOME",
    "NO_COLOR",
];

/// The variables that Visage reads; an empty one counts as not set.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// That of the process, once.
    ///
    /// # Errors
    /// [`Error::NotUnicode`] when a variable that matters is not text.
    pub fn of_process() -> Result<Self, Error> {
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

    /// Sets a variable, for programs that make an environment of their own.
    pub fn insert(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// The variable's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Refuses a `VISAGE_*` variable that names nothing, because it is a misspelt one.
    ///
    /// # Errors
    /// [`Error::UnknownVariable`].
    pub fn check_names(&self) -> Result<(), Error> {
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

/// Kubernetes puts `VISAGE_SERVICE_HOST`, `VISAGE_PORT_50051_TCP_ADDR` and the like into every pod beside a service named `visage…`.
fn is_service_link(name: &str) -> bool {
    let is_port = name.split_once("_PORT").is_some_and(|(_, rest)| {
        rest.is_empty()
            || rest
                .strip_prefix('_')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || is_port
}

/// How initial weights are fetched.
#[derive(Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// Base address of the hub, without a slash at the end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// The hub's cache (`$HF_HOME/hub`, else `~/.cache/huggingface/hub`); `None` without a home directory.
    pub cache_dir: Option<PathBuf>,
    /// Access token (`HF_TOKEN`); never shown.
    pub token: Option<String>,
    /// Use the cache only (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Directory of torch hub's checkpoints (`$TORCH_HOME/hub/checkpoints`, else `~/.cache/torch/hub/checkpoints`).
    pub torch_home: Option<PathBuf>,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            cache_dir: None,
            token: None,
            offline: false,
            torch_home: None,
        }
    }
}

impl HubConfig {
    /// Takes what other programs of the field read from the same variables.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `HF_ENDPOINT` is not an address.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        let mut hub = Self::default();
        if let Some(endpoint) = environment.get("HF_ENDPOINT") {
            let is_address = endpoint.starts_with("https://") || endpoint.starts_with("http://");
            if !is_address {
                return Err(Error::Invalid {
                    setting: "HF_ENDPOINT".to_owned(),
                    source_name: Source::Variable("HF_ENDPOINT".to_owned()),
                    value: endpoint.to_owned(),
                    allowed: "an address that begins with https:// or http://".to_owned(),
                });
            }
            hub.endpoint = endpoint.trim_end_matches('/').to_owned();
        }
        let cache = environment
            .get("HOME")
            .map(|home| PathBuf::from(home).join(".cache"));
        let directory = |variable: &str, name: &str| {
            environment
                .get(variable)
                .map(PathBuf::from)
                .or_else(|| cache.as_ref().map(|cache| cache.join(name)))
        };
        hub.cache_dir = directory("HF_HOME", "huggingface").map(|home| home.join("hub"));
        hub.torch_home = directory("TORCH_HOME", "torch").map(|home| home.join("hub/checkpoints"));
        hub.token = environment.get("HF_TOKEN").map(str::to_owned);
        hub.offline = environment.get("HF_HUB_OFFLINE").is_some_and(|value| {
            ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
        });
        Ok(hub)
    }
}

impl fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConfig")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("offline", &self.offline)
            .field("torch_home", &self.torch_home)
            .finish()
    }
}

/// What the commands that call a server need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// The server: `http://host:port`.
    pub server: String,
    /// Whether messages may be coloured (`NO_COLOR` is not set).
    pub color: bool,
}

impl ClientConfig {
    /// The server from `--server`, else `VISAGE_SERVER`, else [`DEFAULT_SERVER`]; `host:port` is completed to an address.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not an address, [`Error::UnknownVariable`] for a misspelt `VISAGE_*` variable.
    pub fn resolve(environment: &Environment, server_flag: Option<&str>) -> Result<Self, Error> {
        environment.check_names()?;
        let (server, source) = match (server_flag, environment.get("VISAGE_SERVER")) {
            (Some(server), _) => (server, Source::Flag("--server".to_owned())),
            (None, Some(server)) => (server, Source::Variable("VISAGE_SERVER".to_owned())),
            (None, None) => (DEFAULT_SERVER, Source::Default),
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
