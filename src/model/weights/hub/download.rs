//! The transfer.

use std::{
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use fs_err as fs;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use ureq::{
    Agent, Body,
    config::ConfigBuilder,
    http::{HeaderMap, Response},
    typestate::AgentScope,
};

use super::{
    cache,
    error::HubError,
    options::{FILE, HubOptions, NAME, REPOSITORY},
};
use crate::model::weights::{MAX_FILE_BYTES, text::hex};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const MAX_REDIRECTS: usize = 5;

/// Downloads the file into the hub's cache and returns its path there.
pub(crate) fn download(options: &HubOptions) -> Result<PathBuf, HubError> {
    if options.offline {
        return Err(HubError::Offline {
            cache_dir: options.cache_dir.clone(),
        });
    }
    let response = request(options)?;
    let url = display(&response.url);
    let expected = expected_digests(options, &response)?;
    tracing::info!(url, "downloading {NAME}");

    let directory = cache::repository(options);
    let blobs = directory.join("blobs");
    fs::create_dir_all(&blobs).map_err(|source| HubError::cache(&directory, source))?;
    let (file, found) = receive(response.response.into_body(), &url, &blobs)?;
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
    // A mirror may not state its commit; any name works for the directory of the link.
    let commit = response.commit.unwrap_or_else(|| found[..40].to_owned());
    cache::publish(file, &found, &directory, &commit)
        .map_err(|source| HubError::cache(&directory, source))
}

/// The final response of a chain of redirects, and the hub's statements on the way.
struct FinalResponse {
    response: Response<Body>,
    url: String,
    /// SHA-256 that the hub states for a file in large-file storage.
    stated_sha256: Option<String>,
    commit: Option<String>,
}

/// Requests the file and follows redirects. The hub sends its headers with its own redirect, and
/// the storage behind it does not, so they are collected on the way.
fn request(options: &HubOptions) -> Result<FinalResponse, HubError> {
    let endpoint = endpoint(options);
    let agent: Agent = agent(endpoint, options.timeout).build().into();
    let mut url = url(endpoint);
    let mut stated_sha256 = None;
    let mut commit = None;
    for _ in 0..=MAX_REDIRECTS {
        let from_endpoint = origin(&url) == origin(endpoint);
        let mut request = agent.get(&url);
        if let Some(token) = options.token.as_deref().filter(|_| from_endpoint) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(|source| HubError::NoResponse {
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
            return Ok(FinalResponse {
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

/// The address of the hub, without a slash at the end.
pub(super) fn endpoint(options: &HubOptions) -> &str {
    let endpoint = options.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
    endpoint.trim_end_matches('/')
}

/// The address of the file.
pub(super) fn url(endpoint: &str) -> String {
    format!("{endpoint}/{REPOSITORY}/resolve/main/{FILE}")
}

/// An HTTP client that returns redirects and error statuses, and refuses plain HTTP if the hub is
/// encrypted.
pub(super) fn agent(endpoint: &str, timeout: Duration) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .https_only(endpoint.starts_with("https://"))
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_resolve(Some(timeout))
        .timeout_connect(Some(timeout))
        .timeout_recv_response(Some(timeout))
        .timeout_per_read(Some(timeout))
        .user_agent(concat!("visage/", env!("CARGO_PKG_VERSION")))
}

/// The digests that the file must have: the configured one, the hub's, or both, each with its
/// origin.
fn expected_digests(
    options: &HubOptions,
    response: &FinalResponse,
) -> Result<Vec<(String, &'static str)>, HubError> {
    let configured = options
        .expected_sha256
        .clone()
        .map(|digest| (digest, "as configured"));
    let stated = response
        .stated_sha256
        .clone()
        .map(|digest| (digest, "as the hub states"));
    let expected: Vec<_> = configured.into_iter().chain(stated).collect();
    if expected.is_empty() {
        return Err(HubError::NoDigest {
            url: display(&response.url),
        });
    }
    Ok(expected)
}

/// Writes the body to a temporary file in `directory`, synced, and computes its SHA-256 on the way.
fn receive(body: Body, url: &str, directory: &Path) -> Result<(NamedTempFile, String), HubError> {
    // The usual mode of a download, less the umask.
    let mut file = tempfile::Builder::new()
        .prefix(".visage-")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(|source| HubError::cache(directory, source))?;
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
        file.write_all(&buffer[..count])
            .map_err(|source| HubError::cache(directory, source))?;
    }
    if announced.is_some_and(|announced| announced != received) {
        return Err(HubError::Interrupted {
            url: url.to_owned(),
            received,
            source: io::ErrorKind::UnexpectedEof.into(),
        });
    }
    file.as_file()
        .sync_all()
        .map_err(|source| HubError::cache(directory, source))?;
    Ok((file, hex(&hash.finalize())))
}

/// The SHA-256 that the hub states for a file in large-file storage. Not the plain `etag`, in which
/// storages put other hashes of the same length.
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

/// The target of a `Location` header.
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
