//! Deletion of model versions, trainings without a version, disk use, and the starter on a running
//! server.

use std::path::Path;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use visage::proto::v1::{self, TrainingState, system_service_client::SystemServiceClient};

use crate::support::{Server, small_spec};

async fn register(
    server: &Server,
    request: v1::RegisterVersionRequest,
) -> Result<v1::ModelVersion, Status> {
    let response = server.models().register_version(request).await?;
    Ok(response.into_inner().version.unwrap())
}

async fn register_best(server: &Server, training: &str) -> v1::ModelVersion {
    let request = v1::RegisterVersionRequest {
        checkpoint: format!("{training}/checkpoints/best"),
        ..Default::default()
    };
    register(server, request).await.unwrap()
}

async fn register_starter(server: &Server) -> v1::ModelVersion {
    let request = v1::RegisterVersionRequest {
        starter: true,
        ..Default::default()
    };
    register(server, request).await.unwrap()
}

async fn set_alias(server: &Server, version: &v1::ModelVersion) -> v1::SetAliasResponse {
    let request = v1::SetAliasRequest {
        name: version.name.clone(),
        alias: "live".to_owned(),
        expected_version: None,
    };
    server
        .models()
        .set_alias(request)
        .await
        .unwrap()
        .into_inner()
}

async fn delete(server: &Server, name: &str) -> Result<u64, Status> {
    let request = v1::DeleteModelVersionRequest {
        name: name.to_owned(),
    };
    let response = server.models().delete_model_version(request).await?;
    Ok(response.into_inner().freed_bytes)
}

async fn delete_alias(server: &Server, alias: &str) {
    let request = v1::DeleteAliasRequest {
        alias: alias.to_owned(),
        ..Default::default()
    };
    server.models().delete_alias(request).await.unwrap();
}

fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(directory) else {
        return 0;
    };
    let bytes = entries.map(|entry| {
        let path = entry.unwrap().path();
        // The identity of the store.
        let is_identity = path.file_name().is_some_and(|name| name == ".store");
        match path.is_dir() {
            _ if is_identity => 0,
            true => bytes_below(&path),
            false => path.metadata().unwrap().len(),
        }
    });
    bytes.sum()
}

#[tokio::test]
async fn the_starter_is_added_to_a_running_server_once() {
    let server = Server::start(&[]);
    assert!(server.predict().await.is_err());
    let both = v1::RegisterVersionRequest {
        checkpoint: "trainings/a/checkpoints/best".to_owned(),
        starter: true,
        ..Default::default()
    };
    let refused = register(&server, both).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);

    let starter = register_starter(&server).await;
    assert_eq!(starter.origin(), v1::VersionOrigin::Starter);
    assert_eq!(
        (starter.version, starter.aliases),
        (1, vec!["live".to_owned()])
    );
    let predicted = server.predict().await.unwrap();
    assert_eq!(predicted.model_version, starter.name);
    let again = register_starter(&server).await;
    assert_eq!((again.version, again.files), (1, starter.files));
}

#[tokio::test]
async fn versions_are_deleted_and_their_files_with_the_last_use() {
    let server = Server::start(&["--starter"]);
    let spec = v1::TrainingSpec {
        create_version: Some(false),
        ..small_spec(&server.faces("faces", 40, 3))
    };
    let refused = v1::StartTrainingRequest {
        spec: Some(v1::TrainingSpec {
            promote: v1::Promote::Always.into(),
            ..spec.clone()
        }),
        ..Default::default()
    };
    let refused = server
        .trainings()
        .start_training(refused)
        .await
        .unwrap_err();
    let violations = refused.get_error_details();
    let violations = &violations.bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "spec.promote");

    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    assert_eq!(training.model_version, "");
    let resolved = training.resolved_spec.unwrap();
    assert_eq!(resolved.create_version, Some(false));
    assert_eq!(resolved.promote(), v1::Promote::Never);
    let artifacts = server.path("data/artifacts");
    let all = bytes_below(&artifacts);
    let own = training.checkpoint_bytes;
    assert!(own > 0 && own < all, "{own} of {all}");

    // The checkpoint becomes a version, whose files the training shares.
    let version = register_best(&server, &training.name).await;
    assert_eq!(version.version, 2);
    let best: u64 = version.files.iter().map(|file| file.size_bytes).sum();
    assert_eq!(
        server.training(&training.name).await.checkpoint_bytes,
        own - best
    );
    let moved = set_alias(&server, &version).await;
    assert_eq!(moved.from_version, 1);
    assert_eq!(server.predict().await.unwrap().model_version, version.name);
    let in_use = delete(&server, &version.name).await.unwrap_err();
    assert_eq!(in_use.code(), Code::FailedPrecondition);
    let reason = in_use
        .get_error_details()
        .error_info()
        .unwrap()
        .reason
        .clone();
    assert_eq!(reason, "VERSION_IN_USE");
    assert!(
        in_use.message().contains("by the alias live; point it"),
        "{in_use:?}"
    );
    let by_alias = delete(&server, "models/age/versions/live")
        .await
        .unwrap_err();
    assert_eq!(by_alias.code(), Code::InvalidArgument);

    delete_alias(&server, "live").await;
    delete_alias(&server, "previous").await;
    // It is loaded, and was pinned while it was live.
    assert_eq!(delete(&server, &version.name).await.unwrap(), 0);
    let gone = delete(&server, &version.name).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let request = v1::GetModelVersionRequest {
        name: version.name.clone(),
    };
    let gone = server
        .models()
        .get_model_version(request)
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(server.training(&training.name).await.checkpoint_bytes, own);

    // The number is not used again; the files go with the last of version and training.
    let version = register_best(&server, &training.name).await;
    assert_eq!(version.version, 3);
    let request = v1::DeleteTrainingRequest {
        name: training.name.clone(),
    };
    server.trainings().delete_training(request).await.unwrap();
    let before = bytes_below(&artifacts);
    let freed = delete(&server, &version.name).await.unwrap();
    assert!(freed > 0);
    assert_eq!(bytes_below(&artifacts), before - freed);
    assert_eq!(bytes_below(&artifacts), starter_bytes(&server).await);

    let info = SystemServiceClient::new(server.channel())
        .get_server_info(v1::GetServerInfoRequest::default())
        .await
        .unwrap()
        .into_inner();
    let disk = info.disk.unwrap();
    assert_eq!(disk.artifacts_bytes, bytes_below(&artifacts));
    assert!(disk.free_bytes > 0);
    assert_eq!((disk.datasets_bytes, disk.uploads_bytes), (0, 0));
}

/// Size of the files of version 1.
async fn starter_bytes(server: &Server) -> u64 {
    let request = v1::GetModelVersionRequest {
        name: "models/age/versions/1".to_owned(),
    };
    let response = server.models().get_model_version(request).await;
    let version = response.unwrap().into_inner().version.unwrap();
    version.files.iter().map(|file| file.size_bytes).sum()
}
