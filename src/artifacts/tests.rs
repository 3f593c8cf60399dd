use std::{
    collections::HashSet,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fs_err as fs;
use futures_util::TryStreamExt as _;
use tempfile::TempDir;
use tokio_util::bytes::Bytes;

use super::{store::INCOMING, *};
use crate::quarantine::Quarantine;

/// SHA-256 of "abc", from FIPS 180-2, appendix B.1.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
/// SHA-256 of a million times "a", from FIPS 180-2, appendix B.3.
const MILLION_A: &str = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

async fn open() -> (TempDir, Artifacts) {
    let directory = TempDir::new().unwrap();
    let artifacts = Artifacts::local(directory.path()).await.unwrap();
    (directory, artifacts)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

async fn collect(artifacts: &Artifacts, sha256: &str, chunk: usize) -> (Vec<usize>, Option<Error>) {
    let mut stream = artifacts.stream(sha256, chunk).await.unwrap();
    let mut sizes = Vec::new();
    loop {
        match stream.try_next().await {
            Ok(Some(bytes)) => sizes.push(bytes.len()),
            Ok(None) => return (sizes, None),
            Err(error) => return (sizes, Some(error)),
        }
    }
}

async fn read(artifacts: &Artifacts, sha256: &str) -> Result<Vec<u8>, Error> {
    let chunks: Vec<Bytes> = artifacts
        .stream(sha256, 1 << 20)
        .await?
        .try_collect()
        .await?;
    Ok(chunks.concat())
}

#[tokio::test]
async fn bytes_lie_below_their_digest_and_come_back() {
    let (directory, artifacts) = open().await;
    let digest = artifacts
        .put_bytes(Bytes::from_static(b"abc"))
        .await
        .unwrap();
    let expected = Digest {
        sha256: ABC.to_owned(),
        size: 3,
    };
    assert_eq!(digest, expected);
    assert_eq!(read(&artifacts, ABC).await.unwrap(), b"abc");
    let path = directory.path().join("sha256/ba").join(ABC);
    assert_eq!(files(directory.path()), std::slice::from_ref(&path));
    let found = artifacts.local_file(ABC).await.unwrap();
    assert_eq!(found, path.canonicalize().unwrap());
    assert_eq!(artifacts.stored().await.unwrap()[0], digest);
    let missing = artifacts.local_file(EMPTY).await;
    assert!(
        matches!(missing, Err(Error::NotFound { .. })),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_file_is_copied_and_its_source_stays() {
    let (directory, artifacts) = open().await;
    let source = directory.path().join("source");
    for (content, sha256) in [(vec![b'a'; 1_000_000], MILLION_A), (Vec::new(), EMPTY)] {
        fs::write(&source, &content).unwrap();
        for _ in 0..2 {
            let digest = artifacts.copy_file(&source).await.unwrap();
            assert_eq!(digest.sha256, sha256);
            assert_eq!(digest.size, content.len() as u64);
        }
        fs::write(&source, b"changed later").unwrap();
        assert_eq!(read(&artifacts, sha256).await.unwrap(), content);
    }
    assert_eq!(artifacts.stored().await.unwrap().len(), 2);
    assert_eq!(files(directory.path()).len(), 3);
}

#[tokio::test]
async fn a_moved_file_is_stored_and_gone() {
    let (directory, artifacts) = open().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let source = elsewhere.path().join("source");
    for (content, sha256) in [(vec![b'a'; 1_000_000], MILLION_A), (Vec::new(), EMPTY)] {
        // Twice, as when a training comes to the same weights again.
        for _ in 0..2 {
            fs::write(&source, &content).unwrap();
            let digest = artifacts.move_file(&source).await.unwrap();
            assert_eq!(
                (digest.sha256.as_str(), digest.size),
                (sha256, content.len() as u64)
            );
            assert!(!source.exists());
        }
        assert_eq!(read(&artifacts, sha256).await.unwrap(), content);
    }
    assert_eq!(
        files(directory.path()).len(),
        2,
        "no temporary file remains"
    );
    let missing = artifacts.move_file(&source).await;
    assert!(matches!(missing, Err(Error::File { .. })), "{missing:?}");
    assert_eq!(files(directory.path()).len(), 2);
}

#[tokio::test]
async fn a_stream_has_even_chunks() {
    let (_directory, artifacts) = open().await;
    let bytes = Bytes::from(vec![b'a'; 1_000_000]);
    artifacts.put_bytes(bytes).await.unwrap();
    let (sizes, error) = collect(&artifacts, MILLION_A, 300_000).await;
    assert_eq!(sizes, [300_000, 300_000, 300_000, 100_000]);
    assert!(error.is_none());
    artifacts.put_bytes(Bytes::new()).await.unwrap();
    assert!(matches!(collect(&artifacts, EMPTY, 10).await, (sizes, None) if sizes.is_empty()));
}

#[tokio::test]
async fn damaged_bytes_are_never_handed_out_as_good() {
    let (directory, artifacts) = open().await;
    artifacts
        .put_bytes(Bytes::from_static(b"abc"))
        .await
        .unwrap();
    let path = artifacts.local_file(ABC).await.unwrap();
    // SHA-256 of "abd", from coreutils' sha256sum.
    let found = "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9";
    fs::write(&path, b"abd").unwrap();
    let is_corrupt = |error: &Error| matches!(error, Error::Corrupt { digest, found: f } if digest == ABC && f == found);
    assert!(is_corrupt(&read(&artifacts, ABC).await.unwrap_err()));
    let (_, error) = collect(&artifacts, ABC, 2).await;
    assert!(is_corrupt(&error.unwrap()));
    artifacts
        .put_bytes(Bytes::from_static(b"abc"))
        .await
        .unwrap();
    assert_eq!(read(&artifacts, ABC).await.unwrap(), b"abc");
    assert_eq!(files(directory.path()), [path]);
}

#[tokio::test]
async fn a_failed_put_leaves_nothing() {
    let (directory, artifacts) = open().await;
    let missing = artifacts.copy_file(&directory.path().join("none")).await;
    assert!(matches!(missing, Err(Error::File { .. })));
    let unreadable = artifacts.copy_file(directory.path()).await;
    assert!(
        matches!(unreadable, Err(Error::File { .. })),
        "{unreadable:?}"
    );
    assert_eq!(files(directory.path()), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn what_a_crash_left_is_removed_at_open() {
    let (directory, artifacts) = open().await;
    artifacts
        .put_bytes(Bytes::from_static(b"abc"))
        .await
        .unwrap();
    let incoming = directory.path().join(INCOMING);
    fs::write(incoming.join("0123#1"), b"half").unwrap();
    fs::write(incoming.join("4567"), b"whole, not yet renamed").unwrap();
    let artifacts = Artifacts::local(directory.path()).await.unwrap();
    assert_eq!(files(directory.path()).len(), 1);
    assert_eq!(read(&artifacts, ABC).await.unwrap(), b"abc");
}

#[tokio::test]
async fn unknown_artifacts_are_moved_into_the_quarantine() {
    let (_directory, artifacts) = open().await;
    let data = tempfile::tempdir().unwrap();
    let quarantine = || {
        let day = Duration::from_secs(24 * 3600);
        Quarantine::open(data.path(), day, SystemTime::UNIX_EPOCH).unwrap()
    };
    artifacts
        .put_bytes(Bytes::from_static(b"abc"))
        .await
        .unwrap();
    artifacts.put_bytes(Bytes::new()).await.unwrap();
    let keep = HashSet::from([ABC.to_owned()]);
    artifacts
        .quarantine_unknown(&keep, quarantine())
        .await
        .unwrap();
    let stored = artifacts.stored().await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].sha256.as_str(), stored[0].size), (ABC, 3));
    let gone = read(&artifacts, EMPTY).await;
    assert!(matches!(gone, Err(Error::NotFound { digest }) if digest == EMPTY));
    let moved = data
        .path()
        .join("quarantine/1970-01-01T00:00:00Z/artifacts")
        .join(EMPTY);
    assert_eq!(fs::read(moved).unwrap(), b"");
    artifacts.delete(EMPTY).await.unwrap();
}

#[tokio::test]
async fn small_artifact_is_read_at_once_and_verified() {
    let (_directory, artifacts) = open().await;
    artifacts
        .put_bytes(Bytes::from_static(b"abc"))
        .await
        .unwrap();
    assert_eq!(artifacts.read(ABC, 3).await.unwrap(), b"abc");
    let refused = artifacts.read(ABC, 2).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { limit: 2, .. }));
    fs::write(artifacts.local_file(ABC).await.unwrap(), b"abd").unwrap();
    let refused = artifacts.read(ABC, 3).await.unwrap_err();
    assert!(matches!(refused, Error::Corrupt { digest, .. } if digest == ABC));
}

#[tokio::test]
async fn names_that_are_not_digests_are_refused() {
    let (_directory, artifacts) = open().await;
    let upper = ABC.to_uppercase();
    let path = format!("../{}", &ABC[3..]);
    for bad in ["", "abc", upper.as_str(), path.as_str()] {
        assert!(matches!(
            read(&artifacts, bad).await,
            Err(Error::BadDigest { .. })
        ));
        assert!(matches!(
            artifacts.delete(bad).await,
            Err(Error::BadDigest { .. })
        ));
    }
}

#[test]
fn a_full_disk_is_found_in_the_chain_of_causes() {
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        let source = object_store::Error::Generic {
            store: "LocalFileSystem",
            source: io::Error::from(kind).into(),
        };
        assert!(matches!(Error::from(source), Error::DiskFull { .. }));
        assert!(matches!(
            Error::from(io::Error::from(kind)),
            Error::DiskFull { .. }
        ));
    }
    let other = io::Error::from(ErrorKind::PermissionDenied);
    assert!(matches!(Error::from(other), Error::File { .. }));
}
