//! The model version of the best run of a sweep.

use crate::{
    cli::{
        client::{Client, pages, request},
        context::Context,
        error::Error,
    },
    proto::v1::{ListModelVersionsRequest, RegisterVersionRequest, Training},
};

/// Newest versions among which that of an earlier call of the same sweep is searched.
const MAX_VERSIONS: usize = 1000;

/// Returns the version of the run's best checkpoint, and creates it unless it exists, because a
/// resumed sweep may have created it before.
pub(super) async fn of_best(
    best: &Training,
    client: &Client,
    context: &Context,
) -> Result<String, Error> {
    if !best.model_version.is_empty() {
        return Ok(best.model_version.clone());
    }
    let epoch = best.best.as_ref().map_or(0, |best| best.epoch);
    let checkpoint = format!("{}/checkpoints/{epoch}", best.name);
    let versions = pages(MAX_VERSIONS, async |page_size, page_token| {
        let message = ListModelVersionsRequest {
            page_size,
            page_token,
            ..ListModelVersionsRequest::default()
        };
        let response = client.models().list_model_versions(request(message)).await;
        let page = client.message(response)?;
        Ok((page.versions, page.next_page_token))
    });
    let existing = versions
        .await?
        .into_iter()
        .find(|version| version.checkpoint == checkpoint);
    if let Some(version) = existing {
        return Ok(version.name);
    }
    let message = RegisterVersionRequest {
        checkpoint,
        ..RegisterVersionRequest::default()
    };
    let registered = client
        .repeat(&context.retry, async || {
            let request = request(message.clone());
            client.models().register_version(request).await
        })
        .await?;
    let version = registered.version;
    let missing = || Error::Contract("the response has no model version".to_owned());
    Ok(version.ok_or_else(missing)?.name)
}
