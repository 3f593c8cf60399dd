//! Access to the hub.

use std::{fmt, path::PathBuf, time::Duration};

use crate::model::weights::published::TIMM_SHA256;

/// Repository and file, for messages.
pub(crate) const NAME: &str = "timm/resnet18.tv_in1k model.safetensors";
pub(super) const REPOSITORY: &str = "timm/resnet18.tv_in1k";
pub(super) const FILE: &str = "model.safetensors";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Access to the hub. The caller reads the environment variables in parentheses; the HTTP client
/// reads only the proxy variables (`HTTPS_PROXY`, `NO_PROXY`).
#[derive(Clone)]
pub(crate) struct HubOptions {
    /// Address of the hub or a mirror (`HF_ENDPOINT`); default: `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// The hub's cache directory (`HF_HUB_CACHE`, else `hub` below `HF_HOME`).
    pub cache_dir: PathBuf,
    /// Access token (`HF_TOKEN`); sent to the endpoint only, never to the target of a redirect.
    pub token: Option<String>,
    /// Use the cache only (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Timeout of the connection, of the response, and of each read.
    pub timeout: Duration,
    /// The file's SHA-256, 64 hexadecimal digits. `None` trusts the digest that the hub states.
    pub expected_sha256: Option<String>,
    /// torch's cache directory (`TORCH_HOME`), where torchvision stores downloads under
    /// `hub/checkpoints`.
    pub torch_home: Option<PathBuf>,
}

impl HubOptions {
    /// The public hub without a token, with a timeout of 30 seconds and the known digest of timm's
    /// file.
    pub(crate) fn new(cache_dir: PathBuf) -> Self {
        Self {
            endpoint: None,
            cache_dir,
            token: None,
            offline: false,
            timeout: DEFAULT_TIMEOUT,
            expected_sha256: Some(TIMM_SHA256.to_owned()),
            torch_home: None,
        }
    }
}

impl fmt::Debug for HubOptions {
    /// Shows all but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            endpoint,
            cache_dir,
            token,
            offline,
            timeout,
            expected_sha256,
            torch_home,
        } = self;
        f.debug_struct("HubOptions")
            .field("endpoint", endpoint)
            .field("cache_dir", cache_dir)
            .field("token", &token.as_ref().map(|_| "secret"))
            .field("offline", offline)
            .field("timeout", timeout)
            .field("expected_sha256", expected_sha256)
            .field("torch_home", torch_home)
            .finish()
    }
}
