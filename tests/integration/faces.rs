//! Images with several faces, and explanations.

use image::{Rgb, RgbImage, imageops};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tonic::Code;
use visage::{
    proto::v1::{self, FaceDetection},
    testing::Person,
};

use crate::support::{Server, code, reason, small_spec};

/// An image with drawn faces of 200×200 pixels.
pub(crate) fn group(width: u32, height: u32, places: &[(i64, i64)]) -> RgbImage {
    let mut image = RgbImage::from_pixel(width, height, Rgb([120, 130, 140]));
    for (seed, (left, top)) in (0_u64..).zip(places) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let age = 20 + 10 * u8::try_from(seed % 6).unwrap();
        let face = Person::sample(age, &mut rng).draw(200, &mut rng).unwrap();
        imageops::replace(&mut image, &face, *left, *top);
    }
    image
}

fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn decoded(png: &[u8]) -> RgbImage {
    assert_eq!(image::guess_format(png).unwrap(), image::ImageFormat::Png);
    image::load_from_memory(png).unwrap().into_rgb8()
}

fn asking(images: &[RgbImage]) -> v1::PredictRequest {
    v1::PredictRequest {
        images: images.iter().map(|image| png(image).into()).collect(),
        ..Default::default()
    }
}

async fn predict(server: &Server, request: v1::PredictRequest) -> Vec<v1::Prediction> {
    let response = server.predictions().predict(request).await.unwrap();
    response.into_inner().predictions
}

/// Trains a model whose last layer has a 3x3 feature map.
async fn train(server: &Server) {
    let faces = server.faces("train", 60, 3);
    let spec = v1::TrainingSpec {
        input_size: Some(96),
        max_epochs: Some(1),
        ..small_spec(&faces)
    };
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(
        training.state(),
        v1::TrainingState::Succeeded,
        "{training:#?}"
    );
}

#[tokio::test]
async fn each_detected_face_is_predicted_like_its_crop() {
    let server = Server::start(&[]);
    train(&server).await;
    let places = [(60, 40), (400, 260), (720, 90)];
    let image = group(1000, 520, &places);
    let wall = RgbImage::from_pixel(300, 200, Rgb([90, 80, 70]));
    let request = v1::PredictRequest {
        detect_faces: true,
        annotate: true,
        explain: true,
        ..asking(&[image.clone(), wall.clone()])
    };
    let predictions = predict(&server, request).await;
    let found = &predictions[0];
    assert_eq!(found.face_detection(), FaceDetection::Found);
    assert_eq!(found.faces.len(), places.len(), "{:?}", found.faces);
    assert_eq!(found.age, found.faces[0].age);
    assert_eq!(found.interval, found.faces[0].interval);
    let weights = found.faces.iter().map(|face| {
        let marked = face.detected.unwrap();
        f64::from(face.score) * f64::from(marked.width).powi(2)
    });
    assert!(weights.is_sorted_by(|one, other| one >= other));
    for face in &found.faces {
        let place = face.r#box.unwrap();
        let middle = |begin: i32, length: u32| i64::from(begin) + i64::from(length) / 2;
        let (x, y) = (
            middle(place.left, place.width),
            middle(place.top, place.height),
        );
        let is_a_face = places
            .iter()
            .any(|(left, top)| (x - left - 100).abs() < 40 && (y - top - 100).abs() < 50);
        assert!(is_a_face, "{place:?}");
        let mut alone = RgbImage::new(place.width, place.height);
        let (left, top) = (i64::from(place.left), i64::from(place.top));
        imageops::replace(&mut alone, &image, -left, -top);
        let of_square = &predict(&server, asking(&[alone])).await[0];
        // The batch size changes the rounding.
        assert!(
            (of_square.age - face.age).abs() < 1e-3,
            "{} and {}",
            of_square.age,
            face.age
        );
        assert_eq!(decoded(&face.explanation_png).dimensions(), (96, 96));
        assert_explains(face.explanation.as_ref().unwrap(), face.age);
    }
    assert_eq!(decoded(&found.annotated_png).dimensions(), (1000, 520));
    assert_ne!(decoded(&found.annotated_png), image);
    assert!(found.explanation.is_none() && found.explanation_png.is_empty());

    let none = &predictions[1];
    assert_eq!(none.face_detection(), FaceDetection::NoFace);
    assert!(none.age.is_nan() && none.interval.is_none() && none.faces.is_empty());
    assert_eq!(decoded(&none.annotated_png), wall);
    // Without the option the response has no faces.
    let plain = &predict(&server, asking(&[wall])).await[0];
    assert_eq!(plain.face_detection(), FaceDetection::Unspecified);
    assert!(plain.age.is_finite() && plain.faces.is_empty());

    let metrics = server.page("/metrics").await;
    for line in [
        "visage_predict_faces_count 2",
        "visage_predict_faces_sum 3",
        "visage_predict_detection_seconds_count 2",
        "visage_predict_queue_depth 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}\n{metrics}"
        );
    }
}

