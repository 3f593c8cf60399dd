//! Deletion of versions, and the space that trainings and versions use.

use super::*;

fn file(sha256: &str, size_bytes: u64) -> pb::CheckpointFile {
    pb::CheckpointFile {
        name: "model.safetensors".to_owned(),
        size_bytes,
        sha256: sha256.to_owned(),
    }
}

fn checkpoint(epoch: u32, best: bool, files: &[pb::CheckpointFile]) -> Kind {
    Kind::CheckpointSaved(pb::Checkpoint {
        epoch,
        best,
        files: files.to_vec(),
        ..Default::default()
    })
}

async fn register(store: &Store, files: &[pb::CheckpointFile]) -> pb::ModelVersion {
    let version = pb::ModelVersion {
        files: files.to_vec(),
        ..Default::default()
    };
    store.register_version("age", version).await.unwrap()
}

#[tokio::test]
async fn a_version_is_deleted_unless_something_uses_it() {
    let (_directory, store) = open().await;
    let (weights, manifest) = (file("w", 10), file("m", 1));
    register(&store, &[weights.clone(), manifest.clone()]).await;
    register(&store, &[weights.clone(), file("n", 1)]).await;
    let mut count = store.subscribe_versions();
    count.mark_unchanged();
    for alias in ["live", "best"] {
        store.set_alias("age", alias, 1, None).await.unwrap();
    }
    let refused = store.delete_version("age", 1).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "models/age/versions/1 is in use by the aliases best, live; point them to another version, or delete them, before deleting the version"
    );
    store.delete_alias("age", "best").await.unwrap();
    let refused = store.delete_version("age", 1).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "models/age/versions/1 is in use by the alias live; point it to another version, or delete it, before deleting the version"
    );
    store.set_alias("age", "live", 2, None).await.unwrap();
    // A roll-back stays possible.
    let refused = store.delete_version("age", 1).await;
    assert!(
        matches!(refused, Err(Error::VersionHasAlias { aliases, .. }) if aliases == ["previous"])
    );
    store.delete_alias("age", "previous").await.unwrap();

    let starts_from = pb::Training {
        resolved_spec: Some(pb::TrainingSpec {
            init: Some(pb::InitSpec {
                version: "models/age/versions/1".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..named("child")
    };
    store.insert_training(starts_from, None, 9).await.unwrap();
    let refused = store.delete_version("age", 1).await;
    assert!(
        matches!(refused, Err(Error::VersionStartsTraining { training, .. }) if training == "trainings/child")
    );
    become_state(&store, "child", TrainingState::Cancelled)
        .await
        .unwrap();
    assert!(!count.has_changed().unwrap(), "nothing was deleted");

    let deleted = store.delete_version("age", 1).await.unwrap();
    assert_eq!(deleted.version.files, [weights, manifest]);
    // The other version has the same weights.
    assert_eq!(deleted.only_here, ["m"]);
    assert_eq!(deleted.unreferenced, ["m"]);
    assert_eq!(*count.borrow_and_update(), 1);
    let again = store.delete_version("age", 1).await;
    assert!(matches!(again, Err(Error::NotFound { name, .. }) if name == "models/age/versions/1"));
    assert_eq!(
        register(&store, &[]).await.version,
        3,
        "1 is not used again"
    );
    assert_eq!(store.version_numbers(None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_deleted_newest_version_keeps_its_number() {
    let (_directory, store) = open().await;
    register(&store, &[]).await;
    store.delete_version("age", 1).await.unwrap();
    assert_eq!(register(&store, &[]).await.version, 2);
}

#[tokio::test]
async fn a_training_shows_the_bytes_that_its_deletion_frees() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    insert(&store, "b").await;
    let bytes = async |id: &str| store.training(id).await.unwrap().checkpoint_bytes;
    let (kept, shared, own) = (file("kept", 100), file("shared", 20), file("own", 3));
    let kinds = vec![
        checkpoint(1, false, std::slice::from_ref(&shared)),
        // The same file twice in one training.
        checkpoint(2, false, std::slice::from_ref(&own)),
        checkpoint(3, true, &[kept.clone(), own.clone()]),
    ];
    append(&store, "a", kinds).await;
    assert_eq!(bytes("a").await, 123);
    assert_eq!(store.artifact_bytes().await.unwrap(), 123);
    append(&store, "b", vec![checkpoint(1, true, &[shared])]).await;
    assert_eq!((bytes("a").await, bytes("b").await), (103, 0));
    register(&store, std::slice::from_ref(&kept)).await;
    assert_eq!(bytes("a").await, 3);
    assert_eq!(store.artifact_bytes().await.unwrap(), 123);
    let listed = store
        .list_trainings(&TrainingFilter::default(), None, 9)
        .await;
    let listed = listed.unwrap().items;
    assert_eq!(listed[1].checkpoint_bytes, 3);

    become_state(&store, "a", TrainingState::Cancelled)
        .await
        .unwrap();
    assert_eq!(store.delete_training("a").await.unwrap(), ["own"]);
    assert_eq!(bytes("b").await, 20);
    let deleted = store.delete_version("age", 1).await.unwrap();
    assert_eq!(deleted.unreferenced, ["kept"]);
    assert_eq!(store.artifact_bytes().await.unwrap(), 20);
}

#[tokio::test]
async fn the_columns_of_an_older_database_are_filled_once() {
    let (directory, store) = open().await;
    let training = pb::Training {
        labels: BTreeMap::from([("owner".to_owned(), "ann".to_owned())]),
        ..named("a")
    };
    store.insert_training(training, None, 9).await.unwrap();
    append(&store, "a", vec![checkpoint(1, true, &[file("w", 7)])]).await;
    register(&store, &[file("v", 50)]).await;
    // The rows as the older schema had them.
    for statement in [
        "DELETE FROM training_labels",
        "UPDATE checkpoint_files SET size_bytes = 0",
        "UPDATE version_files SET size_bytes = 0",
        "INSERT INTO backfills (name) VALUES ('labels_and_sizes')",
    ] {
        sqlx::query(statement)
            .execute(&store.inner.writer)
            .await
            .unwrap();
    }
    store.close().await.unwrap();
    for _ in 0..2 {
        let store = Store::open(directory.path()).await.unwrap();
        let filter = TrainingFilter {
            labels: BTreeMap::from([("owner".to_owned(), "ann".to_owned())]),
            ..Default::default()
        };
        let page = store.list_trainings(&filter, None, 9).await.unwrap();
        assert_eq!(page.items.len(), 1);
        assert_eq!(page.items[0].checkpoint_bytes, 7);
        assert_eq!(store.artifact_bytes().await.unwrap(), 57);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_starter_is_registered_once_and_live_only_if_nothing_is() {
    let (_directory, store) = open().await;
    let starter = || {
        let version = pb::ModelVersion {
            files: vec![file("s", 9)],
            origin: pb::VersionOrigin::Starter.into(),
            ..Default::default()
        };
        store.register_starter("age", version, "starter")
    };
    let first = starter().await.unwrap();
    assert_eq!((first.version, first.aliases), (1, vec!["live".to_owned()]));
    let other = register(&store, &[file("w", 10)]).await;
    store
        .set_alias("age", "live", other.version, None)
        .await
        .unwrap();
    let again = starter().await.unwrap();
    assert_eq!(
        (again.version, again.aliases),
        (1, vec!["previous".to_owned()])
    );
    store.delete_alias("age", "live").await.unwrap();
    store.delete_alias("age", "previous").await.unwrap();
    let again = starter().await.unwrap();
    assert_eq!((again.version, again.aliases), (1, vec!["live".to_owned()]));
    assert_eq!(store.version_numbers(None).await.unwrap().len(), 2);
    // A version of a training with the same weights is not the starter.
    let (_directory, other) = open().await;
    register(&other, &[file("s", 9)]).await;
    let version = pb::ModelVersion {
        files: vec![file("s", 9)],
        origin: pb::VersionOrigin::Starter.into(),
        ..Default::default()
    };
    let registered = other.register_starter("age", version, "starter").await;
    assert_eq!(registered.unwrap().version, 2);
}
