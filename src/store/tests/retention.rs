//! Deletion of old rows.

use super::*;

const LATER: i64 = i64::MAX / 2;

#[tokio::test]
async fn events_of_ended_trainings_only_are_deleted_except_the_last() {
    let (_directory, store) = open().await;
    for id in ["ended", "running"] {
        insert(&store, id).await;
        append(&store, id, (1..=700).map(epoch).collect()).await;
    }
    become_state(&store, "ended", TrainingState::Cancelled)
        .await
        .unwrap();
    let head = store.head("ended").await.unwrap();
    let mut batches = 1;
    while store.expire_events("ended").await.unwrap() {
        batches += 1;
    }
    assert_eq!(batches, 2);
    let left = store.events_after("ended", 0, 1000).await.unwrap().items;
    assert_eq!(sequences(&left), [head]);
    assert_eq!(store.head("ended").await.unwrap(), head);

    assert!(!store.expire_events("running").await.unwrap());
    let kept = store.events_after("running", 0, 1000).await.unwrap().items;
    assert_eq!(kept.len(), 701);
    assert!(!store.expire_events("missing").await.unwrap());
}

#[tokio::test]
async fn request_ids_expire() {
    let (_directory, store) = open().await;
    let request = RequestId {
        owner: String::new(),
        id: "r".to_owned(),
        fingerprint: "f".to_owned(),
    };
    store
        .insert_training(named("a"), Some(request.clone()), 10)
        .await
        .unwrap();
    store.expire_request_ids(0).await.unwrap();
    assert!(store.requested_training(&request).await.unwrap().is_some());
    store.expire_request_ids(LATER).await.unwrap();
    assert_eq!(store.requested_training(&request).await.unwrap(), None);
    store.training("a").await.unwrap();
}

#[tokio::test]
async fn the_last_alias_events_of_a_model_are_kept() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    publish(&store, "a", Promotion::Always, None).await;
    for _ in 0..65 {
        store.set_alias("age", "best", 1, None).await.unwrap();
        store.delete_alias("age", "best").await.unwrap();
    }
    let count = async || {
        store
            .alias_events("age", None, 1000)
            .await
            .unwrap()
            .items
            .len()
    };
    let all = count().await;
    assert!(all > 130, "{all}");
    store.expire_alias_events(0).await.unwrap();
    assert_eq!(count().await, all);
    while store.expire_alias_events(LATER).await.unwrap() {}
    assert_eq!(count().await, 100);
}
