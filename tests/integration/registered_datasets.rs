//! Registered datasets, trainings on them, and their lists.

use tonic::Code;
use visage::proto::v1::{self, DatasetKind, DatasetState, TrainingState};

use crate::support::{Server, by_name, code, files_of, long_spec, reason, small_spec, text_of};

fn start(spec: v1::TrainingSpec) -> v1::StartTrainingRequest {
    v1::StartTrainingRequest {
        spec: Some(spec),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_registered_directory_is_trained_on_by_name_and_never_modified() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 40, 3);
    let registered = server.register("faces", &faces).await.unwrap();
    assert_eq!(registered.name, "datasets/faces");
    assert_eq!(registered.kind(), DatasetKind::Registered);
    let dataset = server.dataset_done("faces").await;
    assert_eq!(
        (dataset.state(), dataset.images),
        (DatasetState::Ready, 40),
        "{}",
        dataset.failure
    );

    let spec = by_name(small_spec(&faces), "datasets/faces");
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(
        training.state(),
        TrainingState::Succeeded,
        "{:?}",
        training.failure
    );
    let asked = training.spec.clone().unwrap().dataset.unwrap();
    assert_eq!(
        (asked.name.as_str(), asked.path.as_str()),
        ("datasets/faces", "")
    );
    let resolved = training.resolved_spec.clone().unwrap().dataset.unwrap();
    assert_eq!(
        (resolved.name, resolved.path),
        ("datasets/faces".to_owned(), dataset.path.clone())
    );
    // Both are read with the same defaults.
    assert_eq!(
        training.dataset.as_ref().unwrap().digest,
        dataset.report.unwrap().digest
    );

    let report = server.run(&["evaluate", "--version", "1", "--dataset", "datasets/faces"]);
    assert!(report.status.success(), "{}", text_of(&report));
    let check = server.run(&["dataset", "check", "datasets/faces"]);
    assert!(check.status.success(), "{}", text_of(&check));
    server.delete_dataset("faces").await.unwrap();
    assert_eq!(files_of(&faces).len(), 40);
    assert_eq!(code(&server.dataset("faces").await), Code::NotFound);
    // Trainings on a deleted dataset keep its name and path.
    let later = server.training(&training.name).await;
    assert_eq!(later.resolved_spec, training.resolved_spec);
}

#[tokio::test]
async fn a_dataset_in_use_is_not_deleted() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 20, 3);
    server.register("faces", &faces).await.unwrap();
    server.dataset_done("faces").await;
    let training = server
        .queue(by_name(long_spec(&faces), "datasets/faces"))
        .await;
    let refused = server.delete_dataset("faces").await;
    assert_eq!(code(&refused), Code::FailedPrecondition);
    let status = refused.unwrap_err();
    assert_eq!(reason(&status), "DATASET_IN_USE");
    assert!(status.message().contains(&training), "{}", status.message());
    let request = v1::CancelTrainingRequest {
        name: training.clone(),
        force: true,
    };
    server.trainings().cancel_training(request).await.unwrap();
    server.ended(&training).await;
    server.delete_dataset("faces").await.unwrap();
}

#[tokio::test]
async fn invalid_names_are_refused_with_their_field() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 20, 3);
    let empty = server.path("empty");
    fs_err::create_dir(&empty).unwrap();
    server.register("empty", &empty).await.unwrap();
    let failed = server.dataset_done("empty").await;
    assert_eq!(failed.state(), DatasetState::Failed);
    assert!(
        failed.failure.contains("holds no usable image"),
        "{}",
        failed.failure
    );
    for (name, path, field, problem) in [
        (
            "faces",
            "",
            "spec.dataset.name",
            "must be of the form datasets/{id}",
        ),
        (
            "datasets/none",
            "",
            "spec.dataset.name",
            "dataset datasets/none does not exist",
        ),
        ("datasets/empty", "", "spec.dataset.name", "cannot be used"),
        (
            "",
            "",
            "spec.dataset.path",
            "or set spec.dataset.name to a named dataset",
        ),
    ] {
        let mut spec = by_name(small_spec(&faces), name);
        spec.dataset.as_mut().unwrap().path = path.to_owned();
        let refused = server
            .trainings()
            .start_training(start(spec))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let text = refused.message();
        assert!(
            text.starts_with(&format!("{field}: ")) && text.contains(problem),
            "{text}"
        );
        assert!(!text.contains("more violations"), "{text}");
    }
    server.register("faces", &faces).await.unwrap();
    server.dataset_done("faces").await;
    // Both are allowed if they are the same dataset, as in a resolved spec.
    let mut both = by_name(small_spec(&faces), "datasets/faces");
    both.dataset.as_mut().unwrap().path = empty.to_str().unwrap().to_owned();
    let refused = server
        .trainings()
        .start_training(start(both.clone()))
        .await
        .unwrap_err();
    assert!(
        refused
            .message()
            .contains("must be the path of datasets/faces or empty"),
        "{}",
        refused.message()
    );
    let real = fs_err::canonicalize(&faces).unwrap();
    both.dataset.as_mut().unwrap().path = real.to_str().unwrap().to_owned();
    let request = v1::StartTrainingRequest {
        validate_only: true,
        ..start(both)
    };
    server.trainings().start_training(request).await.unwrap();

    assert_eq!(
        code(&server.register("faces", &faces).await),
        Code::AlreadyExists
    );
    assert_eq!(
        code(&server.register("No Id", &faces).await),
        Code::InvalidArgument
    );
    let missing = server.register("missing", &server.path("missing")).await;
    assert_eq!(code(&missing), Code::InvalidArgument);
}

#[tokio::test]
async fn lists_have_pages_newest_first() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 4, 3);
    for id in ["a", "b", "c"] {
        server.register(id, &faces).await.unwrap();
        server.dataset_done(id).await;
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListDatasetsRequest {
            page_size: 2,
            page_token,
        };
        let page = server
            .datasets()
            .list_datasets(request)
            .await
            .unwrap()
            .into_inner();
        assert!(
            page.datasets
                .iter()
                .all(|dataset| dataset.samples.is_empty())
        );
        names.extend(page.datasets.into_iter().map(|dataset| dataset.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["datasets/c", "datasets/b", "datasets/a"]);
}
