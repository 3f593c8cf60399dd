//! Inserting, listing, queueing and deleting trainings.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_id_returns_the_first_training() {
    let (_directory, store) = open().await;
    let request = |fingerprint: &str| {
        Some(RequestId {
            owner: String::new(),
            id: "6e7b9f0a-4a0d-4c39-9d2a-6f1f3a9a0c11".to_owned(),
            fingerprint: fingerprint.to_owned(),
        })
    };
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (store, request) = (store.clone(), request("x"));
        tasks.spawn(async move {
            store
                .insert_training(named(&format!("t{n}")), request, 100)
                .await
                .unwrap()
        });
    }
    let outcomes = tasks.join_all().await;
    let new: Vec<_> = outcomes
        .iter()
        .filter(|o| matches!(o, Inserted::New(_)))
        .collect();
    assert_eq!(new.len(), 1);
    let names: BTreeSet<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Inserted::New(training)
            | Inserted::Replaced(training)
            | Inserted::Existing(training) => training.name.as_str(),
        })
        .collect();
    assert_eq!(names.len(), 1);

    let other = store
        .insert_training(named("other"), request("y"), 100)
        .await;
    assert!(matches!(other, Err(Error::RequestIdReused { .. })));
    let name = *names.first().unwrap();
    let taken = store
        .insert_training(named(&name["trainings/".len()..]), None, 100)
        .await;
    assert!(matches!(taken, Err(Error::AlreadyExists { name: n }) if n == name));
    let bad = store
        .insert_training(pb::Training::default(), None, 100)
        .await;
    assert!(matches!(bad, Err(Error::BadName { .. })));
}

#[tokio::test]
async fn a_request_id_belongs_to_its_owner() {
    let (_directory, store) = open().await;
    let request = |owner: &str, fingerprint: &str| RequestId {
        owner: owner.to_owned(),
        id: "6e7b9f0a-4a0d-4c39-9d2a-6f1f3a9a0c11".to_owned(),
        fingerprint: fingerprint.to_owned(),
    };
    let start = async |id: &str, owner: &str, fingerprint: &str| {
        let training = pb::Training {
            owner: owner.to_owned(),
            ..named(id)
        };
        let request = request(owner, fingerprint);
        store.insert_training(training, Some(request), 9).await
    };
    let ada = start("a", "ada", "x").await.unwrap();
    assert!(matches!(ada, Inserted::New(_)), "{ada:?}");
    // Neither the training of another identity nor a refusal that names it.
    for (id, owner, fingerprint) in [("b", "eve", "x"), ("c", "bob", "y"), ("d", "", "x")] {
        let found = store.requested_training(&request(owner, fingerprint)).await;
        assert_eq!(found.unwrap(), None, "{owner}");
        let started = start(id, owner, fingerprint).await.unwrap();
        assert!(
            matches!(&started, Inserted::New(training) if training.owner == owner),
            "{started:?}"
        );
    }
    let again = start("e", "ada", "x").await.unwrap();
    assert!(
        matches!(&again, Inserted::Existing(training) if training.name == "trainings/a"),
        "{again:?}"
    );
    let reused = start("e", "ada", "y").await;
    assert!(matches!(reused, Err(Error::RequestIdReused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_trainings_are_queued_than_allowed_when_many_come_at_once() {
    let (_directory, store) = open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let store = store.clone();
        tasks.spawn(async move {
            store
                .insert_training(named(&format!("t{n}")), None, 7)
                .await
        });
    }
    let outcomes = tasks.join_all().await;
    let refused = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(Error::QueueFull { limit: 7 })))
        .count();
    assert_eq!((outcomes.len() - refused, refused), (7, 13));
    let queue = store.queue().await.unwrap();
    assert_eq!(queue.len(), 7);

    become_state(&store, &queue[0], TrainingState::Preparing)
        .await
        .unwrap();
    let next = store.insert_training(named("next"), None, 7).await.unwrap();
    assert!(matches!(next, Inserted::New(training) if training.queue_position == 7));
}

#[tokio::test]
async fn the_queue_moves_up_when_one_leaves_it() {
    let (_directory, store) = open().await;
    for id in ["a", "b", "c"] {
        insert(&store, id).await;
    }
    let positions = |trainings: Vec<pb::Training>| -> Vec<u32> {
        trainings
            .iter()
            .map(|training| training.queue_position)
            .collect()
    };
    assert_eq!(positions(store.live_trainings().await.unwrap()), [1, 2, 3]);
    let running = become_state(&store, "a", TrainingState::Preparing)
        .await
        .unwrap();
    assert_eq!(running.training.queue_position, 0);
    assert_eq!(positions(store.live_trainings().await.unwrap()), [0, 1, 2]);
    assert_eq!(store.training("c").await.unwrap().queue_position, 2);
    become_state(&store, "b", TrainingState::Cancelled)
        .await
        .unwrap();
    assert_eq!(store.queue().await.unwrap(), ["c"]);
    assert_eq!(
        store.count_states().await.unwrap(),
        [
            (TrainingState::Queued, 1),
            (TrainingState::Preparing, 1),
            (TrainingState::Cancelled, 1)
        ]
    );
    assert_eq!(positions(store.live_trainings().await.unwrap()), [0, 1]);
    // Back in the queue it keeps its place ahead of those that came later.
    become_state(&store, "a", TrainingState::Queued)
        .await
        .unwrap();
    assert_eq!(store.queue().await.unwrap(), ["a", "c"]);
}

#[tokio::test]
async fn pages_stay_stable_while_trainings_are_inserted() {
    let (_directory, store) = open().await;
    for n in 0..7 {
        insert(&store, &format!("t{n}")).await;
    }
    become_state(&store, "t5", TrainingState::Cancelled)
        .await
        .unwrap();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = store
            .list_trainings(&TrainingFilter::default(), before, 3)
            .await
            .unwrap();
        seen.extend(page.items.into_iter().map(|training| training.name));
        insert(&store, &format!("late{}", seen.len())).await;
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..7).rev().map(|n| format!("trainings/t{n}")).collect();
    assert_eq!(seen, expected);

    let page = store
        .list_trainings(&in_states(&[TrainingState::Cancelled]), None, 3)
        .await
        .unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(
        (page.items[0].name.as_str(), page.next),
        ("trainings/t5", None)
    );
    let states = [TrainingState::Queued, TrainingState::Cancelled];
    let page = store
        .list_trainings(&in_states(&states), None, 100)
        .await
        .unwrap();
    assert_eq!(page.items.len(), 10);
}

