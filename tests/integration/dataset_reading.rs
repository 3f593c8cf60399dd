use std::path::Path;

use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;
use visage::proto::v1::{self, DatasetState, dataset_service_client::DatasetServiceClient};

use crate::support::{Server, files_of, small_spec, wait_until};

fn datasets(server: &Server) -> DatasetServiceClient<Channel> {
    DatasetServiceClient::new(server.channel())
}

/// The fields of a refusal.
fn fields(refused: &Status) -> Vec<String> {
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let violations = refused.get_details_bad_request().unwrap().field_violations;
    violations
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

fn with_dataset(path: &Path, change: impl FnOnce(&mut v1::DatasetSpec)) -> v1::TrainingSpec {
    let mut spec = small_spec(path);
    change(spec.dataset.as_mut().unwrap());
    spec
}

async fn start(
    server: &Server,
    spec: v1::TrainingSpec,
    validate_only: bool,
) -> Result<v1::Training, Status> {
    let request = v1::StartTrainingRequest {
        spec: Some(spec),
        validate_only,
        ..Default::default()
    };
    let started = server.trainings().start_training(request).await?;
    Ok(started.into_inner().training.unwrap())
}

fn images(training: &v1::Training) -> u64 {
    let report = training.dataset.as_ref().unwrap();
    report.splits.iter().map(|split| split.images).sum()
}

/// A manifest of drawn faces with the headings of APPA-REAL.
fn manifest(server: &Server, faces: &Path) -> std::path::PathBuf {
    let path = server.path("gt_avg_train.csv");
    let mut table = "file_name;num_ratings;real_age\n".to_owned();
    for (number, file) in files_of(faces).iter().enumerate() {
        table += &format!("{};38;{},5\n", file.display(), 20 + number);
    }
    fs_err::write(&path, table).unwrap();
    path
}

fn columns(path: &str, age: &str) -> Option<v1::ManifestColumns> {
    Some(v1::ManifestColumns {
        path: path.to_owned(),
        age: age.to_owned(),
        ..Default::default()
    })
}

#[tokio::test]
async fn a_manifest_without_the_columns_is_refused_when_the_training_is_started() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 24, 3);
    let manifest = manifest(&server, &faces);
    for validate_only in [true, false] {
        let refused = start(&server, small_spec(&manifest), validate_only)
            .await
            .unwrap_err();
        assert_eq!(fields(&refused), ["spec.dataset.path"]);
        for part in [
            "file_name, num_ratings, real_age",
            "path=file_name,age=real_age",
        ] {
            assert!(refused.message().contains(part), "{refused}");
        }
        let misnamed = with_dataset(&faces, |dataset| dataset.columns = columns("", "years"));
        let refused = start(&server, misnamed, validate_only).await.unwrap_err();
        assert_eq!(fields(&refused), ["spec.dataset.columns"]);
        let pattern = with_dataset(&manifest, |dataset| {
            dataset.columns = columns("file_name", "real_age");
            dataset.age_pattern = "agedb".to_owned();
        });
        let refused = start(&server, pattern, validate_only).await.unwrap_err();
        assert_eq!(fields(&refused), ["spec.dataset.age_pattern"]);
    }
    let known = server
        .trainings()
        .list_trainings(v1::ListTrainingsRequest::default())
        .await;
    assert_eq!(known.unwrap().into_inner().trainings, [], "none was made");

    let named = with_dataset(&manifest, |dataset| {
        dataset.columns = columns("File_Name", "real_age");
    });
    let valid = start(&server, named.clone(), true).await.unwrap();
    assert_eq!(images(&valid), 24);
    let resolved = valid.resolved_spec.unwrap().dataset.unwrap();
    assert_eq!(resolved.columns, named.dataset.unwrap().columns);
    let splits = valid.dataset.unwrap().splits;
    assert!(
        splits
            .iter()
            .all(|split| split.images == 0 || split.age_min.fract() == 0.5)
    );
}

#[tokio::test]
async fn patterns_and_columns_that_cannot_be_used_are_refused_at_their_fields() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 12, 3);
    let spec = with_dataset(&faces, |dataset| {
        dataset.age_pattern = "_([0-9]+)".to_owned();
        dataset.columns = columns("age", "Age");
    });
    let refused = start(&server, spec.clone(), true).await.unwrap_err();
    assert_eq!(
        fields(&refused),
        ["spec.dataset.age_pattern", "spec.dataset.columns.age"]
    );
    assert!(
        refused.message().contains("no group (?<age>...)"),
        "{refused}"
    );
    let check = v1::CheckDatasetRequest {
        dataset: spec.dataset,
        ..Default::default()
    };
    let refused = datasets(&server).check_dataset(check).await.unwrap_err();
    assert_eq!(
        fields(&refused),
        ["dataset.age_pattern", "dataset.columns.age"]
    );
    let register = v1::RegisterDatasetRequest {
        dataset_id: "faces".to_owned(),
        path: faces.to_str().unwrap().to_owned(),
        age_pattern: "x".repeat(1_025),
        columns: columns("age", "Age"),
        ..Default::default()
    };
    let refused = datasets(&server)
        .register_dataset(register.clone())
        .await
        .unwrap_err();
    assert_eq!(fields(&refused), ["age_pattern", "columns.age"]);
    let unread = v1::RegisterDatasetRequest {
        path: manifest(&server, &faces).to_str().unwrap().to_owned(),
        age_pattern: String::new(),
        columns: None,
        ..register
    };
    let refused = datasets(&server)
        .register_dataset(unread)
        .await
        .unwrap_err();
    assert_eq!(fields(&refused), ["path"]);
    assert!(refused.message().contains("age=real_age"), "{refused}");
}

