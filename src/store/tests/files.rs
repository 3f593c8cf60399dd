//! Opening, closing, crashes, damage and full disks.

use super::*;

#[tokio::test]
async fn reopening_keeps_everything() {
    let (directory, store) = open().await;
    insert(&store, "a").await;
    append(&store, "a", vec![epoch(1), saved(1, true, "f1")]).await;
    publish(&store, "a", Promotion::Always, None).await;
    let before = (
        store.training("a").await.unwrap(),
        store.events_after("a", 0, 100).await.unwrap(),
        store.checkpoint("a", CheckpointRef::Best).await.unwrap(),
        store.list_versions("age", None, 10).await.unwrap(),
        store.alias_events("age", None, 10).await.unwrap(),
        *store.subscribe().borrow(),
        *store.subscribe_aliases().borrow(),
    );
    store.close().await.unwrap();
    assert!(matches!(store.training("a").await, Err(Error::Closed)));
    assert_eq!(
        contents(directory.path()).into_keys().collect::<Vec<_>>(),
        ["visage.db"],
        "closing folds the log into the database"
    );

    let store = Store::open(directory.path()).await.unwrap();
    let after = (
        store.training("a").await.unwrap(),
        store.events_after("a", 0, 100).await.unwrap(),
        store.checkpoint("a", CheckpointRef::Best).await.unwrap(),
        store.list_versions("age", None, 10).await.unwrap(),
        store.alias_events("age", None, 10).await.unwrap(),
        *store.subscribe().borrow(),
        *store.subscribe_aliases().borrow(),
    );
    assert_eq!(before, after);
    assert_eq!(after.5, 6);
}

#[tokio::test]
async fn a_crash_loses_no_committed_event() {
    let (directory, store) = open().await;
    insert(&store, "a").await;
    for n in 1..=20 {
        append(&store, "a", vec![epoch(n)]).await;
        let copy = crash_copy(directory.path());
        let survivor = Store::open(copy.path()).await.unwrap();
        let head = u64::from(n) + 1;
        assert_eq!(survivor.head("a").await.unwrap(), head);
        let events = survivor.events_after("a", 0, 100).await.unwrap().items;
        assert_eq!(sequences(&events), (1..=head).collect::<Vec<u64>>());
        survivor.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_second_server_in_the_directory_is_refused() {
    let (directory, store) = open().await;
    let second = Store::open(directory.path()).await;
    let error = second.unwrap_err();
    assert!(matches!(&error, Error::Locked { directory: f } if f == directory.path()));
    assert!(
        error
            .to_string()
            .contains(directory.path().to_str().unwrap())
    );
    store.close().await.unwrap();
    Store::open(directory.path()).await.unwrap();
}

/// Adds a schema version that is unknown to this binary.
async fn make_newer(store: &Store) {
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9000, 'later', 1, x'00', 0)",
    )
    .execute(&store.inner.writer)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_as_it_is() {
    let (directory, store) = open().await;
    insert(&store, "a").await;
    make_newer(&store).await;
    store.close().await.unwrap();
    let before = contents(directory.path());
    let refused = Store::open(directory.path()).await;
    assert!(matches!(
        refused,
        Err(Error::NewerDatabase {
            found: 9000,
            known: 6,
            ..
        })
    ));
    assert_eq!(contents(directory.path()), before);
}

#[tokio::test]
async fn a_newer_database_that_crashed_is_refused_and_left_as_it_is() {
    let (directory, store) = open().await;
    insert(&store, "a").await;
    // It stands in the write-ahead log only.
    make_newer(&store).await;
    let copy = crash_copy(directory.path());
    let before = contents(copy.path());
    let refused = Store::open(copy.path()).await;
    assert!(matches!(
        refused,
        Err(Error::NewerDatabase { found: 9000, .. })
    ));
    let mut after = contents(copy.path());
    // SQLite's index of the log, which holds nothing that is not in the log.
    after.remove("visage.db-shm");
    assert_eq!(after, before);
}

#[tokio::test]
async fn foreign_files_are_refused_and_left_as_they_are() {
    let not_sqlite = b"a diary, longer than sixteen bytes".to_vec();
    let cases = [Vec::new(), b"short".to_vec(), not_sqlite];
    for content in cases {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("visage.db"), &content).unwrap();
        let refused = Store::open(directory.path()).await;
        assert!(matches!(refused, Err(Error::ForeignDatabase { .. })));
        assert_eq!(
            contents(directory.path()),
            BTreeMap::from([("visage.db".to_owned(), content)])
        );
    }

    let directory = TempDir::new().unwrap();
    let mut other = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(directory.path().join("visage.db"))
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    sqlx::query("CREATE TABLE bookmarks (url TEXT)")
        .execute(&mut other)
        .await
        .unwrap();
    other.close().await.unwrap();
    let before = contents(directory.path());
    let refused = Store::open(directory.path()).await;
    assert!(matches!(refused, Err(Error::ForeignDatabase { .. })));
    assert_eq!(contents(directory.path()), before);
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_left_as_it_is() {
    let (directory, store) = open().await;
    for n in 0..50 {
        insert(&store, &format!("t{n}")).await;
    }
    store.close().await.unwrap();
    let path = directory.path().join("visage.db");
    let sound = fs::read(&path).unwrap();
    let page = 4096;

    let mut scribbled = sound.clone();
    scribbled[page..].fill(0x5a);
    let cut = sound[..sound.len() / 2].to_vec();
    for damaged in [scribbled, cut] {
        fs::write(&path, &damaged).unwrap();
        let refused = Store::open(directory.path()).await;
        assert!(
            matches!(refused, Err(Error::CorruptDatabase { .. })),
            "{refused:?}"
        );
        assert_eq!(
            contents(directory.path()),
            BTreeMap::from([("visage.db".to_owned(), damaged)])
        );
    }
    fs::write(&path, &sound).unwrap();
    Store::open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn what_a_crash_left_while_the_database_was_made_is_replaced() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("visage.db.new"), b"half").unwrap();
    fs::write(directory.path().join("visage.db.new-wal"), b"half").unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    insert(&store, "a").await;
    store.close().await.unwrap();
    assert_eq!(
        contents(directory.path()).into_keys().collect::<Vec<_>>(),
        ["visage.db"]
    );
}

#[tokio::test]
async fn a_full_disk_is_told_as_such_and_leaves_nothing_half_written() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    // SQLite reports a full database as it reports a full disk.
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(&store.inner.writer)
        .await
        .unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "PRAGMA max_page_count = {pages}"
    )))
    .execute(&store.inner.writer)
    .await
    .unwrap();
    let before = store.training("a").await.unwrap();
    let large = pb::DatasetReport {
        warnings: vec!["x".repeat(100_000)],
        ..Default::default()
    };
    let decide = move |training: &mut pb::Training| {
        training.set_state(TrainingState::Running);
        Ok::<_, Error>(events(vec![epoch(1), Kind::DatasetScanned(large)]))
    };
    let refused = store.update("a", decide.clone()).await;
    assert!(
        matches!(refused, Err(Error::DiskFull { .. })),
        "{refused:?}"
    );
    assert_eq!(store.training("a").await.unwrap(), before);
    assert_eq!(store.head("a").await.unwrap(), 1);

    // The limit ended with the connection, as a full disk ends when space is freed.
    let applied = store.update("a", decide).await.unwrap();
    assert_eq!(sequences(&applied.events), [2, 3, 4]);
}
