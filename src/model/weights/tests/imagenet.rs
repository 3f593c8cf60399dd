use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ::safetensors::{Dtype, tensor::TensorView};
use fs_err as fs;
use sha2::{Digest, Sha256};

use super::fixture;
use super::hub_server::{Reply, Server};
use crate::model::{
    layout::layout,
    weights::{Error, HubOptions, imagenet, published::TIMM_SHA256, text::hex},
};

/// A file with ResNet18's names and shapes and nothing but zeros; the batch counters are left out,
/// as in old files.
fn zeros() -> Arc<Vec<u8>> {
    static ZEROS: OnceLock<Arc<Vec<u8>>> = OnceLock::new();
    let build = || Arc::new(safetensors(1000));
    ZEROS.get_or_init(build).clone()
}

fn safetensors(outputs: usize) -> Vec<u8> {
    let nothing = vec![0; 4 * 512 * 512 * 9];
    let tensors: BTreeMap<String, TensorView<'_>> = layout(outputs)
        .into_iter()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, shape)| {
            let bytes = 4 * shape.iter().product::<usize>();
            (
                name,
                TensorView::new(Dtype::F32, shape, &nothing[..bytes]).unwrap(),
            )
        })
        .collect();
    ::safetensors::serialize(tensors, None).unwrap()
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A hub that serves the zeros.
fn hub() -> Server {
    Server::start(|_| {
        let headers = vec![("x-linked-etag", format!("\"{}\"", digest(&zeros())))];
        Reply::Whole(200, headers, zeros())
    })
}

fn options(cache: &Path, hub: &Server) -> HubOptions {
    HubOptions {
        endpoint: Some(hub.url()),
        expected_sha256: Some(digest(&zeros())),
        ..HubOptions::new(cache.to_owned())
    }
}

#[test]
fn a_local_file_comes_before_the_cache_and_the_cache_before_the_hub() {
    let hub = hub();
    let directory = tempfile::tempdir().unwrap();
    let dirs = [
        directory.path().join("absent"),
        directory.path().join("weights"),
    ];
    fs::create_dir(&dirs[1]).unwrap();
    let options = options(&directory.path().join("hub"), &hub);

    let (state, source) = imagenet(&dirs, &options).unwrap();
    assert_eq!(state.len(), 102);
    assert_eq!(state["fc.weight"].shape, [1000, 512]);
    assert_eq!(source.sha256, digest(&zeros()));
    assert!(source.description.contains("from the Hugging Face hub"));
    assert_eq!(hub.requests().len(), 1);

    let (_, again) = imagenet(&dirs, &options).unwrap();
    assert!(again.description.contains("from the hub's cache"));
    assert_eq!(again.path, source.path);

    let local = dirs[1].join("resnet18.safetensors");
    fs::write(&local, &*zeros()).unwrap();
    let (_, source) = imagenet(&dirs, &options).unwrap();
    assert_eq!(source.path, local);
    assert_eq!(hub.requests().len(), 1);
}

#[test]
fn a_damaged_file_in_the_cache_is_downloaded_again() {
    let hub = hub();
    let cache = tempfile::tempdir().unwrap();
    let online = options(cache.path(), &hub);
    let (_, source) = imagenet(&[], &online).unwrap();
    fs::write(&source.path, "damaged").unwrap();

    let offline = HubOptions {
        offline: true,
        ..online.clone()
    };
    assert!(matches!(imagenet(&[], &offline), Err(Error::Format { .. })));
    assert_eq!(imagenet(&[], &online).unwrap().1.sha256, digest(&zeros()));
    assert_eq!(hub.requests().len(), 2);

    // A whole file that is not the expected one.
    let pinned = HubOptions {
        expected_sha256: Some(TIMM_SHA256.to_owned()),
        ..offline
    };
    let message = imagenet(&[], &pinned).unwrap_err().to_string();
    assert!(
        message.contains(TIMM_SHA256) && message.contains(&digest(&zeros())),
        "{message}"
    );
}

#[test]
fn a_wrong_local_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let weights = directory.path().join("weights");
    let checkpoints = directory.path().join("torch/hub/checkpoints");
    fs::create_dir_all(&weights).unwrap();
    fs::create_dir_all(&checkpoints).unwrap();
    let offline = HubOptions {
        offline: true,
        torch_home: Some(directory.path().join("torch")),
        ..HubOptions::new(directory.path().join("hub"))
    };
    let dirs: [PathBuf; 1] = [weights.clone()];

    fs::copy(
        fixture("state_dict.pth"),
        checkpoints.join("resnet18-f37072fd.pth"),
    )
    .unwrap();
    let message = imagenet(&dirs, &offline).unwrap_err().to_string();
    assert!(
        message.contains("torch/hub/checkpoints") && message.contains("f37072fd47e8"),
        "{message}"
    );

    fs::write(weights.join("model.safetensors"), safetensors(1)).unwrap();
    let message = imagenet(&dirs, &offline).unwrap_err().to_string();
    assert!(
        message.contains("weights/model.safetensors: weights do not fit")
            && message.contains("2 misshapen (fc.bias is [1], expected [1000]"),
        "{message}"
    );
}

#[test]
fn without_any_file_the_error_states_the_remedies() {
    let directory = tempfile::tempdir().unwrap();
    let weights = directory.path().join("weights");
    let offline = HubOptions {
        offline: true,
        ..HubOptions::new(directory.path().join("hub"))
    };
    let not_found = Server::start(|_| Reply::Whole(404, vec![], Arc::default()));
    for (options, reason) in [
        (offline, "offline mode is on"),
        (options(directory.path(), &not_found), "404"),
    ] {
        let message = imagenet(std::slice::from_ref(&weights), &options)
            .unwrap_err()
            .to_string();
        let place = weights.display().to_string();
        for part in [
            reason,
            place.as_str(),
            "put torchvision's file resnet18-f37072fd.pth into",
            "; start from the built-in face model (STARTER), ",
            "or let the server reach the hub",
        ] {
            assert!(message.contains(part), "expected {part} in: {message}");
        }
        assert!(!message.contains('\n'));
    }
}