#[tokio::test]
async fn a_dataset_with_a_name_keeps_its_pattern() {
    let server = Server::start(&[]);
    let drawn = server.faces("drawn", 40, 3);
    let directory = server.path("directories");
    for (number, file) in files_of(&drawn).iter().enumerate() {
        let age = directory.join(format!("{:03}", 20 + number % 8));
        fs_err::create_dir_all(&age).unwrap();
        fs_err::copy(file, age.join(format!("{number}.jpg"))).unwrap();
    }
    let run = |arguments: &[&str]| {
        let output = server.run(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    };
    let path = directory.to_str().unwrap();
    // By default the numbers of the files are read as ages, and the warning names the pattern.
    let doubted = run(&["dataset", "check", path, "--no-near"]);
    assert!(
        doubted.contains("set age_pattern to \"directory\""),
        "{doubted}"
    );
    let checked = run(&[
        "dataset",
        "check",
        path,
        "--no-near",
        "--age-pattern",
        "directory",
    ]);
    assert!(!checked.contains("age_pattern"), "{checked}");

    let registered = run(&[
        "dataset",
        "register",
        path,
        "--name",
        "directories",
        "--age-pattern",
        "directory",
    ]);
    assert!(
        registered.contains("Age pattern: directory"),
        "{registered}"
    );
    wait_until("the dataset is ready", || async {
        let name = "datasets/directories".to_owned();
        let found = datasets(&server)
            .get_dataset(v1::GetDatasetRequest { name })
            .await;
        found.unwrap().into_inner().dataset.unwrap().state() == DatasetState::Ready
    })
    .await;
    let by_name = |pattern: &str| {
        with_dataset(&directory, |dataset| {
            dataset.path = String::new();
            dataset.name = "datasets/directories".to_owned();
            dataset.age_pattern = pattern.to_owned();
        })
    };
    let kept = start(&server, by_name(""), true).await.unwrap();
    let resolved = kept
        .resolved_spec
        .as_ref()
        .unwrap()
        .dataset
        .clone()
        .unwrap();
    assert_eq!(resolved.age_pattern, "directory");
    assert_eq!(kept.dataset.as_ref().unwrap().warnings, [""; 0]);
    let ages = |training: &v1::Training| {
        let splits = training.dataset.clone().unwrap().splits.into_iter();
        let filled = splits.filter(|split| split.images > 0);
        let ages: Vec<f64> = filled
            .flat_map(|split| [split.age_min, split.age_max])
            .collect();
        (
            ages.iter().copied().fold(f64::MAX, f64::min),
            ages.into_iter().fold(0.0, f64::max),
        )
    };
    assert_eq!(ages(&kept), (20.0, 27.0));
    // A request overrides the stored pattern.
    let own = start(&server, by_name("utkface"), true).await.unwrap();
    assert_eq!(ages(&own), (0.0, 39.0));
    assert_eq!(own.dataset.unwrap().warnings, [""; 0]);
}

#[tokio::test]
async fn columns_are_named_on_the_command_line() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 24, 3);
    let manifest = manifest(&server, &faces);
    let run = |arguments: &[&str]| server.run(arguments);
    let path = manifest.to_str().unwrap();
    let named = ["--column", "age=real_age,path=file_name"];
    let train = [
        "train",
        "--dataset",
        path,
        "--init",
        "RANDOM",
        "--validate-only",
    ];
    let refused = run(&train);
    assert!(!refused.status.success());
    let started = run(&[train.as_slice(), &named].concat());
    let text = String::from_utf8_lossy(&started.stdout);
    assert!(
        started.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&started.stderr)
    );
    let register = ["dataset", "register", path, "--name", "appa-real"];
    let registered = run(&[register.as_slice(), &named].concat());
    let text = String::from_utf8_lossy(&registered.stdout);
    assert!(
        text.contains("Columns: path=file_name,age=real_age"),
        "{text}"
    );
    assert!(text.contains("Images: 24"), "{text}");
    let alone = run(&["evaluate", "--column", "age=real_age"]);
    let text = String::from_utf8_lossy(&alone.stderr);
    assert!(text.contains("require a dataset"), "{text}");
}