fn assert_explains(explanation: &v1::Explanation, age: f64) {
    assert_eq!((explanation.rows, explanation.columns), (3, 3));
    assert_eq!(explanation.years.len(), 9);
    let sum: f64 = explanation
        .years
        .iter()
        .map(|years| f64::from(*years))
        .sum();
    assert!((sum + explanation.base_years - age).abs() < 1e-6, "{age}");
    assert!(explanation.years.iter().any(|years| *years != 0.0));
}

#[tokio::test]
async fn an_explanation_sums_up_to_the_age_and_is_laid_over_the_image() {
    // The other precision, which libtorch computes.
    for precision in ["auto", "f32"] {
        let server = Server::start(&["--precision", precision]);
        train(&server).await;
        let images = [group(200, 200, &[(0, 0)]), group(2000, 500, &[(900, 100)])];
        let plain = predict(&server, asking(&images)).await;
        let request = v1::PredictRequest {
            explain: true,
            ..asking(&images)
        };
        let predictions = predict(&server, request).await;
        for (prediction, plain) in predictions.iter().zip(&plain) {
            // An explanation does not change the prediction.
            assert!((prediction.age - plain.age).abs() < 1e-3);
            assert!(plain.explanation.is_none() && plain.explanation_png.is_empty());
            assert_explains(prediction.explanation.as_ref().unwrap(), prediction.age);
            assert!(prediction.annotated_png.is_empty());
        }
        let base =
            |prediction: &v1::Prediction| prediction.explanation.as_ref().unwrap().base_years;
        assert!((base(&predictions[0]) - base(&predictions[1])).abs() < 1e-3);
        let drawn = decoded(&predictions[0].explanation_png);
        assert_eq!(drawn.dimensions(), (200, 200));
        assert_ne!(drawn, images[0]);
        assert_eq!(
            decoded(&predictions[1].explanation_png).dimensions(),
            (1024, 256)
        );
    }
}

#[tokio::test]
async fn many_faces_pass_a_queue_of_one_and_leave_it_empty() {
    let server = Server::start(&[
        "--max-queued-images",
        "1",
        "--max-images-per-request",
        "1",
        "--max-batch",
        "1",
    ]);
    train(&server).await;
    let places: Vec<(i64, i64)> = (0..12)
        .map(|index| (index % 4 * 240, index / 4 * 230))
        .collect();
    let request = v1::PredictRequest {
        detect_faces: true,
        ..asking(&[group(960, 700, &places)])
    };
    let calls = (0..6).map(|_| {
        let (mut client, request) = (server.predictions(), request.clone());
        tokio::spawn(async move { client.predict(request).await })
    });
    let mut answered = 0;
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(response) => {
                answered += 1;
                let faces = response.into_inner().predictions.remove(0).faces;
                assert!(faces.len() >= 10, "{}", faces.len());
            }
            // Refused by admission; admitted images keep their permits.
            Err(status) => assert_eq!(reason(&status), "QUEUE_FULL", "{status}"),
        }
    }
    assert!(answered >= 1);
    let metrics = server.page("/metrics").await;
    assert!(
        metrics.contains("visage_predict_queue_depth 0\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_deadline_ends_the_search() {
    let server = Server::start(&[]);
    train(&server).await;
    let image = RgbImage::from_fn(4000, 3000, |x, y| {
        Rgb([
            (x * 7 % 256) as u8,
            (y * 5 % 256) as u8,
            ((x ^ y) % 256) as u8,
        ])
    });
    let mut request = tonic::Request::new(v1::PredictRequest {
        detect_faces: true,
        ..asking(&[image])
    });
    request.set_timeout(std::time::Duration::from_millis(60));
    let answer = server.predictions().predict(request).await;
    // The client times out as well, with a message of its own.
    let found = code(&answer);
    assert!(
        [Code::DeadlineExceeded, Code::Cancelled].contains(&found),
        "{answer:?}"
    );
    crate::support::wait_until("the image has left", || async {
        let metrics = server.page("/metrics").await;
        metrics.contains("visage_predict_queue_depth 0\n")
    })
    .await;
    assert!(server.predict().await.is_ok());
}
