use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::hub_server::{Reply, Request, Server};
use crate::model::weights::{
    hub::{HubError, HubOptions, cached, download, probe},
    text::hex,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const RESOLVE: &str = "/timm/resnet18.tv_in1k/resolve/main/model.safetensors";
const OTHER_DIGEST: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// The served file: its content does not matter to the transfer.
fn file() -> Arc<Vec<u8>> {
    Arc::new((0..100_000u32).flat_map(u32::to_le_bytes).collect())
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn options(cache: &TempDir, server: &Server) -> HubOptions {
    HubOptions {
        endpoint: Some(server.url()),
        timeout: Duration::from_secs(5),
        expected_sha256: None,
        ..HubOptions::new(cache.path().to_owned())
    }
}

/// The headers with which the hub announces a file.
fn announced(digest: &str) -> Vec<(&'static str, String)> {
    vec![
        ("x-linked-etag", format!("\"{digest}\"")),
        ("x-repo-commit", COMMIT.to_owned()),
    ]
}

/// A hub that serves the file itself.
fn plain_hub(digest: String) -> Server {
    Server::start(move |_| Reply::Whole(200, announced(&digest), file()))
}

/// Every file below a directory that is neither a directory nor a link.
fn files_below(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => files_below(&entry.path()),
            kind if kind.is_symlink() => 0,
            _ => 1,
        })
        .sum()
}

#[test]
fn follows_the_hub_s_redirect_and_keeps_the_token_to_itself() {
    let storage =
        Server::start(|_| Reply::Whole(200, vec![("etag", format!("\"{OTHER_DIGEST}\""))], file()));
    let target = format!("{}/blob?signature=secret", storage.url());
    let hub = Server::start(move |_| {
        let mut headers = announced(&digest(&file()));
        headers.push(("x-linked-size", file().len().to_string()));
        headers.push(("location", target.clone()));
        Reply::Whole(302, headers, Arc::default())
    });
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions {
        token: Some("hf_secret".to_owned()),
        ..options(&cache, &hub)
    };
    assert_eq!(cached(&options), None);

    let path = download(&options).unwrap();
    assert_eq!(fs::read(&path).unwrap(), *file());
    let repository = cache.path().join("models--timm--resnet18.tv_in1k");
    assert_eq!(
        path,
        repository
            .join("snapshots")
            .join(COMMIT)
            .join("model.safetensors")
    );
    assert_eq!(
        fs::read_link(&path).unwrap(),
        Path::new("../../blobs").join(digest(&file()))
    );
    assert_eq!(
        fs::read_to_string(repository.join("refs/main")).unwrap(),
        COMMIT
    );
    assert_eq!(cached(&options), Some(path));

    let asked: Vec<Request> = hub.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, RESOLVE);
    assert_eq!(asked[0].headers["authorization"], "Bearer hf_secret");
    let asked = storage.requests();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].headers.contains_key("authorization"));
}

