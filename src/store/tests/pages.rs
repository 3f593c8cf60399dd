//! Pages of lists whose items are large.

use prost::Message;

use super::*;
use crate::store::page::MAX_PAGE_BYTES;

/// Largest message in bytes that a gRPC client accepts by default.
const CLIENT_LIMIT: usize = 4 << 20;

fn large(id: &str, bytes: usize) -> pb::Training {
    pb::Training {
        display_name: "x".repeat(bytes),
        ..named(id)
    }
}

#[tokio::test]
async fn pages_of_large_items_are_cut_by_bytes_and_have_every_item_once() {
    let (_directory, store) = open().await;
    for n in 0..60 {
        let training = large(&format!("t{n:02}"), 200_000);
        store.insert_training(training, None, 1000).await.unwrap();
    }
    let (mut seen, mut before, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store
            .list_trainings(&TrainingFilter::default(), before, 1000)
            .await
            .unwrap();
        let response = pb::ListTrainingsResponse {
            trainings: page.items,
            ..Default::default()
        };
        assert!(response.encoded_len() < CLIENT_LIMIT);
        seen.extend(response.trainings.into_iter().map(|training| training.name));
        pages += 1;
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..60)
        .rev()
        .map(|n| format!("trainings/t{n:02}"))
        .collect();
    assert_eq!(seen, expected);
    // 15 of 200,000 bytes and their names fit into 3 MiB.
    assert_eq!(pages, 4);
}

#[tokio::test]
async fn an_item_larger_than_a_page_is_a_page_of_its_own() {
    let (_directory, store) = open().await;
    for (id, bytes) in [("a", 10), ("b", MAX_PAGE_BYTES + 1), ("c", 10)] {
        store
            .insert_training(large(id, bytes), None, 1000)
            .await
            .unwrap();
    }
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let page = store
            .list_trainings(&TrainingFilter::default(), before, 1000)
            .await
            .unwrap();
        let names = page.items.into_iter().map(|training| training.name);
        pages.push(names.collect::<Vec<_>>());
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(pages, [["trainings/c"], ["trainings/b"], ["trainings/a"]]);
}

#[tokio::test]
async fn pages_of_large_events_are_cut_by_bytes_and_have_every_event_once() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    let report = || {
        Kind::DatasetScanned(pb::DatasetReport {
            warnings: vec!["x".repeat(900_000)],
            ..Default::default()
        })
    };
    for _ in 0..8 {
        append(&store, "a", vec![report()]).await;
    }
    let (mut all, mut cursor) = (Vec::new(), 0);
    loop {
        let page = store.events_after_global(cursor, 1000).await.unwrap();
        assert!(page.items.len() <= 4, "{}", page.items.len());
        all.extend(page.items.into_iter().map(|event| event.sequence));
        let Some(next) = page.next else { break };
        cursor = next;
    }
    assert_eq!(all, (1..=9).collect::<Vec<u64>>());
    let (mut own, mut after) = (Vec::new(), 0);
    loop {
        let page = store.events_after("a", after, 1000).await.unwrap();
        own.extend(sequences(&page.items));
        let Some(next) = page.next else { break };
        after = store.sequence_at("a", next).await.unwrap();
    }
    assert_eq!(own, all);
}
