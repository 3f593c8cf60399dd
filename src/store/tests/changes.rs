//! Changes of a training, and what is written with them.

use super::*;
use crate::proto::worker_v1::ResumePoint;

#[tokio::test]
async fn a_change_is_written_whole_or_not_at_all() {
    let (_directory, store) = open().await;
    let before = insert(&store, "a").await;
    let refused = store
        .update("a", |training| {
            training.set_state(TrainingState::Running);
            Ok::<_, Error>(events(vec![epoch(1), Kind::Heartbeat(pb::Heartbeat {})]))
        })
        .await;
    assert!(matches!(
        refused,
        Err(Error::NotAppendable { kind: "heartbeat" })
    ));
    assert_eq!(store.training("a").await.unwrap(), before);
    assert_eq!(store.head("a").await.unwrap(), 1);

    let unchanged = append(&store, "a", vec![]).await;
    assert_eq!(unchanged.training, before);
    assert_eq!(unchanged.events, []);
}

#[tokio::test]
async fn publishing_tells_of_the_version_before_the_final_state_and_moves_live() {
    let (_directory, store) = open().await;
    for id in ["a", "b", "c", "d"] {
        insert(&store, id).await;
    }
    let applied = publish(&store, "a", Promotion::Always, None).await;
    assert_eq!(applied.training.model_version, "models/age/versions/1");
    assert_eq!(applied.training.last_sequence, 4);
    assert_eq!(sequences(&applied.events), [2, 3, 4]);
    let promotion = pb::Promotion {
        promoted: true,
        reason: "promote is ALWAYS".to_owned(),
        ..Default::default()
    };
    assert_eq!(applied.training.promotion, Some(promotion.clone()));
    let kinds: Vec<Kind> = applied
        .events
        .into_iter()
        .map(|e| e.kind.unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            epoch(1),
            Kind::ModelVersionCreated(pb::ModelVersionCreated {
                model_version: "models/age/versions/1".to_owned(),
                promoted: true,
                promotion: Some(promotion),
            }),
            Kind::StateChanged(pb::StateChanged {
                state: TrainingState::Succeeded as i32,
                stop_reason: pb::StopReason::MaxEpochs as i32,
                failure: None,
            }),
        ]
    );
    let live = |number| BTreeMap::from([("live".to_owned(), number)]);
    assert_eq!(store.aliases("age").await.unwrap(), live(1));

    let applied = publish(&store, "b", Promotion::Never, None).await;
    assert_eq!(applied.version.unwrap().version, 2);
    assert_eq!(store.aliases("age").await.unwrap(), live(1));

    // Both were compared with version 1, which is live until one of them is promoted.
    let comparison = Comparison {
        live_version: 1,
        images: 120,
        mse: 3.0,
        live_mse: 4.0,
        ..Default::default()
    };
    let better = Some(comparison);
    let applied = publish(&store, "c", Promotion::IfBetter, better.clone()).await;
    assert_eq!(applied.version.unwrap().aliases, ["live"]);
    let both = BTreeMap::from([("live".to_owned(), 3), ("previous".to_owned(), 1)]);
    assert_eq!(store.aliases("age").await.unwrap(), both);

    let applied = publish(&store, "d", Promotion::IfBetter, better).await;
    let promotion = applied.training.promotion.unwrap();
    assert_eq!(promotion.live_version, "models/age/versions/3");
    assert!(
        promotion
            .reason
            .starts_with("live moved from version 1 to version 3 ")
    );
    assert_eq!(store.aliases("age").await.unwrap(), both);
    let by_alias = VersionRef::Alias("previous".to_owned());
    let previous = store.version("age", &by_alias).await.unwrap();
    assert_eq!(
        (previous.version, previous.aliases),
        (1, vec!["previous".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_stop_and_a_finish_that_race_the_second_sees_the_first() {
    let (_directory, store) = open().await;
    for round in 0..20 {
        let id = format!("t{round}");
        insert(&store, &id).await;
        become_state(&store, &id, TrainingState::Running)
            .await
            .unwrap();
        let start = Arc::new(Barrier::new(2));
        let race = |to: TrainingState| {
            let (store, id, start) = (store.clone(), id.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                store
                    .update(&id, move |training| {
                        if training.state() != TrainingState::Running {
                            return Err(Error::Terminal {
                                name: training.name.clone(),
                                state: training.state(),
                            });
                        }
                        training.set_state(to);
                        Ok(Change::default())
                    })
                    .await
            })
        };
        let (stop, finish) = (race(TrainingState::Stopping), race(TrainingState::Failed));
        let (stop, finish) = (stop.await.unwrap(), finish.await.unwrap());
        let winner = match (&stop, &finish) {
            (Ok(_), Err(Error::Terminal { state, .. })) => {
                assert_eq!(*state, TrainingState::Stopping);
                TrainingState::Stopping
            }
            (Err(Error::Terminal { state, .. }), Ok(_)) => {
                assert_eq!(*state, TrainingState::Failed);
                TrainingState::Failed
            }
            _ => panic!("exactly one wins: {stop:?} {finish:?}"),
        };
        assert_eq!(store.training(&id).await.unwrap().state(), winner);
        assert_eq!(store.head(&id).await.unwrap(), 3);
    }
}

#[tokio::test]
async fn an_ended_training_never_lives_again() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    become_state(&store, "a", TrainingState::Cancelled)
        .await
        .unwrap();
    for state in [
        TrainingState::Queued,
        TrainingState::Running,
        TrainingState::Failed,
    ] {
        let refused = become_state(&store, "a", state).await;
        assert!(matches!(
            refused,
            Err(Error::Terminal {
                state: TrainingState::Cancelled,
                ..
            })
        ));
    }
    let late = store
        .update("a", |_| Ok::<_, Error>(events(vec![epoch(1)])))
        .await;
    assert!(
        matches!(late, Err(Error::Terminal { .. })),
        "its stream has ended"
    );
    assert_eq!(store.head("a").await.unwrap(), 2);
}

#[tokio::test]
async fn the_store_keeps_its_own_fields() {
    let (_directory, store) = open().await;
    let before = insert(&store, "a").await;
    let applied = store
        .update("a", |training| {
            training.name = "trainings/b".to_owned();
            training.create_time = None;
            training.last_sequence = 99;
            training.model_version = "models/age/versions/9".to_owned();
            training.display_name = "mine".to_owned();
            Ok::<_, Error>(Change::default())
        })
        .await
        .unwrap();
    let expected = pb::Training {
        display_name: "mine".to_owned(),
        update_time: applied.training.update_time,
        ..before
    };
    assert_eq!(applied.training, expected);
    assert_eq!(store.training("a").await.unwrap(), expected);
}

#[tokio::test]
async fn one_checkpoint_is_best_and_replaced_files_are_let_go() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    append(
        &store,
        "a",
        vec![saved(1, true, "f1"), saved(2, false, "f2")],
    )
    .await;
    append(&store, "a", vec![saved(3, true, "f3")]).await;
    let best = store.checkpoint("a", CheckpointRef::Best).await.unwrap();
    assert_eq!(
        (best.epoch, best.name.as_str()),
        (3, "trainings/a/checkpoints/3")
    );
    assert!(best.create_time.is_some());
    let first = store
        .checkpoint("a", CheckpointRef::Epoch(1))
        .await
        .unwrap();
    assert!(!first.best);

    let page = store.checkpoints("a", None, 2).await.unwrap();
    let epochs: Vec<u32> = page
        .items
        .iter()
        .map(|checkpoint| checkpoint.epoch)
        .collect();
    assert_eq!((epochs, page.next), (vec![3, 2], Some(2)));
    let page = store.checkpoints("a", page.next, 2).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, None));

    let applied = store
        .update("a", |_| {
            Ok::<_, Error>(Change {
                events: vec![saved(2, false, "f3")],
                drop_checkpoints: vec![1, 77],
                ..Change::default()
            })
        })
        .await
        .unwrap();
    assert_eq!(applied.unreferenced, ["f1", "f2"]);
    let used = store.referenced_digests().await.unwrap();
    assert_eq!(used, ["f3".to_owned()].into());
    assert!(store.is_referenced("f3").await.unwrap());
    let gone = store.checkpoint("a", CheckpointRef::Epoch(1)).await;
    assert!(
        matches!(gone, Err(Error::NotFound { name, .. }) if name == "trainings/a/checkpoints/1")
    );
    assert!(matches!(
        store.checkpoints("x", None, 2).await,
        Err(Error::NotFound { .. })
    ));
}

