//! Fetches timm's copy of torchvision's ResNet18 weights from the Hugging Face hub.
//!
//! The file lands in the hub's own cache layout, which the `hf-hub` crate knows, so Python's `timm` and this program
//! share one download. The transfer itself is done here with `ureq`: hf-hub's client has no timeout, keeps partial
//! files, does not verify digests, and puts a path together from response headers. Here bytes go to a temporary file
//! that vanishes on every failure; only a file whose SHA-256 is right is synced and renamed into place.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use hf_hub::{Cache, CacheRepo, Repo};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::imagenet::TIMM_SHA256;
use super::{MAX_FILE_BYTES, hex};

/// Repository and file, for messages.
pub(super) const NAME: &str = "timm/resnet18.tv_in1k model.safetensors";

const REPOSITORY: &str = "timm/resnet18.tv_in1k";
const FILE: &str = "model.safetensors";
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;

/// How to reach the hub. The names of the usual environment variables are given for the caller, who reads them; only the
/// proxy variables (`HTTPS_PROXY`, `NO_PROXY`) are read by the HTTP client itself.
#[derive(Clone)]
pub struct HubOptions {
    /// Address of the hub or a mirror (`HF_ENDPOINT`); `https://huggingface.co` if none.
    pub endpoint: Option<String>,
    /// The hub's cache directory (`HF_HUB_CACHE`, else `hub` below `HF_HOME`).
    pub cache_dir: PathBuf,
    /// Access token (`HF_TOKEN`); sent to the endpoint only, never to where it redirects.
    pub token: Option<String>,
    /// Use only what the cache holds (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// The longest wait for a connection, for an answer, and for each further part of the file.
    pub timeout: Duration,
    /// The file's SHA-256, 64 hexadecimal digits. With `None` the digest that the hub states is trusted.
    pub expected_sha256: Option<String>,
    /// torch's cache directory (`TORCH_HOME`), where torchvision keeps its downloads under `hub/checkpoints`.
    pub torch_home: Option<PathBuf>,
}

