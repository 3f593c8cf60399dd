//! Model versions and aliases.

use super::*;

#[tokio::test]
async fn aliases_move_with_a_history() {
    let (_directory, store) = open().await;
    for _ in 0..3 {
        store
            .register_version("age", pb::ModelVersion::default())
            .await
            .unwrap();
    }
    let other = store
        .register_version("other", pb::ModelVersion::default())
        .await
        .unwrap();
    assert_eq!(other.name, "models/other/versions/1");
    let mut wake = store.subscribe_aliases();

    store.set_alias("age", "live", 1, Some(0)).await.unwrap();
    assert_eq!(*wake.borrow_and_update(), 1);
    store.set_alias("age", "live", 1, None).await.unwrap();
    assert!(!wake.has_changed().unwrap(), "nothing moved");
    let moved = store.set_alias("age", "live", 2, Some(3)).await;
    assert!(matches!(
        moved,
        Err(Error::AliasMoved {
            found: 1,
            expected: 3,
            ..
        })
    ));
    let (version, from) = store.set_alias("age", "live", 3, Some(1)).await.unwrap();
    assert_eq!((version.aliases, from), (vec!["live".to_owned()], 1));
    // Back to what was served before.
    let (version, from) = store.set_alias("age", "live", 1, None).await.unwrap();
    assert_eq!(
        (version.version, version.aliases, from),
        (1, vec!["live".to_owned()], 3)
    );
    assert_eq!(
        store.aliases("age").await.unwrap(),
        BTreeMap::from([("live".to_owned(), 1), ("previous".to_owned(), 3)])
    );
    store.delete_alias("age", "live").await.unwrap();
    assert!(matches!(
        store.delete_alias("age", "live").await,
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        store.set_alias("age", "live", 9, None).await,
        Err(Error::NotFound { .. })
    ));
    let missing = store
        .version("age", &VersionRef::Alias("live".to_owned()))
        .await;
    assert!(
        matches!(missing, Err(Error::NotFound { name, .. }) if name == "models/age/versions/live")
    );
    let missing = store.version("age", &VersionRef::Number(u64::MAX)).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })));

    let first = store.alias_events("age", None, 4).await.unwrap();
    let second = store.alias_events("age", first.next, 4).await.unwrap();
    let history: Vec<(String, u64, u64, String)> = first
        .items
        .into_iter()
        .chain(second.items)
        .map(|e| (e.alias, e.from_version, e.to_version, e.cause))
        .collect();
    let row = |alias: &str, from, to, cause: &str| (alias.to_owned(), from, to, cause.to_owned());
    assert_eq!(
        history,
        [
            row("previous", 3, 1, "delete"),
            row("live", 1, 0, "delete"),
            row("previous", 1, 3, "set"),
            row("live", 3, 1, "set"),
            row("previous", 0, 1, "set"),
            row("live", 1, 3, "set"),
            row("live", 0, 1, "set"),
        ]
    );
    assert_eq!(
        store.alias_events("other", None, 4).await.unwrap().items,
        []
    );
}

#[tokio::test]
async fn a_first_version_is_live_and_never_takes_the_place_of_another() {
    let (_directory, store) = open().await;
    let first = || store.register_first("age", pb::ModelVersion::default(), "starter");
    assert!(!store.has_versions("age").await.unwrap());
    let mut moved = store.subscribe_aliases();
    let version = first().await.unwrap().unwrap();
    assert_eq!(version.name, "models/age/versions/1");
    assert_eq!(version.aliases, ["live"]);
    assert!(moved.has_changed().unwrap());
    moved.mark_unchanged();
    assert_eq!(first().await.unwrap(), None);
    // Not even where nothing is live.
    store.delete_alias("age", "live").await.unwrap();
    assert_eq!(first().await.unwrap(), None);
    assert_eq!(store.count_versions().await.unwrap(), 1);
    let history = store.alias_events("age", None, 9).await.unwrap().items;
    let oldest = history.last().unwrap();
    assert_eq!(
        (
            oldest.alias.as_str(),
            oldest.to_version,
            oldest.cause.as_str()
        ),
        ("live", 1, "starter")
    );
    // Another model's versions do not count.
    let other = store.register_first("other", pb::ModelVersion::default(), "starter");
    assert_eq!(
        other.await.unwrap().unwrap().name,
        "models/other/versions/1"
    );
}

#[tokio::test]
async fn deleting_and_setting_live_again_loses_no_previous_version() {
    let (_directory, store) = open().await;
    for _ in 0..4 {
        store
            .register_version("age", pb::ModelVersion::default())
            .await
            .unwrap();
    }
    let aliases = async || {
        let aliases = store.aliases("age").await.unwrap();
        let of = |alias: &str| aliases.get(alias).copied();
        (of("live"), of("previous"))
    };
    let set = async |number| store.set_alias("age", "live", number, None).await.unwrap();
    set(4).await;
    set(1).await;
    assert_eq!(aliases().await, (Some(1), Some(4)));
    for (next, expected) in [
        (1, (Some(1), Some(4))),
        // A roll-back.
        (4, (Some(4), Some(1))),
        (2, (Some(2), Some(4))),
    ] {
        store.delete_alias("age", "live").await.unwrap();
        assert_eq!(set(next).await.1, 0, "nothing was live");
        assert_eq!(aliases().await, expected);
    }
    // The version before was deleted meanwhile.
    store.delete_alias("age", "live").await.unwrap();
    assert_eq!(aliases().await, (None, Some(2)));
    store.delete_version("age", 4).await.unwrap();
    set(2).await;
    assert_eq!(aliases().await, (Some(2), None));
}

#[tokio::test]
async fn version_numbers_are_not_given_twice() {
    let (_directory, store) = open().await;
    for _ in 0..2 {
        store
            .register_version("age", pb::ModelVersion::default())
            .await
            .unwrap();
    }
    sqlx::query("DELETE FROM versions WHERE number = 2")
        .execute(&store.inner.writer)
        .await
        .unwrap();
    let next = store
        .register_version("age", pb::ModelVersion::default())
        .await
        .unwrap();
    assert_eq!(next.version, 3);
    let page = store.list_versions("age", None, 1).await.unwrap();
    assert_eq!((page.items[0].version, page.next), (3, Some(3)));
    let page = store.list_versions("age", page.next, 1).await.unwrap();
    assert_eq!((page.items[0].version, page.next), (1, None));
    assert_eq!(
        store.list_versions("none", None, 1).await.unwrap().items,
        []
    );
}

#[tokio::test]
async fn version_numbers_are_listed_for_one_model_and_for_all() {
    let (_directory, store) = open().await;
    for model in ["face", "age", "face"] {
        store
            .register_version(model, pb::ModelVersion::default())
            .await
            .unwrap();
    }
    let expected =
        [("age", 1), ("face", 1), ("face", 2)].map(|(model, number)| (model.to_owned(), number));
    assert_eq!(store.version_numbers(None).await.unwrap(), expected);
    let of_face = store.version_numbers(Some("face")).await.unwrap();
    assert_eq!(of_face, expected[1..]);
    assert_eq!(store.version_numbers(Some("none")).await.unwrap(), []);
}
