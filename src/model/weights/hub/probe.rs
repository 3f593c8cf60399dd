//! A request for the file without its content.

use std::time::Duration;

use ureq::Agent;

use super::{
    download::{agent, endpoint, url},
    error::HubError,
    options::HubOptions,
};

/// Checks that the hub has the file and responds within `timeout`. A redirect counts as a success:
/// the storage behind the hub may refuse this kind of request.
///
/// # Errors
/// Offline mode, no response in time, or the status of a hub without the file.
pub(crate) fn probe(options: &HubOptions, timeout: Duration) -> Result<(), HubError> {
    if options.offline {
        return Err(HubError::Offline {
            cache_dir: options.cache_dir.clone(),
        });
    }
    let endpoint = endpoint(options);
    let agent = agent(endpoint, timeout).timeout_global(Some(timeout));
    let agent: Agent = agent.build().into();
    let url = url(endpoint);
    let mut request = agent.head(&url);
    if let Some(token) = &options.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = request.call().map_err(|source| HubError::NoResponse {
        url: url.clone(),
        source: Box::new(source),
    })?;
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(HubError::Status {
        url,
        status: status.to_string(),
    })
}