impl HubOptions {
    /// The public hub without a token, 30 seconds' patience and the known digest of timm's file.
    pub fn new(cache_dir: PathBuf) -> Self {
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

/// Why the hub could not give the file. Addresses are shown without their query, which can hold a signature.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The network may not be used.
    #[error("offline mode is on and the cache {cache_dir} does not hold {NAME}")]
    Offline {
        /// The hub's cache directory.
        cache_dir: PathBuf,
    },
    /// No answer: name not found, connection refused, timeout, bad certificate.
    #[error("no answer from {url}: {source}")]
    NoAnswer {
        /// The address asked.
        url: String,
        /// What failed.
        source: Box<ureq::Error>,
    },
    /// An answer other than the file or a redirect to it.
    #[error("{url} answered {status}, expected 200")]
    Status {
        /// The address asked.
        url: String,
        /// The HTTP status code and its name.
        status: String,
    },
    /// Redirects that lead nowhere.
    #[error("{url} redirects {problem}")]
    Redirect {
        /// The address that redirects.
        url: String,
        /// Where to, in words.
        problem: String,
    },
    /// The transfer ended early.
    #[error("the connection to {url} was lost after {received} bytes: {source}")]
    Interrupted {
        /// The address of the file.
        url: String,
        /// Bytes received.
        received: u64,
        /// What failed.
        source: io::Error,
    },
    /// The file is larger than any weights this program loads.
    #[error("{url} sends more than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The address of the file.
        url: String,
    },
    /// The file's SHA-256 is not the one it must have.
    #[error("the file from {url} has SHA-256 {found}, expected {expected} ({origin})")]
    Digest {
        /// The address of the file.
        url: String,
        /// The expected digest.
        expected: String,
        /// The digest found.
        found: String,
        /// Who says so.
        origin: &'static str,
    },
    /// Nothing to check the file against.
    #[error("{url} states no SHA-256 for the file and none is configured")]
    NoDigest {
        /// The address asked.
        url: String,
    },
    /// The cache directory could not be written.
    #[error("cannot write the hub's cache {directory}: {source}")]
    Cache {
        /// The directory in the cache.
        directory: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// The file in the hub's cache, if it is there. Its content is not checked.
pub(super) fn cached(options: &HubOptions) -> Option<PathBuf> {
    layout(options).get(FILE)
}

/// Downloads the file into the hub's cache and returns its path there.
pub(super) fn download(options: &HubOptions) -> Result<PathBuf, HubError> {
    if options.offline {
        return Err(HubError::Offline {
            cache_dir: options.cache_dir.clone(),
        });
    }
    let answer = request(options)?;
    let url = display(&answer.url);
    let expected = expected_digests(options, &answer)?;
    tracing::info!(url, "downloading {NAME}");

    let directory = options
        .cache_dir
        .join(Repo::model(REPOSITORY.to_owned()).folder_name());
    let blobs = directory.join("blobs");
    fs::create_dir_all(&blobs).map_err(|source| unwritable(&directory, source))?;
    let (aside, found) = receive(answer.response.into_body(), &url, &blobs)?;
    for (expected, origin) in expected {
        if !expected.eq_ignore_ascii_case(&found) {
            return Err(HubError::Digest {
                url,
                expected,
                found,
                origin,
            });
        }
    }
    // A mirror may not say which commit it serves; any name will do for the directory that holds the link.
    let commit = answer.commit.unwrap_or_else(|| found[..40].to_owned());
    publish(aside, &blobs.join(&found), &layout(options), &commit)
        .map_err(|source| unwritable(&directory, source))
}

/// The end of a chain of redirects, and what was said on the way.
struct Answer {
    response: Response<Body>,
    url: String,
    /// SHA-256 that the hub states for a file in large-file storage.
    stated_sha256: Option<String>,
    commit: Option<String>,
}

/// Asks for the file and follows redirects, collecting the hub's headers: the hub sends them with its own redirect, the
/// storage behind it does not.
fn request(options: &HubOptions) -> Result<Answer, HubError> {
    let endpoint = options
        .endpoint
        .as_deref()
        .unwrap_or(DEFAULT_ENDPOINT)
        .trim_end_matches('/');
    let agent = agent(endpoint, options.timeout);
    let mut url = format!("{endpoint}/{REPOSITORY}/resolve/main/{FILE}");
    let mut stated_sha256 = None;
    let mut commit = None;
    for _ in 0..=MAX_REDIRECTS {
        let from_endpoint = origin(&url) == origin(endpoint);
        let mut request = agent.get(&url);
        if let Some(token) = options.token.as_deref().filter(|_| from_endpoint) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(|source| HubError::NoAnswer {
            url: display(&url),
            source: Box::new(source),
        })?;
        let headers = response.headers();
        stated_sha256 = stated_sha256.or_else(|| digest_header(headers));
        commit = commit.or_else(|| {
            header(headers, "x-repo-commit")
                .filter(|id| is_hex(id, 40))
                .map(str::to_owned)
        });

        if response.status().is_redirection() {
            let location = header(headers, "location").unwrap_or_default();
            url = resolve(&url, location)?;
        } else if response.status() == 200 {
            return Ok(Answer {
                response,
                url,
                stated_sha256,
                commit,
            });
        } else {
            return Err(HubError::Status {
                url: display(&url),
                status: response.status().to_string(),
            });
        }
    }
    Err(HubError::Redirect {
        url: display(&url),
        problem: format!("more than {MAX_REDIRECTS} times"),
    })
}

/// The client: redirects and error statuses are left to us, and an encrypted hub may not redirect to plain HTTP.
fn agent(endpoint: &str, timeout: Duration) -> Agent {
    Agent::config_builder()
        .https_only(endpoint.starts_with("https://"))
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_resolve(Some(timeout))
        .timeout_connect(Some(timeout))
        .timeout_recv_response(Some(timeout))
        .timeout_per_read(Some(timeout))
        .user_agent(concat!("visage/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// The digests the file must have, each with who says so: the configured one, the hub's, or both.
fn expected_digests(
    options: &HubOptions,
    answer: &Answer,
) -> Result<Vec<(String, &'static str)>, HubError> {
    let configured = options
        .expected_sha256
        .clone()
        .map(|digest| (digest, "as configured"));
    let stated = answer
        .stated_sha256
        .clone()
        .map(|digest| (digest, "as the hub states"));
    let expected: Vec<_> = configured.into_iter().chain(stated).collect();
    if expected.is_empty() {
        return Err(HubError::NoDigest {
            url: display(&answer.url),
        });
    }
    Ok(expected)
}

/// Writes the body to a temporary file in `directory`, synced, and computes its SHA-256 on the way.
fn receive(body: Body, url: &str, directory: &Path) -> Result<(NamedTempFile, String), HubError> {
    // Readable like any file a download leaves; the umask takes its part away.
    let mut aside = tempfile::Builder::new()
        .prefix(".visage-")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(|source| unwritable(directory, source))?;
    let announced = body.content_length();
    if announced.is_some_and(|announced| announced > MAX_FILE_BYTES) {
        return Err(HubError::TooLarge {
            url: url.to_owned(),
        });
    }
    let mut reader = body.into_reader();
    let mut hash = Sha256::new();
    let mut received: u64 = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|source| HubError::Interrupted {
                url: url.to_owned(),
                received,
                source,
            })?;
        if count == 0 {
            break;
        }
        received += count as u64;
        if received > MAX_FILE_BYTES {
            return Err(HubError::TooLarge {
                url: url.to_owned(),
            });
        }
        hash.update(&buffer[..count]);
        aside
            .write_all(&buffer[..count])
            .map_err(|source| unwritable(directory, source))?;
    }
    if announced.is_some_and(|announced| announced != received) {
        return Err(HubError::Interrupted {
            url: url.to_owned(),
            received,
            source: io::ErrorKind::UnexpectedEof.into(),
        });
    }
    aside
        .as_file()
        .sync_all()
        .map_err(|source| unwritable(directory, source))?;
    Ok((aside, hex(&hash.finalize())))
}

/// Renames the verified file to its place among the blobs and links it as the snapshot of `commit`.
fn publish(
    aside: NamedTempFile,
    blob: &Path,
    layout: &CacheRepo,
    commit: &str,
) -> io::Result<PathBuf> {
    aside.persist(blob).map_err(|error| error.error)?;
    if let Some(directory) = blob.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    let snapshot = layout.pointer_path(commit);
    fs::create_dir_all(&snapshot)?;
    // blobs and snapshots/COMMIT are neighbours, so the link survives a move of the cache.
    let target = Path::new("../../blobs").join(blob.file_name().unwrap_or_default());
    let pointer = snapshot.join(FILE);
    tempfile::Builder::new()
        .prefix(".visage-")
        .make_in(&snapshot, |path| fs::os::unix::fs::symlink(&target, path))?
        .into_temp_path()
        .persist(&pointer)
        .map_err(|error| error.error)?;
    layout.create_ref(commit)?;
    Ok(pointer)
}

fn unwritable(directory: &Path, source: io::Error) -> HubError {
    HubError::Cache {
        directory: directory.to_owned(),
        source,
    }
}

fn layout(options: &HubOptions) -> CacheRepo {
    Cache::new(options.cache_dir.clone()).model(REPOSITORY.to_owned())
}

/// The SHA-256 that the hub states for a file in large-file storage. The plain `etag` is not used: storages put other
/// hashes of the same length there.
fn digest_header(headers: &HeaderMap) -> Option<String> {
    let digest = header(headers, "x-linked-etag")?.trim_matches('"');
    is_hex(digest, 64).then(|| digest.to_ascii_lowercase())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The address to which a `Location` header leads.
fn resolve(from: &str, location: &str) -> Result<String, HubError> {
    if location.starts_with("https://") || location.starts_with("http://") {
        return Ok(location.to_owned());
    }
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok(format!("{}{location}", origin(from)));
    }
    Err(HubError::Redirect {
        url: display(from),
        problem: format!("to the unusable address {location:?}"),
    })
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |scheme| scheme + 3);
    url[host..]
        .find(['/', '?', '#'])
        .map_or(url, |end| &url[..host + end])
}

/// An address without its query.
fn display(url: &str) -> String {
    url.split('?').next().unwrap_or(url).to_owned()
}
