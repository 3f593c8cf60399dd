//! Access to the Hugging Face hub and the caches of weights.

use std::{fmt, path::PathBuf};

use super::{Environment, Error, ValueSource};

/// Settings of the download of initial weights.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HubConfig {
    /// Base address of the hub, without a slash at the end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// The hub's cache (`$HF_HOME/hub`, else `~/.cache/huggingface/hub`); `None` without a home
    /// directory.
    pub cache_dir: Option<PathBuf>,
    /// Access token (`HF_TOKEN`); never shown.
    pub token: Option<String>,
    /// Use the cache only (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Directory of torch hub's checkpoints (`$TORCH_HOME/hub/checkpoints`, else
    /// `~/.cache/torch/hub/checkpoints`).
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
    /// Reads the variables that `huggingface_hub` and torch use.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `HF_ENDPOINT` is not a URL.
    pub(crate) fn from_environment(environment: &Environment) -> Result<Self, Error> {
        let mut hub = Self::default();
        if let Some(endpoint) = environment.get("HF_ENDPOINT") {
            let is_url = endpoint.starts_with("https://") || endpoint.starts_with("http://");
            if !is_url {
                return Err(Error::Invalid {
                    setting: "HF_ENDPOINT".to_owned(),
                    source_name: ValueSource::Variable("HF_ENDPOINT".to_owned()),
                    value: endpoint.to_owned(),
                    allowed: "an address that starts with https:// or http://".to_owned(),
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
