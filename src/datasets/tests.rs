//! Tests of the registry through its public interface.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use fs_err as fs;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    dataset::Roots,
    disk::Disk,
    imaging,
    proto::v1::{self, DatasetState},
    quarantine::Quarantine,
    store::{self, Store},
    synth,
};

use super::{uploads::Scope, *};

const LIMITS: unpack::Limits = unpack::Limits {
    bytes: 64 << 20,
    entries: 1_000,
};

const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

struct Fixture {
    directory: TempDir,
    store: Store,
    datasets: DatasetRegistry,
}

/// Settings of a test.
#[derive(Clone)]
struct TestOptions {
    max_dataset_bytes: u64,
    max_datasets: usize,
    /// Free bytes of the disk; [`MIN_FREE`] must stay free; `None` for the real disk.
    free: Option<Arc<AtomicU64>>,
}

const OPTIONS: TestOptions = TestOptions {
    max_dataset_bytes: 0,
    max_datasets: 100,
    free: None,
};
const MIN_FREE: u64 = 1 << 30;

async fn open(directory: TempDir) -> Fixture {
    open_with(directory, OPTIONS).await
}

async fn open_with(directory: TempDir, test: TestOptions) -> Fixture {
    let data_dir = fs::canonicalize(directory.path()).unwrap().join("data");
    let store = Store::open(&data_dir).await.unwrap();
    let uploaded = DatasetRegistry::prepare(&data_dir).unwrap();
    let roots = Roots::new([directory.path().to_owned(), uploaded]).unwrap();
    let options = Options {
        data_dir: data_dir.clone(),
        max_upload_bytes: 8 << 20,
        disk: match test.free {
            Some(free) => Disk::with_query(data_dir.clone(), MIN_FREE, move |_| {
                Ok(free.load(Ordering::Acquire))
            }),
            None => Disk::new(data_dir.clone(), 0),
        },
        max_dataset_bytes: test.max_dataset_bytes,
        max_datasets: test.max_datasets,
        upload_expiry: Duration::from_secs(3600),
        limits: LIMITS,
        images: imaging::Limits::default(),
    };
    let quarantine = Quarantine::open(&data_dir, MONTH, SystemTime::now()).unwrap();
    let (datasets, _) = DatasetRegistry::open(store.clone(), roots, options, quarantine)
        .await
        .unwrap();
    Fixture {
        directory,
        store,
        datasets,
    }
}

async fn new() -> Fixture {
    open(tempfile::tempdir().unwrap()).await
}

fn faces(directory: &Path, count: usize) -> PathBuf {
    let options = synth::Options {
        count,
        seed: 3,
        size: 64,
        ..Default::default()
    };
    synth::write_faces(directory, &options, |_| {}).unwrap();
    directory.to_owned()
}

fn tar_of(directory: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all("faces", directory).unwrap();
    builder.into_inner().unwrap()
}

impl Fixture {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn upload(&self, bytes: &[u8]) -> String {
        let uploads = self.datasets.uploads();
        let begun = uploads.create(bytes.len() as u64, "one", "").await.unwrap();
        let id = begun.id.to_string();
        let mut writer = uploads.write_at(&id, 0, &Scope::All).await.unwrap();
        writer.write(bytes).await.unwrap();
        writer.finish().await.unwrap();
        id
    }

    /// Makes an upload of 12 images the dataset "faces": the upload's name, and the dataset before
    /// it is worked on.
    async fn uploaded_faces(&self) -> (String, v1::Dataset) {
        let tar = tar_of(&faces(&self.path("faces"), 12));
        let upload = self.upload(&tar).await;
        let created = self
            .datasets
            .create("faces", Properties::default(), &upload, &Scope::All)
            .await;
        (upload, created.unwrap())
    }

