//! The log of events and those who follow it.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn sequences_are_dense_while_tasks_append_to_several_trainings() {
    let (_directory, store) = open().await;
    for id in ["a", "b", "c"] {
        insert(&store, id).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for id in ["a", "b", "c"] {
        for task in 0..4 {
            let store = store.clone();
            tasks.spawn(async move {
                for n in 0..10 {
                    append(&store, id, vec![epoch(task * 10 + n), epoch(0)]).await;
                }
            });
        }
    }
    tasks.join_all().await;

    let expected: Vec<u64> = (1..=81).collect();
    for id in ["a", "b", "c"] {
        let events = store.events_after(id, 0, 1000).await.unwrap().items;
        assert_eq!(sequences(&events), expected);
        assert_eq!(store.head(id).await.unwrap(), 81);
        assert_eq!(store.training(id).await.unwrap().last_sequence, 81);
    }
    let all = store.events_after_global(0, 1000).await.unwrap().items;
    let cursors: Vec<i64> = all
        .iter()
        .map(|event| parse_token(&event.resume_token).unwrap())
        .collect();
    assert_eq!(cursors, (1..=243).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_each_event_once_and_in_order() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    append(&store, "a", vec![epoch(1)]).await;
    let follower = tokio::spawn({
        let store = store.clone();
        async move {
            let mut seen = Vec::new();
            let mut wake = None;
            loop {
                let last = seen.last().copied().unwrap_or(0);
                let batch = store.events_after("a", last, 3).await.unwrap().items;
                seen.extend(sequences(&batch));
                if seen.last() == Some(&202) {
                    return seen;
                }
                if !batch.is_empty() {
                    continue;
                }
                // At the head: subscribe, then read again before the first wait.
                match &mut wake {
                    None => wake = Some(store.subscribe()),
                    Some(wake) => wake.changed().await.unwrap(),
                }
            }
        }
    });
    for n in 0..200 {
        append(&store, "a", vec![epoch(n)]).await;
    }
    let seen = timeout(PATIENCE, follower).await.unwrap().unwrap();
    assert_eq!(seen, (1..=202).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_write_is_finished_and_told_when_its_caller_has_left() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    let mut wake = store.subscribe();
    {
        let mut abandoned = std::pin::pin!(append(&store, "a", vec![epoch(1)]));
        assert!(futures_util::poll!(abandoned.as_mut()).is_pending());
    }
    timeout(PATIENCE, wake.changed()).await.unwrap().unwrap();
    assert_eq!(*wake.borrow(), 2);
    assert_eq!(store.head("a").await.unwrap(), 2);
}

#[tokio::test]
async fn cursors_past_the_head_are_refused() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    insert(&store, "b").await;
    append(&store, "a", vec![epoch(1)]).await;

    assert_eq!(store.events_after("a", 2, 10).await.unwrap().items, []);
    for cursor in [3, u64::MAX] {
        let refused = store.events_after("a", cursor, 10).await;
        assert!(matches!(refused, Err(Error::CursorAhead { head: 2, cursor: c }) if c == cursor));
    }
    assert_eq!(store.global_head().await.unwrap(), 3);
    assert_eq!(store.events_after_global(3, 10).await.unwrap().items, []);
    let refused = store.events_after_global(4, 10).await;
    assert!(matches!(refused, Err(Error::CursorAhead { head: 3, .. })));
    assert!(matches!(
        store.events_after("x", 0, 10).await,
        Err(Error::NotFound { .. })
    ));

    // Global cursor 2 is b's first event, 1 and 3 are a's.
    assert_eq!(store.sequence_at("a", 2).await.unwrap(), 1);
    assert_eq!(store.sequence_at("a", 3).await.unwrap(), 2);
    assert_eq!(store.sequence_at("b", 1).await.unwrap(), 0);
}

#[test]
fn tokens_are_base64url_of_a_version_and_the_cursor() {
    // Bytes 01 00 00 00 00 00 00 00 01, in base64 by hand.
    assert_eq!(encode_token(1), "AQAAAAAAAAAB");
    assert_eq!(parse_token("AQAAAAAAAAAB").unwrap(), 1);
    assert_eq!(parse_token(&encode_token(i64::MAX)).unwrap(), i64::MAX);
    for bad in [
        "",
        "AQ",
        "AgAAAAAAAAAB",
        "AQAAAAAAAAAB=",
        "AQAAAAAAAAABAA",
        "Af__________",
        "é",
    ] {
        assert!(
            matches!(parse_token(bad), Err(Error::BadToken { .. })),
            "{bad}"
        );
    }
}
