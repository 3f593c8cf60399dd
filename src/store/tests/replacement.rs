//! The id of a training that never started is free again.

use super::*;

fn request(id: &str) -> Option<RequestId> {
    Some(RequestId {
        owner: String::new(),
        id: id.to_owned(),
        fingerprint: "x".to_owned(),
    })
}

#[tokio::test]
async fn a_training_that_never_started_is_replaced() {
    let (_directory, store) = open().await;
    for end in [TrainingState::Failed, TrainingState::Cancelled] {
        store
            .insert_training(named("a"), request(end.as_str_name()), 9)
            .await
            .unwrap();
        become_state(&store, "a", TrainingState::Preparing)
            .await
            .unwrap();
        let scanned = Kind::DatasetScanned(pb::DatasetReport::default());
        append(&store, "a", vec![scanned]).await;
        become_state(&store, "a", end).await.unwrap();
        let number = store.training_number("a").await.unwrap();
        let cursor = store.global_head().await.unwrap();

        store.check_insertable("a", "", 9).await.unwrap();
        let again = pb::Training {
            display_name: "again".to_owned(),
            ..named("a")
        };
        let inserted = store.insert_training(again, None, 9).await.unwrap();
        let Inserted::Replaced(training) = inserted else {
            panic!("expected a replacement, got {inserted:?}");
        };
        assert_eq!(
            (training.state(), training.last_sequence, training.attempt),
            (TrainingState::Queued, 1, 0)
        );
        assert_eq!(store.training("a").await.unwrap().display_name, "again");
        // Only the events of the new training, from sequence 1 and after all earlier cursors.
        let events = store.events_after("a", 0, 9).await.unwrap().items;
        assert_eq!(sequences(&events), [1]);
        assert_eq!(events[0].resume_token, encode_token(cursor + 1));
        assert_eq!(store.sequence_at("a", cursor).await.unwrap(), 0);
        assert_ne!(store.training_number("a").await.unwrap(), number);
        // The request of the old training is forgotten with it.
        let old = request(end.as_str_name()).unwrap();
        assert_eq!(store.requested_training(&old).await.unwrap(), None);
        become_state(&store, "a", TrainingState::Cancelled)
            .await
            .unwrap();
        store.delete_training("a").await.unwrap();
    }
}

#[tokio::test]
async fn a_training_that_has_trained_or_that_is_live_keeps_its_id() {
    let (_directory, store) = open().await;
    let taken = async |id: &str| {
        let checked = store.check_insertable(id, "", 9).await;
        assert!(matches!(checked, Err(Error::AlreadyExists { .. })), "{id}");
        let inserted = store.insert_training(named(id), None, 9).await;
        assert!(matches!(inserted, Err(Error::AlreadyExists { .. })), "{id}");
    };
    insert(&store, "queued").await;
    taken("queued").await;
    become_state(&store, "queued", TrainingState::Preparing)
        .await
        .unwrap();
    taken("queued").await;

    // It failed within its first epoch.
    insert(&store, "began").await;
    become_state(&store, "began", TrainingState::Running)
        .await
        .unwrap();
    become_state(&store, "began", TrainingState::Failed)
        .await
        .unwrap();
    taken("began").await;

    // Its only epoch was to be repeated when it was cancelled.
    insert(&store, "rewound").await;
    append(&store, "rewound", vec![epoch(1)]).await;
    become_state(&store, "rewound", TrainingState::Cancelled)
        .await
        .unwrap();
    taken("rewound").await;
}

#[tokio::test]
async fn a_training_that_never_started_is_replaced_by_its_owner_only() {
    let owned = |owner: &str| pb::Training {
        owner: owner.to_owned(),
        ..named("a")
    };
    // Old and new owner; without authentication the owner is empty.
    let cases = [
        ("ada", "ada", true),
        ("", "ada", true),
        ("ada", "", true),
        ("ada", "eve", false),
    ];
    for (old, new, is_replaced) in cases {
        let (_directory, store) = open().await;
        store.insert_training(owned(old), None, 9).await.unwrap();
        // The owner is the store's, like the name.
        let changed = store.update("a", |training| {
            training.owner = "mallory".to_owned();
            training.set_state(TrainingState::Failed);
            Ok::<_, Error>(Change::default())
        });
        assert_eq!(changed.await.unwrap().training.owner, old);
        let checked = store.check_insertable("a", new, 9).await;
        let inserted = store.insert_training(owned(new), None, 9).await;
        if is_replaced {
            checked.unwrap();
            assert!(matches!(inserted, Ok(Inserted::Replaced(training)) if training.owner == new));
        } else {
            assert!(matches!(checked, Err(Error::AlreadyExists { .. })));
            assert!(matches!(inserted, Err(Error::AlreadyExists { .. })));
            assert_eq!(store.training("a").await.unwrap().owner, old);
        }
    }
}

#[tokio::test]
async fn a_full_queue_keeps_the_old_training() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    become_state(&store, "a", TrainingState::Failed)
        .await
        .unwrap();
    insert(&store, "other").await;
    let refused = store.insert_training(named("a"), None, 1).await;
    assert!(matches!(refused, Err(Error::QueueFull { limit: 1 })));
    let kept = store.training("a").await.unwrap();
    assert_eq!(kept.state(), TrainingState::Failed);
}
