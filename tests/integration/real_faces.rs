//! Real photos of faces, if they are available.

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage, imageops};
use visage::proto::v1::{self, FaceDetection, TrainingState};

use crate::support::{Server, files_of};

/// The directory with UTKFace's `train` and `val`, which its licence keeps out of the repository.
fn real_faces() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/utkface");
    if beside.join("train").is_dir() {
        return Some(beside.canonicalize().unwrap());
    }
    eprintln!("skipped: no UTKFace images in {}", beside.display());
    None
}

/// Links every `step`-th image of a split.
fn link_some(part: &Path, target: &Path, step: usize) -> Vec<f64> {
    fs_err::create_dir_all(target).unwrap();
    let mut ages = Vec::new();
    for image in files_of(part).into_iter().step_by(step) {
        let name = image.file_name().unwrap();
        let age = name.to_str().unwrap().split('_').next().unwrap();
        ages.push(age.parse().unwrap());
        std::os::unix::fs::symlink(&image, target.join(name)).unwrap();
    }
    ages
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[tokio::test]
async fn short_fine_tuning_on_real_faces_beats_the_mean_age() {
    let Some(source) = real_faces() else {
        return;
    };
    // The links lead there.
    let server = Server::start(&["--data-roots", "/"]);
    let faces = server.path("faces");
    let train = link_some(&source.join("train"), &faces.join("train"), 40);
    let validation = link_some(&source.join("val"), &faces.join("val"), 24);
    let mean_age = mean(&train);
    let errors: Vec<f64> = validation
        .iter()
        .map(|age| (age - mean_age).abs())
        .collect();
    let baseline = mean(&errors);
    let spec = v1::TrainingSpec {
        dataset: Some(v1::DatasetSpec {
            path: faces.to_str().unwrap().to_owned(),
            ..Default::default()
        }),
        init: Some(v1::InitSpec {
            kind: v1::InitKind::Random.into(),
            ..Default::default()
        }),
        trainable: vec!["ALL".to_owned()],
        max_epochs: Some(5),
        batch_size: Some(16),
        input_size: Some(64),
        optimizer: Some(v1::OptimizerSpec {
            learning_rate: Some(1e-3),
            ..Default::default()
        }),
        ..Default::default()
    };
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    let report = training.dataset.unwrap();
    let count = |split: &str| {
        let found = report.splits.iter().find(|part| part.split == split);
        found.map_or(0, |part| part.images)
    };
    assert_eq!(count("train"), train.len() as u64);
    assert_eq!(count("validation"), validation.len() as u64);
    let best = training.best.unwrap();
    eprintln!(
        "validation MAE {:.2} years, {baseline:.2} for the mean age",
        best.val_mae
    );
    assert!(
        best.val_mae < 0.95 * baseline,
        "{} is not below {baseline}",
        best.val_mae
    );
}

#[tokio::test]
async fn an_evaluation_counts_the_real_faces_that_the_starter_was_trained_on() {
    let Some(source) = real_faces() else {
        return;
    };
    // The links lead there.
    let server = Server::start(&["--starter", "--data-roots", "/"]);
    let faces = server.path("faces");
    let trained_on = link_some(&source.join("train"), &faces, 600).len();
    let unseen = link_some(&source.join("val"), &faces, 200).len();
    let evaluate = ["--json", "evaluate", "--dataset", faces.to_str().unwrap()];
    let output = server.run(&evaluate);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let evaluation = &report["evaluation"];
    assert_eq!(evaluation["images"], trained_on + unseen, "{report}");
    assert_eq!(evaluation["trained_on_images"], trained_on, "{report}");
}

/// UTKFace has names without a race, with a space before the extension, and 375 groups of equal
/// images.
#[tokio::test]
async fn all_of_utkface_is_read_with_its_irregular_names() {
    let Some(source) = real_faces() else {
        return;
    };
    let root = source.to_str().unwrap();
    let server = Server::start(&["--data-roots", root]);
    let request = v1::StartTrainingRequest {
        spec: Some(v1::TrainingSpec {
            dataset: Some(v1::DatasetSpec {
                path: root.to_owned(),
                ..Default::default()
            }),
            init: Some(v1::InitSpec {
                kind: v1::InitKind::Random.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        validate_only: true,
        ..Default::default()
    };
    let response = server.trainings().start_training(request).await.unwrap();
    let response = response.into_inner();
    let report = response.training.unwrap().dataset.unwrap();
    let images: u64 = report.splits.iter().map(|split| split.images).sum();
    assert_eq!(images, 21_272, "{report:#?}");
    assert!(report.rejects.is_empty(), "{report:#?}");
    assert_eq!(report.straddling_groups, 0, "{report:#?}");
    assert_eq!(
        response.estimate.unwrap().steps_per_epoch,
        18_928_u64.div_ceil(32)
    );
}

/// In the whole of UTKFace, 23,707 files, 375 groups are byte-identical and 205 of them differ in
/// their ages. The splits here, 21,272 files, were assigned by the hash of the bytes, so that no
/// group is in two splits; `sha256sum` finds 333 groups of 680 files in them, 184 with different
/// ages.
#[tokio::test]
async fn check_of_utkface_finds_its_known_problems() {
    let Some(source) = real_faces() else {
        return;
    };
    let root = source.to_str().unwrap();
    let server = Server::start(&["--data-roots", root]);
    let request = v1::CheckDatasetRequest {
        dataset: Some(v1::DatasetSpec {
            path: root.to_owned(),
            ..Default::default()
        }),
        max_listed: Some(1_000),
        ..Default::default()
    };
    let mut datasets = v1::dataset_service_client::DatasetServiceClient::new(server.channel());
    let mut stream = datasets.check_dataset(request).await.unwrap().into_inner();
    let mut report = None;
    while let Some(response) = stream.message().await.unwrap() {
        if let Some(v1::check_dataset_response::Kind::Report(found)) = response.kind {
            report = Some(found);
        }
    }
    let report = report.unwrap();
    let exact = report.exact.unwrap();
    assert_eq!((exact.groups, exact.images), (333, 680));
    assert_eq!(
        (exact.straddling_groups, exact.conflicting_groups),
        (0, 184)
    );
    // The furthest apart, by name.
    let gap = exact.listed.iter().find(|group| {
        let has = |stamp| group.images.iter().any(|image| image.file.contains(stamp));
        has("20170104202352685") && has("20170104202409738")
    });
    let mut ages: Vec<f64> = gap.unwrap().images.iter().map(|image| image.age).collect();
    ages.sort_by(f64::total_cmp);
    assert_eq!(ages, [5.0, 53.0]);

    let near = report.near.unwrap();
    eprintln!(
        "{} groups of {} images look the same, {} of them in both parts",
        near.groups, near.images, near.straddling_groups
    );
    // Portraits that were published in several sizes; the pairs were verified by eye.
    assert!(
        near.straddling_groups > 0,
        "a split by bytes does not see them"
    );
    // A hash that confuses faces would join them into one large group.
    let largest = near.listed.iter().map(|group| group.size).max().unwrap();
    assert!((2..=40).contains(&largest), "{largest}");
    assert!((400..=700).contains(&near.groups), "{}", near.groups);
}

/// The square around a face must match the images of the training, or ages are off by years.
#[tokio::test]
async fn faces_in_larger_images_are_found_with_the_ages_of_their_crops() {
    let Some(source) = real_faces() else {
        return;
    };
    let server = Server::start(&["--starter"]);
    let png = |image: &RgbImage| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner().into()
    };
    let (mut of_chips, mut of_photographs) = (Vec::new(), Vec::new());
    let (mut chips, mut found) = (0, 0);
    for (index, path) in files_of(&source.join("val"))
        .into_iter()
        .step_by(40)
        .enumerate()
    {
        let name = path.file_name().unwrap().to_str().unwrap();
        let age: f64 = name.split('_').next().unwrap().parse().unwrap();
        let chip = image::open(&path).unwrap().into_rgb8();
        let side = 120 + 40 * (index as u32 % 6);
        let resized = imageops::resize(&chip, side, side, imageops::FilterType::Triangle);
        let mut larger = RgbImage::from_pixel(800, 600, Rgb([110, 120, 130]));
        let (left, top) = (37 * index % 400, 53 * index % 250);
        imageops::replace(&mut larger, &resized, left as i64, top as i64);
        let ask = |image: &RgbImage, detect_faces: bool| {
            let request = v1::PredictRequest {
                images: vec![png(image)],
                detect_faces,
                ..Default::default()
            };
            let mut client = server.predictions();
            async move {
                let response = client.predict(request).await.unwrap();
                response.into_inner().predictions.remove(0)
            }
        };
        chips += 1;
        let in_larger_image = ask(&larger, true).await;
        if in_larger_image.face_detection() != FaceDetection::Found {
            continue;
        }
        found += 1;
        of_chips.push((ask(&chip, false).await.age - age).abs());
        of_photographs.push((in_larger_image.age - age).abs());
    }
    let (chip_error, photograph_error) = (mean(&of_chips), mean(&of_photographs));
    eprintln!(
        "{found} of {chips} found; MAE {photograph_error:.2} years, {chip_error:.2} of the chips themselves"
    );
    assert!(
        f64::from(found) > 0.9 * f64::from(chips),
        "{found} of {chips}"
    );
    assert!(photograph_error < chip_error + 1.0, "{photograph_error}");
}