#[tokio::test]
async fn going_back_forgets_later_checkpoints_and_the_best_is_one_that_stays() {
    let (_directory, store) = open().await;
    insert(&store, "a").await;
    let point = ResumePoint {
        epochs: 2,
        ..Default::default()
    };
    let kept = point.clone();
    store
        .update("a", |_| {
            Ok::<_, Error>(Change {
                events: vec![
                    saved(1, true, "f1"),
                    saved(2, true, "f2"),
                    saved(3, true, "f3"),
                ],
                resume_point: Some(kept),
                ..Change::default()
            })
        })
        .await
        .unwrap();
    let go_back = async |rewind: Rewind| {
        let decide = move |_: &mut pb::Training| {
            Ok::<_, Error>(Change {
                rewind: Some(rewind),
                ..Change::default()
            })
        };
        store.update("a", decide).await.unwrap().unreferenced
    };
    let behind = |epochs, best_epoch| Rewind::After { epochs, best_epoch };
    assert_eq!(go_back(behind(2, 1)).await, ["f3"]);
    let best = store.best_checkpoint("a").await.unwrap().unwrap();
    assert_eq!(best.epoch, 1);
    assert_eq!(store.resume_point("a").await.unwrap(), Some(point.clone()));
    // Within the first epoch, where a full checkpoint can be too.
    assert_eq!(go_back(behind(0, 0)).await, ["f1", "f2"]);
    assert_eq!(store.best_checkpoint("a").await.unwrap(), None);
    assert_eq!(store.resume_point("a").await.unwrap(), Some(point));
    assert!(go_back(Rewind::ToStart).await.is_empty());
    assert_eq!(store.resume_point("a").await.unwrap(), None);
}