#[test]
fn follows_relative_redirects_but_not_forever() {
    let hub = Server::start(|request| match request.path.as_str() {
        RESOLVE => Reply::Whole(
            307,
            vec![("location", "/elsewhere".to_owned())],
            Arc::default(),
        ),
        _ => Reply::Whole(200, announced(&digest(&file())), file()),
    });
    let cache = tempfile::tempdir().unwrap();
    download(&options(&cache, &hub)).unwrap();

    for (location, problem) in [
        (RESOLVE, "more than 5 times"),
        ("", "unusable"),
        ("//host/x", "unusable"),
    ] {
        let circle = Server::start(move |_| {
            Reply::Whole(302, vec![("location", location.to_owned())], Arc::default())
        });
        let message = download(&options(&cache, &circle)).unwrap_err().to_string();
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn a_wrong_digest_leaves_no_file() {
    let cache = tempfile::tempdir().unwrap();
    let right = digest(&file());

    let lying = plain_hub(OTHER_DIGEST.to_owned());
    let message = download(&options(&cache, &lying)).unwrap_err().to_string();
    assert!(
        message.contains(&right) && message.contains(OTHER_DIGEST),
        "{message}"
    );
    assert!(message.contains("as the hub states"), "{message}");

    // The configured digest applies even if the hub's own is right.
    let honest = plain_hub(right.clone());
    let pinned = HubOptions {
        expected_sha256: Some(OTHER_DIGEST.to_owned()),
        ..options(&cache, &honest)
    };
    let message = download(&pinned).unwrap_err().to_string();
    assert!(
        message.contains(&right) && message.contains("as configured"),
        "{message}"
    );
    assert_eq!(files_below(cache.path()), 0);
    assert_eq!(cached(&pinned), None);

    download(&options(&cache, &honest)).unwrap();
}

#[test]
fn a_mirror_without_a_digest_needs_a_configured_one() {
    let mirror =
        Server::start(|_| Reply::Whole(200, vec![("etag", "W/\"5f3a\"".to_owned())], file()));
    let cache = tempfile::tempdir().unwrap();
    assert!(matches!(
        download(&options(&cache, &mirror)),
        Err(HubError::NoDigest { .. })
    ));

    let pinned = HubOptions {
        expected_sha256: Some(digest(&file()).to_uppercase()),
        ..options(&cache, &mirror)
    };
    let path = download(&pinned).unwrap();
    assert_eq!(cached(&pinned), Some(path));
}

#[test]
fn a_lost_connection_leaves_no_file_and_the_next_try_succeeds() {
    let tries = AtomicUsize::new(0);
    let hub = Server::start(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Cut(announced(&digest(&file())), file(), 150_000),
        _ => Reply::Whole(200, announced(&digest(&file())), file()),
    });
    let cache = tempfile::tempdir().unwrap();
    let options = options(&cache, &hub);
    let error = download(&options).unwrap_err();
    assert!(
        matches!(
            error,
            HubError::Interrupted {
                received: 150_000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(files_below(cache.path()), 0);

    let path = download(&options).unwrap();
    assert_eq!(fs::read(path).unwrap(), *file());
    // The blob and the reference to its commit.
    assert_eq!(files_below(cache.path()), 2);
}

#[test]
fn a_silent_connection_times_out() {
    let cache = tempfile::tempdir().unwrap();
    let impatient = |server: &Server| HubOptions {
        timeout: Duration::from_millis(200),
        ..options(&cache, server)
    };
    let mute = Server::start(|_| Reply::Silence);
    let message = download(&impatient(&mute)).unwrap_err().to_string();
    assert!(message.contains("timeout"), "{message}");

    let stalled = Server::start(|_| Reply::Stalled(announced(&digest(&file())), file(), 1_000));
    let error = download(&impatient(&stalled)).unwrap_err();
    assert!(
        matches!(
            error,
            HubError::Interrupted {
                received: 1_000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(files_below(cache.path()), 0);
}

#[test]
fn a_response_without_the_file_is_named() {
    let cache = tempfile::tempdir().unwrap();
    for status in [401, 404, 500] {
        let hub = Server::start(move |_| Reply::Whole(status, vec![], Arc::default()));
        let message = download(&options(&cache, &hub)).unwrap_err().to_string();
        assert!(
            message.contains(&status.to_string()) && message.contains(RESOLVE),
            "{message}"
        );
    }
}

#[test]
fn no_connection_is_named_and_offline_mode_makes_none() {
    let cache = tempfile::tempdir().unwrap();
    // A port without a listener.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let refused = HubOptions {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        ..HubOptions::new(cache.path().to_owned())
    };
    let message = download(&refused).unwrap_err().to_string();
    assert!(
        message.contains(&format!("127.0.0.1:{port}")) && message.contains("refused"),
        "{message}"
    );

    let hub = plain_hub(digest(&file()));
    let offline = HubOptions {
        offline: true,
        ..options(&cache, &hub)
    };
    assert!(matches!(download(&offline), Err(HubError::Offline { .. })));
    assert!(hub.requests().is_empty());
}

#[test]
fn an_unwritable_cache_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file_in_the_way = directory.path().join("cache");
    fs::write(&file_in_the_way, "").unwrap();
    let hub = plain_hub(digest(&file()));
    let options = HubOptions {
        endpoint: Some(hub.url()),
        expected_sha256: None,
        ..HubOptions::new(file_in_the_way.clone())
    };
    let message = download(&options).unwrap_err().to_string();
    assert!(
        message.contains(&file_in_the_way.display().to_string()),
        "{message}"
    );
}

#[test]
fn the_token_is_not_shown() {
    let options = HubOptions {
        token: Some("hf_secret".to_owned()),
        ..HubOptions::new("cache".into())
    };
    assert!(!format!("{options:?}").contains("hf_secret"));
}

#[test]
fn a_signature_in_an_address_is_not_shown() {
    let hub = Server::start(|request| match request.path.as_str() {
        RESOLVE => Reply::Whole(
            302,
            vec![("location", "/blob?signature=secret".to_owned())],
            Arc::default(),
        ),
        _ => Reply::Whole(403, vec![], Arc::default()),
    });
    let cache = tempfile::tempdir().unwrap();
    let message = download(&options(&cache, &hub)).unwrap_err().to_string();
    assert!(
        message.contains("/blob returned 403") && !message.contains("secret"),
        "{message}"
    );
}

#[test]
fn asks_whether_the_hub_has_the_file_without_a_download() {
    const LIMIT: Duration = Duration::from_secs(20);
    let cache = tempfile::tempdir().unwrap();
    let found = plain_hub(digest(&file()));
    let with_token = HubOptions {
        token: Some("hf_secret".to_owned()),
        ..options(&cache, &found)
    };
    probe(&with_token, LIMIT).unwrap();
    let asked = found.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].method.as_str(), asked[0].path.as_str()),
        ("HEAD", RESOLVE)
    );
    assert_eq!(asked[0].headers["authorization"], "Bearer hf_secret");
    // The storage that it redirects to is not asked.
    let redirects = Server::start(|_| {
        let elsewhere = "http://127.0.0.1:1/blob".to_owned();
        Reply::Whole(302, vec![("location", elsewhere)], Arc::default())
    });
    probe(&options(&cache, &redirects), LIMIT).unwrap();
    assert_eq!(files_below(cache.path()), 0);

    let missing = Server::start(|_| Reply::Whole(404, vec![], Arc::default()));
    let refused = probe(&options(&cache, &missing), LIMIT).unwrap_err();
    assert!(
        matches!(&refused, HubError::Status { status, .. } if status.contains("404")),
        "{refused}"
    );
    let offline = HubOptions {
        offline: true,
        ..options(&cache, &found)
    };
    assert!(matches!(
        probe(&offline, LIMIT),
        Err(HubError::Offline { .. })
    ));
    assert_eq!(found.requests().len(), 1);
}

#[test]
fn a_hub_that_refuses_or_hangs_does_not_have_the_file() {
    let cache = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let refuses = HubOptions {
        endpoint: Some(format!("http://{}", closed.local_addr().unwrap())),
        ..HubOptions::new(cache.path().to_owned())
    };
    drop(closed);
    let refused = probe(&refuses, Duration::from_secs(20));
    assert!(
        matches!(refused, Err(HubError::NoResponse { .. })),
        "{refused:?}"
    );

    let hanging = Server::start(|_| Reply::Silence);
    let limit = Duration::from_millis(200);
    let begun = Instant::now();
    let refused = probe(&options(&cache, &hanging), limit);
    assert!(
        matches!(refused, Err(HubError::NoResponse { .. })),
        "{refused:?}"
    );
    // Less than the five seconds of a download.
    assert!(
        (limit..Duration::from_secs(4)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
}