#[tokio::test]
async fn deleting_a_training_keeps_what_a_version_uses() {
    let (_directory, store) = open().await;
    let request = RequestId {
        owner: String::new(),
        id: "r".to_owned(),
        fingerprint: "x".to_owned(),
    };
    store
        .insert_training(named("a"), Some(request), 9)
        .await
        .unwrap();
    insert(&store, "b").await;
    append(
        &store,
        "a",
        vec![
            saved(1, true, "f1"),
            saved(2, false, "f2"),
            saved(3, false, "f3"),
        ],
    )
    .await;
    append(&store, "b", vec![saved(1, true, "f3")]).await;
    let files = store
        .checkpoint("a", CheckpointRef::Best)
        .await
        .unwrap()
        .files;
    let version = pb::ModelVersion {
        files,
        ..Default::default()
    };
    store.register_version("age", version).await.unwrap();

    let live = store.delete_training("a").await;
    assert!(matches!(
        live,
        Err(Error::StillLive {
            state: TrainingState::Queued,
            ..
        })
    ));
    become_state(&store, "a", TrainingState::Cancelled)
        .await
        .unwrap();
    let head = store.global_head().await.unwrap();
    assert_eq!(store.delete_training("a").await.unwrap(), ["f2"]);
    assert!(matches!(
        store.training("a").await,
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        store.events_after("a", 0, 9).await,
        Err(Error::NotFound { .. })
    ));
    assert_eq!(
        store.global_head().await.unwrap(),
        head,
        "cursors stay valid"
    );
    let left = store.events_after_global(0, 100).await.unwrap().items;
    assert!(left.iter().all(|event| event.training == "trainings/b"));
    assert!(store.is_referenced("f1").await.unwrap());

    let next = append(&store, "b", vec![epoch(1)]).await;
    assert_eq!(next.events[0].resume_token, encode_token(head + 1));
}

#[tokio::test]
async fn a_list_has_the_trainings_with_all_labels() {
    let (_directory, store) = open().await;
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    };
    for n in 0..6 {
        let training = pb::Training {
            labels: labels(match n % 3 {
                0 => &[("sweep", "rates"), ("owner", "ann")],
                1 => &[("sweep", "rates")],
                _ => &[],
            }),
            ..named(&format!("t{n}"))
        };
        store.insert_training(training, None, 100).await.unwrap();
    }
    become_state(&store, "t3", TrainingState::Cancelled)
        .await
        .unwrap();
    let list = async |filter: TrainingFilter, limit: u32| -> Vec<String> {
        let (mut names, mut before) = (Vec::new(), None);
        loop {
            let page = store.list_trainings(&filter, before, limit).await.unwrap();
            assert!(page.items.len() <= limit as usize);
            names.extend(
                page.items
                    .iter()
                    .map(|training| training.name[10..].to_owned()),
            );
            before = page.next;
            if before.is_none() {
                return names;
            }
        }
    };
    let with = |pairs: &[(&str, &str)]| TrainingFilter {
        labels: labels(pairs),
        ..Default::default()
    };
    // One at a time, so that the position of each page matters.
    let rates = list(with(&[("sweep", "rates")]), 1).await;
    assert_eq!(rates, ["t4", "t3", "t1", "t0"]);
    let both = list(with(&[("sweep", "rates"), ("owner", "ann")]), 9).await;
    assert_eq!(both, ["t3", "t0"]);
    for none in [("sweep", "rate"), ("rates", "sweep"), ("owner", "ANN")] {
        assert_eq!(list(with(&[none]), 9).await, [""; 0], "{none:?}");
    }
    let queued = TrainingFilter {
        states: vec![TrainingState::Queued],
        ..with(&[("owner", "ann")])
    };
    assert_eq!(list(queued, 9).await, ["t0"]);
    // A deleted training takes its labels along.
    store.delete_training("t3").await.unwrap();
    assert_eq!(list(with(&[("owner", "ann")]), 9).await, ["t0"]);
}