    /// Works until the dataset is done with.
    async fn done(&self, id: &str) -> v1::Dataset {
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (datasets, shutdown) = (self.datasets.clone(), shutdown.clone());
            async move { datasets.run(shutdown).await }
        });
        let looking = async {
            loop {
                let dataset = self.datasets.get(id).await.unwrap();
                if matches!(dataset.state(), DatasetState::Ready | DatasetState::Failed) {
                    return dataset;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let dataset = tokio::time::timeout(Duration::from_secs(120), looking).await;
        shutdown.cancel();
        running.await.unwrap();
        dataset.unwrap()
    }

    /// Directories of uploaded datasets, finished or not.
    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("data/datasets")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| ![".visage", ".samples", ".attempts"].contains(&name.as_str()))
            .collect()
    }
}

#[tokio::test]
async fn a_registered_directory_is_scanned_and_outlives_its_dataset() {
    let fixture = new().await;
    let directory = faces(&fixture.path("faces"), 30);
    fs::write(directory.join("40_broken.jpg"), b"no image").unwrap();
    let path = directory.to_str().unwrap();
    let registered = fixture
        .datasets
        .register(
            "faces",
            Properties {
                display_name: "Faces".to_owned(),
                ..Properties::default()
            },
            path,
        )
        .await
        .unwrap();
    assert_eq!(registered.state(), DatasetState::Scanning);
    let dataset = fixture.done("faces").await;
    assert_eq!(
        (dataset.state(), dataset.images),
        (DatasetState::Ready, 30),
        "{}",
        dataset.failure
    );
    let report = dataset.report.unwrap();
    assert_eq!(
        report
            .rejects
            .iter()
            .map(|reject| reject.count)
            .sum::<u64>(),
        1
    );
    assert_eq!(report.digest.len(), 64);
    assert_eq!(dataset.samples.len(), 24);
    assert!(dataset.samples.is_sorted_by_key(|sample| sample.age as u64));
    let small = fixture.datasets.sample("faces", 23).await.unwrap();
    assert!(image::load_from_memory(&small).unwrap().width() <= 96);
    let beyond = fixture.datasets.sample("faces", 24).await;
    assert!(matches!(beyond, Err(Error::NoSample { .. })), "{beyond:?}");

    let again = fixture
        .datasets
        .register("faces", Properties::default(), path)
        .await;
    assert!(matches!(
        again,
        Err(Error::Store(store::Error::AlreadyExists { .. }))
    ));
    fixture.datasets.delete("faces").await.unwrap();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 31);
    assert_eq!(
        fs::read_dir(fixture.path("data/datasets/.samples"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn an_upload_becomes_a_dataset_and_goes_with_it() {
    let fixture = new().await;
    let (upload, _) = fixture.uploaded_faces().await;
    let second = fixture
        .datasets
        .create("other", Properties::default(), &upload, &Scope::All)
        .await;
    assert!(
        matches!(second, Err(Error::Store(store::Error::UploadUsed { .. }))),
        "{second:?}"
    );
    // Another spelling of the id is the same upload.
    let removed = fixture
        .datasets
        .remove_upload(&upload.to_uppercase(), &Scope::All)
        .await;
    assert!(matches!(removed, Err(Error::InUse { .. })), "{removed:?}");
    // For other clients it does not exist.
    let other = Scope::Client("another".to_owned());
    let removed = fixture.datasets.remove_upload(&upload, &other).await;
    assert!(
        matches!(removed, Err(Error::NoUpload { .. })),
        "{removed:?}"
    );
    let created = fixture
        .datasets
        .create("theirs", Properties::default(), &upload, &other)
        .await;
    assert!(
        matches!(created, Err(Error::NoUpload { .. })),
        "{created:?}"
    );
    let dataset = fixture.done("faces").await;
    assert_eq!(
        (dataset.state(), dataset.images),
        (DatasetState::Ready, 12),
        "{}",
        dataset.failure
    );
    assert!(Path::new(&dataset.path).join("faces").is_dir());
    assert!(matches!(
        fixture.datasets.uploads().get(&upload, &Scope::All).await,
        Err(Error::NoUpload { .. })
    ));
    fixture.datasets.delete("faces").await.unwrap();
    assert_eq!(fixture.kept(), [""; 0]);
}

#[tokio::test]
async fn a_refused_archive_fails_its_dataset_with_the_entry_and_leaves_no_file() {
    let fixture = new().await;
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_path("30_link.jpg").unwrap();
    header.set_link_name("/etc/passwd").unwrap();
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
    let upload = fixture.upload(&builder.into_inner().unwrap()).await;
    fixture
        .datasets
        .create("links", Properties::default(), &upload, &Scope::All)
        .await
        .unwrap();
    let dataset = fixture.done("links").await;
    assert_eq!(dataset.state(), DatasetState::Failed);
    assert!(
        dataset
            .failure
            .contains("\"30_link.jpg\": it must be a file or a directory, got a symbolic link"),
        "{}",
        dataset.failure
    );
    assert_eq!(fixture.kept(), [""; 0]);
    assert!(matches!(
        fixture.datasets.uploads().get(&upload, &Scope::All).await,
        Err(Error::NoUpload { .. })
    ));
}

#[tokio::test]
async fn what_a_killed_server_left_is_begun_again_and_the_rest_removed() {
    let fixture = new().await;
    let (_, created) = fixture.uploaded_faces().await;
    // As if it had been killed behind the renaming, with another one half unpacked and one half
    // deleted.
    let half = Path::new(&created.path).join("half");
    fs::create_dir_all(&half).unwrap();
    for left in ["gone-01234567", ".aside-77", ".samples/77"] {
        fs::create_dir_all(fixture.path("data/datasets").join(left)).unwrap();
    }
    fixture.store.close().await.unwrap();
    let Fixture { directory, .. } = fixture;
    let fixture = open(directory).await;
    let dataset = fixture.done("faces").await;
    assert_eq!(
        (dataset.state(), dataset.images),
        (DatasetState::Ready, 12),
        "{}",
        dataset.failure
    );
    assert!(!half.exists());
    assert_eq!(fixture.kept().len(), 1);
}

#[tokio::test]
async fn uploaded_images_move_with_the_data_directory() {
    let fixture = new().await;
    fixture.uploaded_faces().await;
    let before = fixture.done("faces").await;
    assert_eq!(before.state(), DatasetState::Ready, "{}", before.failure);
    fixture.store.close().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(fixture.path("data"), elsewhere.path().join("data")).unwrap();
    let fixture = open(elsewhere).await;
    let after = fixture.datasets.get("faces").await.unwrap();
    let datasets = fs::canonicalize(fixture.path("data/datasets")).unwrap();
    assert_ne!(after.path, before.path);
    assert_eq!(Path::new(&after.path).parent(), Some(datasets.as_path()));
    assert!(Path::new(&after.path).join("faces").is_dir());
    fixture.datasets.delete("faces").await.unwrap();
    assert_eq!(fixture.kept(), [""; 0]);
}

#[tokio::test]
async fn directories_of_others_in_the_data_directory_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let theirs = directory.path().join("data/datasets/mine-01234567");
    fs::create_dir_all(&theirs).unwrap();
    let fixture = open(directory).await;
    assert_eq!(fixture.kept(), ["mine-01234567"]);
}

#[tokio::test]
async fn an_upload_goes_on_where_it_ended_and_nowhere_else() {
    let fixture = new().await;
    let uploads = fixture.datasets.uploads();
    let id = uploads.create(10, "one", "").await.unwrap().id.to_string();
    let mut writer = uploads.write_at(&id, 0, &Scope::All).await.unwrap();
    writer.write(b"0123").await.unwrap();
    let busy = uploads.write_at(&id, 4, &Scope::All).await;
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    assert_eq!(writer.finish().await.unwrap().offset, 4);
    for wrong in [0, 3, 5, u64::MAX] {
        let refused = uploads.write_at(&id, wrong, &Scope::All).await;
        assert!(
            matches!(refused, Err(Error::WrongOffset { offset: 4, .. })),
            "{refused:?}"
        );
    }
    let early = fixture
        .datasets
        .create("faces", Properties::default(), &id, &Scope::All)
        .await;
    assert!(
        matches!(
            early,
            Err(Error::Incomplete {
                offset: 4,
                length: 10,
                ..
            })
        ),
        "{early:?}"
    );
    let mut writer = uploads.write_at(&id, 4, &Scope::All).await.unwrap();
    let long = writer.write(b"4567890").await;
    assert!(
        matches!(long, Err(Error::TooLong { length: 10, .. })),
        "{long:?}"
    );
    writer.write(b"456789").await.unwrap();
    writer.finish().await.unwrap();
    let whole = fs::read(uploads.file(&id).unwrap()).unwrap();
    assert_eq!(whole, b"0123456789");
}

#[tokio::test]
async fn uploads_are_bounded_in_number_and_size_and_expire() {
    let fixture = new().await;
    let uploads = fixture.datasets.uploads();
    for length in [0, (8 << 20) + 1] {
        let refused = uploads.create(length, "one", "").await;
        assert!(
            matches!(refused, Err(Error::UploadSize { .. })),
            "{refused:?}"
        );
    }
    let mut ids = Vec::new();
    for number in 0..64 {
        let client = format!("client {}", number / 16);
        let id = uploads.create(1, &client, "").await.unwrap().id.to_string();
        let mut writer = uploads.write_at(&id, 0, &Scope::All).await.unwrap();
        writer.write(b"x").await.unwrap();
        writer.finish().await.unwrap();
        ids.push(id);
    }
    for (client, expected) in [("client 0", 16), ("another", 64)] {
        let full = uploads.create(1, client, "").await.unwrap_err();
        assert!(
            matches!(full, Error::TooManyUploads { limit, of_client }
                if limit == expected && of_client == (client == "client 0")),
            "{full:?}"
        );
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    for id in &ids[..2] {
        let file = fs::OpenOptions::new()
            .append(true)
            .open(uploads.file(id).unwrap())
            .unwrap();
        file.file().set_modified(long_ago).unwrap();
    }
    // The first one is still to be unpacked.
    uploads.sweep(&[ids[0].clone()].into()).await;
    assert!(uploads.get(&ids[0], &Scope::All).await.is_ok());
    assert!(matches!(
        uploads.get(&ids[1], &Scope::All).await,
        Err(Error::NoUpload { .. })
    ));
    // An upload that received nothing gives its place to another one; complete ones do not.
    let empty = uploads
        .create(1, "another", "")
        .await
        .unwrap()
        .id
        .to_string();
    let other = uploads
        .create(1, "another", "")
        .await
        .unwrap()
        .id
        .to_string();
    assert!(matches!(
        uploads.get(&empty, &Scope::All).await,
        Err(Error::NoUpload { .. })
    ));
    let writer = uploads.write_at(&other, 0, &Scope::All).await.unwrap();
    assert!(matches!(
        uploads.create(1, "another", "").await,
        Err(Error::TooManyUploads { .. })
    ));
    drop(writer);
    for name in ["../x", "", "not-a-uuid"] {
        assert!(
            matches!(
                uploads.get(name, &Scope::All).await,
                Err(Error::NoUpload { .. })
            ),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_dataset_that_a_live_training_reads_is_not_deleted() {
    let fixture = new().await;
    let directory = faces(&fixture.path("faces"), 12);
    let datasets = &fixture.datasets;
    datasets
        .register("faces", Properties::default(), directory.to_str().unwrap())
        .await
        .unwrap();
    let training = |id: &str, dataset: &str| v1::Training {
        name: format!("trainings/{id}"),
        resolved_spec: Some(v1::TrainingSpec {
            dataset: Some(v1::DatasetSpec {
                name: dataset.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let started = fixture
        .store
        .insert_training(training("t", "datasets/faces"), None, 10)
        .await;
    started.unwrap();
    let refused = datasets.delete("faces").await.unwrap_err();
    assert!(
        matches!(refused, Error::Store(store::Error::DatasetInUse { .. })),
        "{refused:?}"
    );
    let message = refused.to_string();
    assert!(
        message.contains("datasets/faces is in use by trainings/t"),
        "{message}"
    );
    let change = |training: &mut v1::Training| {
        training.set_state(v1::TrainingState::Cancelled);
        Ok::<_, store::Error>(store::Change::default())
    };
    fixture.store.update("t", change).await.unwrap();
    datasets.delete("faces").await.unwrap();
    let gone = fixture
        .store
        .insert_training(training("u", "datasets/faces"), None, 10)
        .await;
    assert!(
        matches!(gone, Err(store::Error::NotFound { .. })),
        "a deleted dataset cannot be trained on"
    );
}

#[tokio::test]
async fn dataset_that_ended_the_server_twice_fails_and_is_not_tried_again() {
    for (crashes, expected) in [(1, DatasetState::Ready), (2, DatasetState::Failed)] {
        let fixture = new().await;
        let (_, created) = fixture.uploaded_faces().await;
        let number = fixture.store.dataset("faces").await.unwrap().number;
        for before in 0..crashes {
            // Work that begins and never ends.
            assert_eq!(fixture.datasets.inner.layout.begin(number).unwrap(), before);
        }
        let dataset = fixture.done("faces").await;
        assert_eq!(dataset.state(), expected, "{dataset:?}");
        if expected == DatasetState::Failed {
            assert!(dataset.failure.contains("killed 2 times"), "{dataset:?}");
            assert!(!Path::new(&created.path).exists());
        }
        assert_eq!(fixture.datasets.inner.layout.begin(number).unwrap(), 0);
    }
}

#[tokio::test]
async fn uploaded_datasets_share_a_quota() {
    let mut options = OPTIONS;
    let archive = tar_of(&faces(
        &tempfile::tempdir().unwrap().path().join("faces"),
        12,
    ));
    options.max_dataset_bytes = archive.len() as u64;
    options.max_datasets = 2;
    let fixture = open_with(tempfile::tempdir().unwrap(), options).await;
    let create = async |id: &str| {
        let upload = fixture.upload(&archive).await;
        let created = fixture
            .datasets
            .create(id, Properties::default(), &upload, &Scope::All);
        created.await
    };
    create("one").await.unwrap();
    assert_eq!(fixture.done("one").await.state(), DatasetState::Ready);
    // The rest of the quota is too small.
    create("two").await.unwrap();
    let failed = fixture.done("two").await;
    assert!(failed.failure.contains("max_dataset_bytes"), "{failed:?}");
    let refused = create("three").await.unwrap_err();
    assert!(refused.to_string().contains("max_datasets"), "{refused}");
    fixture.datasets.delete("two").await.unwrap();
    fixture.datasets.delete("one").await.unwrap();
    create("three").await.unwrap();
    assert_eq!(fixture.done("three").await.state(), DatasetState::Ready);
}

#[tokio::test]
async fn nothing_is_uploaded_or_created_on_a_low_disk() {
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let mut options = OPTIONS;
    options.free = Some(Arc::clone(&free));
    let fixture = open_with(tempfile::tempdir().unwrap(), options).await;
    let archive = tar_of(&faces(&fixture.path("faces"), 12));
    let upload = fixture.upload(&archive).await;
    free.store(MIN_FREE, Ordering::Release);
    let refused = fixture.datasets.uploads().create(1, "client", "one").await;
    assert!(matches!(refused, Err(Error::DiskLow(_))), "{refused:?}");
    free.store(MIN_FREE - 1, Ordering::Release);
    let create = async || {
        let created = fixture
            .datasets
            .create("faces", Properties::default(), &upload, &Scope::All);
        created.await
    };
    let refused = create().await;
    assert!(matches!(refused, Err(Error::DiskLow(_))), "{refused:?}");
    free.store(MIN_FREE + 1, Ordering::Release);
    create().await.unwrap();
    assert_eq!(fixture.done("faces").await.state(), DatasetState::Ready);
}
