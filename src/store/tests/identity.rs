//! Databases that do not belong to the files beside them, older schemas, and reading without a
//! server.

use sqlx::migrate::Migrator;

use super::*;
use crate::store::verify::MIGRATOR;

/// Adds an artifact, without which a database beside no files is accepted.
fn add_artifact(data_dir: &Path) {
    let directory = data_dir.join("artifacts/sha256/ab");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("ab".repeat(32)), b"weights").unwrap();
}

async fn start_and_stop(data_dir: &Path) {
    let store = Store::open(data_dir).await.unwrap();
    store.mark_files().unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_older_copy_beside_newer_files_is_refused_until_it_is_adopted() {
    let directory = TempDir::new().unwrap();
    let data = directory.path();
    add_artifact(data);
    let missing = Store::open(data).await.unwrap_err();
    assert!(
        matches!(missing, Error::DatabaseMissing { .. }),
        "{missing}"
    );
    Store::adopt(data).await.unwrap().close().await.unwrap();
    start_and_stop(data).await;
    let old = fs::read(data.join("visage.db")).unwrap();
    start_and_stop(data).await;
    start_and_stop(data).await;

    fs::write(data.join("visage.db"), &old).unwrap();
    let before = contents_of_files(data);
    let refused = Store::open(data).await.unwrap_err();
    assert!(matches!(refused, Error::ForeignFiles { .. }), "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("older copy (start 2, the files are of start 4)"),
        "{text}"
    );
    assert_eq!(contents_of_files(data), before);

    let adopted = Store::adopt(data).await.unwrap();
    adopted.mark_files().unwrap();
    adopted.close().await.unwrap();
    start_and_stop(data).await;
}

/// The database and the mark.
fn contents_of_files(data: &Path) -> [Vec<u8>; 2] {
    ["visage.db", "artifacts/.store"].map(|name| fs::read(data.join(name)).unwrap())
}

#[tokio::test]
async fn files_of_another_database_are_refused() {
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for directory in [&one, &other] {
        fs::create_dir_all(directory.path().join("artifacts")).unwrap();
        start_and_stop(directory.path()).await;
        add_artifact(directory.path());
    }
    fs::copy(other.path().join("visage.db"), one.path().join("visage.db")).unwrap();
    let refused = Store::open(one.path()).await.unwrap_err();
    assert!(
        refused.to_string().contains("belong to another database"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_crash_before_the_files_are_marked_is_harmless() {
    let directory = TempDir::new().unwrap();
    add_artifact(directory.path());
    Store::adopt(directory.path())
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    start_and_stop(directory.path()).await;
    // The database counts the start, the files do not.
    Store::open(directory.path())
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    start_and_stop(directory.path()).await;
}

/// Creates a database with the schemas up to `last`.
async fn create_old(path: &Path, last: i64) {
    let known = MIGRATOR.iter().filter(|found| found.version <= last);
    let old = Migrator::with_migrations(known.cloned().collect());
    let mut database = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    old.run(&mut database).await.unwrap();
    sqlx::query("INSERT INTO models (id, last_version) VALUES ('age', 7)")
        .execute(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();
}

#[tokio::test]
async fn a_database_is_copied_before_its_migration() {
    for schema in 1..6 {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("visage.db");
        create_old(&path, schema).await;
        let copy = format!("visage.db.before-{}", schema + 1);
        fs::write(directory.path().join("visage.db.before-1"), b"earlier").unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let version: i64 = sqlx::query_scalar("SELECT last_version FROM models")
            .fetch_one(&store.inner.writer)
            .await
            .unwrap();
        assert_eq!(version, 7);
        store.close().await.unwrap();
        let names: Vec<String> = contents(directory.path()).into_keys().collect();
        assert_eq!(names, ["visage.db".to_owned(), copy.clone()]);

        // The copy is complete, of the old schema, and opens again.
        let mut kept = Snapshot::of_file(&directory.path().join(&copy))
            .await
            .unwrap();
        assert_eq!(kept.schema(), schema);
        assert_eq!(kept.problems().await.unwrap(), [""; 0]);
        kept.references().await.unwrap();
        kept.close().await.unwrap();
        // Without a migration nothing is copied.
        Store::open(directory.path())
            .await
            .unwrap()
            .close()
            .await
            .unwrap();
        assert!(directory.path().join(&copy).exists());
    }
}

#[tokio::test]
async fn trainings_and_request_ids_of_schema_5_have_no_owner() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("visage.db");
    create_old(&path, 5).await;
    let mut database = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&path)
        .connect()
        .await
        .unwrap();
    // A message with its name (field 1) only.
    let message = b"\x0a\x0btrainings/a".as_slice();
    sqlx::query("INSERT INTO trainings (number, id, state, last_sequence, message) VALUES (4, 'a', 1, 1, ?)")
        .bind(message)
        .execute(&mut database)
        .await
        .unwrap();
    sqlx::query("INSERT INTO request_ids (id, fingerprint, training, create_time) VALUES ('r', 'f', 4, 100)")
        .execute(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();

    let store = Store::open(directory.path()).await.unwrap();
    let request = |owner: &str| RequestId {
        owner: owner.to_owned(),
        id: "r".to_owned(),
        fingerprint: "f".to_owned(),
    };
    let found = store.requested_training(&request("")).await.unwrap();
    let found = found.unwrap();
    assert_eq!(
        (found.name.as_str(), found.owner.as_str()),
        ("trainings/a", "")
    );
    assert_eq!(
        store.requested_training(&request("ada")).await.unwrap(),
        None
    );
    // The times are kept: the id is older than 101, and not than 100.
    store.expire_request_ids(100).await.unwrap();
    assert!(
        store
            .requested_training(&request(""))
            .await
            .unwrap()
            .is_some()
    );
    store.expire_request_ids(101).await.unwrap();
    assert_eq!(store.requested_training(&request("")).await.unwrap(), None);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_database_is_read_beside_its_server_and_after_a_crash() {
    let (directory, store) = open().await;
    insert(&store, "a").await;
    append(&store, "a", vec![epoch(1), saved(1, true, "f1")]).await;
    let scratch = TempDir::new().unwrap();
    let expected = [Reference {
        sha256: "f1".to_owned(),
        owner: "trainings/a/checkpoints/1".to_owned(),
    }];

    let mut live = Snapshot::of_data_dir(directory.path(), scratch.path())
        .await
        .unwrap();
    assert!(live.is_live());
    assert_eq!(live.references().await.unwrap().artifacts, expected);
    // It copies the database as of now, while the server writes.
    append(&store, "a", vec![epoch(2), saved(2, true, "f2")]).await;
    let copy = scratch.path().join("copy.db");
    live.copy_to(&copy).await.unwrap();
    live.close().await.unwrap();
    let mut copied = Snapshot::of_file(&copy).await.unwrap();
    assert!(!copied.is_live());
    assert_eq!(copied.references().await.unwrap().artifacts.len(), 2);

    // The log of a crash is read, and nothing in the directory changes.
    let crashed = crash_copy(directory.path());
    let before = contents(crashed.path());
    let scratch = TempDir::new().unwrap();
    let mut stopped = Snapshot::of_data_dir(crashed.path(), scratch.path())
        .await
        .unwrap();
    assert!(!stopped.is_live());
    assert_eq!(stopped.references().await.unwrap().artifacts.len(), 2);
    stopped.close().await.unwrap();
    assert_eq!(contents(crashed.path()), before);

    let nothing = TempDir::new().unwrap();
    let missing = Snapshot::of_data_dir(nothing.path(), scratch.path()).await;
    assert!(matches!(missing, Err(Error::NoDatabase { .. })));
}

#[tokio::test]
async fn a_new_data_directory_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = TempDir::new().unwrap();
    let data = parent.path().join("a/data");
    let store = Store::open(&data).await.unwrap();
    let mode = fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    store.close().await.unwrap();
}
