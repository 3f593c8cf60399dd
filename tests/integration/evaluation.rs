//! Evaluations of a version, compared with predictions of the same images.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::{Code, Status};
use visage::proto::{
    open_inference::{
        InferTensorContents, ModelInferRequest,
        grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
    v1::{self, DatasetSplit, evaluate_model_version_response::Kind},
};

use crate::support::{Server, code, files_of, reason, small_spec, wait_until};

/// A training in f32, the precision of Predict here, with enough validation images for most levels.
async fn train(server: &Server, faces: &Path) -> v1::Training {
    let mut spec = v1::TrainingSpec {
        precision: v1::Precision::F32.into(),
        ..small_spec(faces)
    };
    spec.dataset.as_mut().unwrap().validation_fraction = Some(0.2);
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(
        training.state(),
        v1::TrainingState::Succeeded,
        "{training:#?}"
    );
    training
}

fn request(dataset: &Path) -> v1::EvaluateModelVersionRequest {
    v1::EvaluateModelVersionRequest {
        dataset: Some(v1::DatasetSpec {
            path: dataset.to_str().unwrap().to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// All messages of an evaluation.
#[derive(Default)]
struct Sent {
    progress: Vec<v1::EvaluationProgress>,
    predictions: Vec<v1::PredictedImage>,
    report: v1::EvaluationReport,
}

impl Sent {
    fn evaluation(&self) -> &v1::Evaluation {
        self.report.evaluation.as_ref().unwrap()
    }
}

async fn evaluate(
    server: &Server,
    request: v1::EvaluateModelVersionRequest,
) -> Result<Sent, Status> {
    let stream = server.models().evaluate_model_version(request).await;
    let mut stream = stream?.into_inner();
    let mut sent = Sent::default();
    let mut reports = 0;
    while let Some(response) = stream.message().await? {
        assert_eq!(reports, 0, "the report is the last message");
        match response.kind.unwrap() {
            Kind::Progress(progress) => sent.progress.push(progress),
            Kind::Predictions(page) => sent.predictions.extend(page.predictions),
            Kind::Report(report) => {
                sent.report = report;
                reports += 1;
            }
        }
    }
    assert_eq!(reports, 1);
    Ok(sent)
}

/// The predicted age of each file, and its interval at the level.
async fn predict(
    server: &Server,
    files: &[PathBuf],
    level: Option<f64>,
) -> Vec<(f64, v1::Interval)> {
    let mut predicted = Vec::new();
    for group in files.chunks(40) {
        let images = group.iter().map(|file| fs_err::read(file).unwrap().into());
        let request = v1::PredictRequest {
            images: images.collect(),
            interval_level: level,
            ..Default::default()
        };
        let answer = server.predictions().predict(request).await.unwrap();
        let predictions = answer.into_inner().predictions.into_iter();
        predicted.extend(predictions.map(|one| (one.age, one.interval.unwrap())));
    }
    predicted
}

fn age_of(file: &Path) -> f64 {
    let name = file.file_name().unwrap().to_str().unwrap();
    name.split('_').next().unwrap().parse().unwrap()
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Equal except for the order of additions in a batch.
fn assert_near(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() < 1e-3,
        "{what}: {found}, not {expected}"
    );
}

#[tokio::test]
async fn evaluation_metrics_follow_from_the_predictions() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 200, 1);
    let files = files_of(&faces);
    let training = train(&server, &faces).await;

    let mut asked = request(&faces);
    asked.include_plots = true;
    asked.include_predictions = true;
    asked.interval_level = Some(0.8);
    let sent = evaluate(&server, asked).await.unwrap();
    let predicted = predict(&server, &files, Some(0.8)).await;
    let ages: Vec<f64> = files.iter().map(|file| age_of(file)).collect();
    let errors: Vec<f64> = predicted
        .iter()
        .zip(&ages)
        .map(|((predicted, _), age)| predicted - age)
        .collect();

    // Each image by name, with the age that Predict returns.
    assert_eq!(sent.predictions.len(), 200);
    for (index, found) in sent.predictions.iter().enumerate() {
        let name = files[index].file_name().unwrap().to_str().unwrap();
        assert_eq!(found.file, name);
        assert_eq!(found.age, ages[index]);
        assert_near(found.predicted, predicted[index].0, name);
        assert_near(found.error, errors[index], name);
    }
    // Metrics computed from the predictions.
    let found = sent.evaluation();
    assert_eq!(found.images, 200);
    let mse = mean(errors.iter().map(|error| error * error));
    assert!((found.mse / mse - 1.0).abs() < 1e-4, "{} {mse}", found.mse);
    assert_near(found.rmse, mse.sqrt(), "rmse");
    assert_near(
        found.mae,
        mean(errors.iter().map(|error| error.abs())),
        "mae",
    );
    assert_near(found.bias, mean(errors.iter().copied()), "bias");
    for (years, share) in [(3.0, found.cs3), (5.0, found.cs5), (10.0, found.cs10)] {
        let within = errors.iter().filter(|error| error.abs() <= years).count();
        // An error may be that close to the limit.
        assert!((share - within as f64 / 200.0).abs() <= 0.01, "CS({years})");
    }
    let mut bands: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for (age, error) in ages.iter().zip(&errors) {
        bands.entry(*age as u32 / 10).or_default().push(error.abs());
    }
    let groups = found.groups.iter().filter(|group| group.key == "age");
    for (group, (band, errors)) in groups.zip(&bands) {
        assert_eq!(group.value, format!("{}-{}", band * 10, band * 10 + 9));
        assert_eq!(group.images, errors.len() as u64);
        assert_near(group.mae, mean(errors.iter().copied()), &group.value);
    }
    let worst = found.worst_group.as_deref().unwrap();
    let large = found.groups.iter().filter(|group| group.images >= 10);
    let highest = large.map(|group| group.mae).fold(0.0, f64::max);
    assert_eq!(worst.mae, highest);
    let mut by_error = errors.clone();
    by_error.sort_by(|one, other| other.abs().total_cmp(&one.abs()));
    assert_eq!(found.worst_predictions.len(), 20);
    for (worst, error) in found.worst_predictions.iter().zip(by_error) {
        assert_near(worst.error.abs(), error.abs(), &worst.file);
    }
    // Intervals at the level 0.8.
    let inside = predicted.iter().zip(&ages).filter(|((_, interval), age)| {
        assert_eq!(interval.confidence, 0.8);
        (interval.lower..=interval.upper).contains(*age)
    });
    let coverage = found.interval_coverage.unwrap();
    assert_eq!(coverage.level, 0.8);
    assert!((coverage.coverage - inside.count() as f64 / 200.0).abs() <= 0.01);
    let widths = predicted
        .iter()
        .map(|(_, interval)| interval.upper - interval.lower);
    assert_near(coverage.mean_width, mean(widths), "mean width");
    // The baseline is the mean age of the training images.
    let dataset = training.dataset.clone().unwrap();
    let of_train = dataset.splits.iter().find(|split| split.split == "train");
    assert_near(found.baseline_age, of_train.unwrap().age_mean, "mean age");
    let source = v1::BaselineSource::TrainingMean;
    assert_eq!(found.baseline_source(), source);

    // The rest of the report.
    let report = &sent.report;
    assert_eq!(report.model_version, training.model_version);
    assert_eq!(report.dataset_digest, dataset.digest);
    assert_eq!(report.split(), DatasetSplit::All);
    assert_eq!(report.skipped_images, 0);
    let trained_on = of_train.unwrap().images;
    assert_eq!(found.trained_on_images, Some(trained_on));
    let warning =
        format!("{trained_on} of these 200 images were trained on; the metrics are optimistic");
    assert!(report.warnings.contains(&warning), "{:?}", report.warnings);
    for png in [&report.predicted_plot_png, &report.residual_plot_png] {
        assert!(png.starts_with(b"\x89PNG") && png.len() > 5_000);
    }
    assert_eq!(sent.progress[0].phase, "scan");
    assert!(sent.progress.iter().all(|step| step.done <= step.total));

    same_split_as_the_training(&server, &training, &faces).await;
    levels(&server, &files[0], &training.model_version).await;
    command_line(&server, &faces, found.mae);
    columns(&server, &files).await;
}

/// Manifest columns with few values define groups; the others are listed with reasons.
async fn columns(server: &Server, files: &[PathBuf]) {
    let manifest = server.path("columns.csv");
    let mut table = "Unnamed: 0,path,age,camera,name,pixels\n".to_owned();
    for (row, file) in files.iter().take(31).enumerate() {
        table += &format!(
            "{row},{},{},{},person {row},{}\n",
            file.display(),
            age_of(file),
            // One image of the third camera.
            ["left", "right", "top"][if row == 30 { 2 } else { row % 2 }],
            "128 ".repeat(2304)
        );
    }
    fs_err::write(&manifest, table).unwrap();
    let sent = evaluate(server, request(&manifest)).await.unwrap();
    let evaluation = sent.evaluation();
    let groups = evaluation.groups.iter().filter(|group| group.key != "age");
    let groups: Vec<(&str, &str, u64)> = groups
        .map(|group| (group.key.as_str(), group.value.as_str(), group.images))
        .collect();
    assert_eq!(groups, [("camera", "left", 15), ("camera", "right", 15)]);
    let left_out = evaluation.left_out_columns.as_ref().unwrap();
    let reasons: Vec<(&str, &str)> = left_out
        .listed
        .iter()
        .map(|column| (column.name.as_str(), column.reason.as_str()))
        .collect();
    assert_eq!(
        reasons,
        [
            ("unnamed: 0", "unnamed"),
            ("name", "unique_values"),
            ("pixels", "long_values")
        ]
    );
    let output = server.run(&["evaluate", "--dataset", manifest.to_str().unwrap()]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        shown.contains(
            "not labels: unnamed: 0 (it has no name), name (most rows have a value of their own)"
        ),
        "{shown}"
    );
}

/// The test split and its metrics are those of the training.
async fn same_split_as_the_training(server: &Server, training: &v1::Training, faces: &Path) {
    let mut asked = request(faces);
    asked.split = DatasetSplit::Test.into();
    let again = evaluate(server, asked).await.unwrap();
    assert!(
        again.report.warnings.is_empty(),
        "{:?}",
        again.report.warnings
    );
    assert!(again.predictions.is_empty() && again.report.predicted_plot_png.is_empty());
    let stored = server
        .models()
        .get_evaluation(v1::GetEvaluationRequest {
            name: "models/age/versions/live".to_owned(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stored.model_version, training.model_version);
    let stored = stored.evaluation.unwrap();
    assert_eq!(Some(&stored), training.test.as_ref());
    let again = again.evaluation();
    assert_eq!(stored.trained_on_images, Some(0));
    assert_eq!(again.trained_on_images, Some(0));
    assert_eq!(stored.images, again.images);
    assert!(
        (stored.mae - again.mae).abs() < 0.01,
        "{} {}",
        stored.mae,
        again.mae
    );
    assert_eq!(
        stored.worst_predictions[0].file,
        again.worst_predictions[0].file
    );
    assert_eq!(stored.baseline_mae, again.baseline_mae);
    let coverage = |evaluation: &v1::Evaluation| evaluation.interval_coverage.unwrap();
    assert_eq!(coverage(&stored).level, 0.9);
    assert!((coverage(&stored).mean_width - coverage(again).mean_width).abs() < 0.01);
}

/// A level between two is rounded up; one above all is refused with the available levels.
async fn levels(server: &Server, file: &Path, version: &str) {
    let files = [file.to_owned()];
    let ninety = predict(server, &files, None).await[0].1;
    assert_eq!(ninety.confidence, 0.9);
    assert_eq!(predict(server, &files, Some(0.85)).await[0].1, ninety);
    let half = predict(server, &files, Some(0.2)).await[0].1;
    assert_eq!(half.confidence, 0.5);
    assert!(half.upper - half.lower <= ninety.upper - ninety.lower);
    for (level, expected) in [
        (0.999, format!("0.999 is not available for {version}: its ")),
        (1.0, "must be above 0 and below 1, got 1".to_owned()),
        (f64::NAN, "must be above 0 and below 1, got NaN".to_owned()),
    ] {
        let request = v1::PredictRequest {
            images: vec![fs_err::read(file).unwrap().into()],
            interval_level: Some(level),
            ..Default::default()
        };
        let refused = server.predictions().predict(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let message = refused.message();
        assert!(message.starts_with("interval_level: "), "{message}");
        assert!(message.contains(&expected), "{message}");
    }
}

/// The same evaluation by the command line.
fn command_line(server: &Server, faces: &Path, mae: f64) {
    let plots = server.path("plots");
    let evaluate = ["--json", "evaluate", "--dataset", faces.to_str().unwrap()];
    let output = server.run(&[&evaluate[..], &["--plots", plots.to_str().unwrap()]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_near(report["evaluation"]["mae"].as_f64().unwrap(), mae, "mae");
    for name in ["predicted.png", "residuals.png"] {
        let plot = fs_err::read(plots.join(name)).unwrap();
        assert!(plot.starts_with(b"\x89PNG"), "{name}");
    }
}

/// Ages by the Open Inference Protocol.
async fn infer(server: &Server, files: &[PathBuf]) -> Vec<f32> {
    let images = files.iter().map(|file| fs_err::read(file).unwrap().into());
    let request = ModelInferRequest {
        model_name: "age".to_owned(),
        inputs: vec![InferInputTensor {
            name: "image".to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![files.len() as i64],
            contents: Some(InferTensorContents {
                bytes_contents: images.collect(),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut client = GrpcInferenceServiceClient::new(server.channel());
    let response = client.model_infer(request).await.unwrap().into_inner();
    assert_eq!(response.outputs[0].name, "age");
    let (values, _) = response.raw_output_contents[0].as_chunks::<4>();
    values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect()
}

#[tokio::test]
async fn no_age_is_negative_or_outside_its_interval_with_any_interface() {
    let server = Server::start(&[]);
    // Nine tenths of the faces are labelled as newborns, so that outputs of the network are on both
    // sides of 0.
    let faces = server.path("newborns");
    fs_err::create_dir(&faces).unwrap();
    for (index, file) in files_of(&server.faces("drawn", 200, 5)).iter().enumerate() {
        let name = format!("{}_{index:03}.png", u32::from(index % 10 == 0));
        fs_err::copy(file, faces.join(name)).unwrap();
    }
    let training = train(&server, &faces).await;
    let files = files_of(&faces);
    let predicted = predict(&server, &files, None).await;
    for (age, interval) in &predicted {
        assert!(age.is_sign_positive(), "{age}");
        let range = interval.lower..=interval.upper;
        assert!(range.contains(age), "{age} {interval:?}");
    }
    let is_zero = |(age, _): &&(f64, v1::Interval)| *age == 0.0;
    let zeros = predicted.iter().filter(is_zero).count();
    assert!((1..200).contains(&zeros), "{zeros} ages are 0");

    let mut asked = request(&faces);
    asked.include_predictions = true;
    let sent = evaluate(&server, asked).await.unwrap();
    for (found, (age, _)) in sent.predictions.iter().zip(&predicted) {
        assert!(found.predicted.is_sign_positive(), "{found:?}");
        assert_near(found.predicted, *age, &found.file);
    }
    same_split_as_the_training(&server, &training, &faces).await;
    let ages = infer(&server, &files[..40]).await;
    for (found, (age, _)) in ages.iter().zip(&predicted) {
        assert!(found.is_sign_positive(), "{found}");
        assert_near(f64::from(*found), *age, "the Open Inference Protocol");
    }
    // The explanation sums to the returned age, also for the mean of an image and its mirror image.
    for average_flip in [false, true] {
        let images = files[..40]
            .iter()
            .map(|file| fs_err::read(file).unwrap().into());
        let request = v1::PredictRequest {
            images: images.collect(),
            explain: true,
            average_flip,
            ..Default::default()
        };
        let answer = server.predictions().predict(request).await.unwrap();
        for one in answer.into_inner().predictions {
            let interval = one.interval.unwrap();
            assert!(one.age.is_sign_positive(), "{}", one.age);
            assert!((interval.lower..=interval.upper).contains(&one.age));
            let explanation = one.explanation.unwrap();
            let years = explanation.years.iter().map(|years| f64::from(*years));
            let sum = explanation.base_years + years.sum::<f64>();
            assert_near(sum, one.age, "the explained age");
        }
    }
}

#[tokio::test]
async fn invalid_evaluations_are_refused_with_a_reason() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 40, 3);
    let refused = evaluate(&server, request(&faces)).await.map(drop);
    assert_eq!(code(&refused), Code::FailedPrecondition);
    assert_eq!(reason(&refused.unwrap_err()), "NO_LIVE_MODEL");

    // Without test images no evaluation is stored.
    let mut spec = small_spec(&faces);
    spec.dataset.as_mut().unwrap().test_fraction = Some(0.0);
    let training = server.ended(&server.queue(spec).await).await;
    let stored = v1::GetEvaluationRequest {
        name: training.model_version.clone(),
    };
    let none = server.models().get_evaluation(stored).await.unwrap_err();
    assert_eq!(
        (none.code(), reason(&none).as_str()),
        (Code::NotFound, "NO_EVALUATION")
    );
    assert!(
        none.message().contains("no test images"),
        "{}",
        none.message()
    );

    let with = |change: fn(&mut v1::EvaluateModelVersionRequest)| {
        let mut asked = request(&faces);
        change(&mut asked);
        asked
    };
    let empty = server.path("empty");
    fs_err::create_dir(&empty).unwrap();
    let cases = [
        // The version's training has no test images, so its split has none here either.
        (
            with(|asked| asked.split = DatasetSplit::Test.into()),
            "split: must be a split with images; the dataset has",
        ),
        (
            with(|asked| asked.split = 9),
            "split: must be a value that this server knows, got 9",
        ),
        (request(&empty), "dataset.path: "),
        (request(Path::new("/no/such/directory")), "dataset.path: "),
        (
            v1::EvaluateModelVersionRequest::default(),
            "dataset.path: must not be empty",
        ),
        (
            with(|asked| asked.dataset.as_mut().unwrap().max_age = Some(-1.0)),
            "dataset.max_age: must be from 0 to 1000 years, got -1",
        ),
        (
            with(|asked| asked.interval_level = Some(0.0)),
            "interval_level: must be above 0 and below 1, got 0",
        ),
        (with(|asked| asked.name = "versions/1".to_owned()), "name: "),
    ];
    for (asked, expected) in cases {
        let refused = evaluate(&server, asked).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(
            refused.message().starts_with(expected),
            "{}",
            refused.message()
        );
    }
    let absent = with(|asked| asked.name = "models/age/versions/77".to_owned());
    let refused = evaluate(&server, absent).await.map(drop);
    assert_eq!(code(&refused), Code::NotFound);

    // A few images are enough for an evaluation, and damaged ones are counted.
    let few = server.faces("few", 4, 8);
    let damaged = few.join("30_damaged.png");
    image::open(&files_of(&few)[0])
        .unwrap()
        .save(&damaged)
        .unwrap();
    let mut bytes = fs_err::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 100].fill(0);
    fs_err::write(&damaged, bytes).unwrap();
    let sent = evaluate(&server, request(&few)).await.unwrap();
    assert_eq!(
        (sent.evaluation().images, sent.report.skipped_images),
        (4, 1)
    );
    let mut asked = request(&few);
    asked.dataset.as_mut().unwrap().max_reject_share = Some(0.1);
    let refused = evaluate(&server, asked).await.map(drop).unwrap_err();
    assert!(
        refused.message().contains("1 of 5 images cannot be read"),
        "{refused}"
    );
}

/// Evaluations are limited in number, yield to predictions, and end with their client.
#[tokio::test]
async fn an_evaluation_leaves_predict_alone_and_ends_with_its_client() {
    let server = Server::start(&["--max-queued-images", "64"]);
    server.train_small().await;
    // 16 million pixels each, so that an evaluation takes long; one file under many names.
    let large = server.path("large");
    fs_err::create_dir(&large).unwrap();
    let first = large.join("30_0.png");
    image::RgbImage::from_pixel(4_000, 4_000, image::Rgb([90, 60, 30]))
        .save(&first)
        .unwrap();
    for number in 1..300 {
        fs_err::hard_link(&first, large.join(format!("30_{number}.png"))).unwrap();
    }
    let mut running = Vec::new();
    let mut models = server.models();
    for _ in 0..4 {
        let stream = models.evaluate_model_version(request(&large)).await;
        running.push(stream.unwrap().into_inner());
    }
    let refused = server
        .models()
        .evaluate_model_version(request(&large))
        .await;
    assert_eq!(code(&refused), Code::ResourceExhausted);
    assert_eq!(reason(&refused.unwrap_err()), "TOO_MANY_EVALUATIONS");
    // All four predict, with one of the 64 permits each.
    for stream in &mut running {
        let predicts = |kind: &Kind| match kind {
            Kind::Progress(progress) => progress.phase == "predict" && progress.done > 0,
            Kind::Predictions(_) | Kind::Report(_) => panic!("it is over: {kind:?}"),
        };
        while !predicts(&stream.message().await.unwrap().unwrap().kind.unwrap()) {}
    }
    for _ in 0..5 {
        server.predict().await.unwrap();
        assert!(queue_depth(&server).await <= 4.0);
    }
    drop(running);
    wait_until("the queue is empty", || async {
        queue_depth(&server).await == 0.0
    })
    .await;
    // The permits of all four are free again.
    let faces = server.path("one-face");
    for _ in 0..5 {
        assert_eq!(
            evaluate(&server, request(&faces))
                .await
                .unwrap()
                .evaluation()
                .images,
            1
        );
    }
}

async fn queue_depth(server: &Server) -> f64 {
    tokio::time::sleep(Duration::from_millis(20)).await;
    let page = server.page("/metrics").await;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("visage_predict_queue_depth "));
    line.unwrap().parse().unwrap()
}
