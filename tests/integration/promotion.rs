//! The live version after trainings with each promotion policy.

use visage::proto::v1::{self, Promote, TrainingState, training_event::Kind};

use crate::support::{Server, small_spec};

async fn train(server: &Server, spec: v1::TrainingSpec) -> (v1::Training, bool) {
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    let created = server
        .events(&training.name)
        .await
        .into_iter()
        .find_map(|event| match event.kind {
            Some(Kind::ModelVersionCreated(created)) => Some(created),
            _ => None,
        })
        .unwrap();
    assert_eq!(created.model_version, training.model_version);
    (training, created.promoted)
}

async fn version_of(server: &Server, alias: &str) -> u64 {
    let request = v1::GetModelVersionRequest {
        name: format!("models/age/versions/{alias}"),
    };
    let response = server.models().get_model_version(request).await;
    response.map_or(0, |response| response.into_inner().version.unwrap().version)
}

#[tokio::test]
async fn live_moves_by_the_promotion_policy() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 80, 1);
    let spec = |promote: Promote, epochs: u32| v1::TrainingSpec {
        promote: promote.into(),
        max_epochs: Some(epochs),
        ..small_spec(&faces)
    };

    // NEVER creates a version without an alias, so Predict still has no model.
    let (_, promoted) = train(&server, spec(Promote::Never, 1)).await;
    assert!(!promoted);
    let refused = server.predict().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert_eq!(crate::support::reason(&refused), "NO_LIVE_MODEL");

    // IF_BETTER without a live version.
    let (first, promoted) = train(&server, spec(Promote::IfBetter, 1)).await;
    assert!(promoted);
    assert_eq!(version_of(&server, "live").await, 2);
    assert_eq!(version_of(&server, "previous").await, 0);

    // The same training has the same loss on the same images, which is not better.
    let (same, promoted) = train(&server, spec(Promote::IfBetter, 1)).await;
    assert_eq!(same.best.unwrap().val_loss, first.best.unwrap().val_loss);
    assert!(!promoted);
    assert_eq!(version_of(&server, "live").await, 2);

    // ALWAYS, even on other images.
    let mut other = spec(Promote::Always, 1);
    other.dataset.as_mut().unwrap().path =
        server.faces("others", 60, 9).to_str().unwrap().to_owned();
    let (_, promoted) = train(&server, other).await;
    assert!(promoted);
    assert_eq!(version_of(&server, "live").await, 4);
    assert_eq!(version_of(&server, "previous").await, 2);
    assert_eq!(
        server.predict().await.unwrap().model_version,
        "models/age/versions/4"
    );

    // Losses on different validation images are not compared.
    let (_, promoted) = train(&server, spec(Promote::IfBetter, 4)).await;
    assert!(!promoted);

    // Rolled back by one call; `previous` points to the version that was live.
    let request = v1::SetAliasRequest {
        name: "models/age/versions/previous".to_owned(),
        alias: "live".to_owned(),
        expected_version: Some(4),
    };
    server.models().set_alias(request).await.unwrap();
    assert_eq!(version_of(&server, "live").await, 2);
    assert_eq!(version_of(&server, "previous").await, 4);
    let answer = server.predict().await.unwrap();
    assert_eq!(answer.model_version, "models/age/versions/2");

    // All moves, newest first.
    let history = server
        .models()
        .list_alias_events(v1::ListAliasEventsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .events;
    let live: Vec<(u64, u64, &str)> = history
        .iter()
        .filter(|event| event.alias == "live")
        .map(|event| (event.from_version, event.to_version, event.cause.as_str()))
        .collect();
    assert_eq!(live, [(4, 2, "set"), (2, 4, "promote"), (0, 2, "promote")]);
}

#[tokio::test]
async fn same_spec_and_data_give_the_same_losses() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 60, 1);
    let mut losses = Vec::new();
    for _ in 0..2 {
        let (training, _) = train(&server, small_spec(&faces)).await;
        let epochs = server.events(&training.name).await.into_iter();
        let of_epoch = |event: v1::TrainingEvent| match event.kind {
            Some(Kind::EpochCompleted(metrics)) => Some((metrics.train_loss, metrics.val_loss)),
            _ => None,
        };
        losses.push(epochs.filter_map(of_epoch).collect::<Vec<_>>());
    }
    assert_eq!(losses[0].len(), 2);
    assert_eq!(losses[0], losses[1]);
}
