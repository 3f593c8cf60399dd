//! The engine alone, with copies of the starter that differ by a bit.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::*;
use crate::{
    inference::{
        Priority,
        admission::{AdmissionController, Permit},
        client::Client,
        input::Input,
    },
    model::{precision::Precision, starter},
};

/// On a processor, with room for two versions.
const OPTIONS: EngineOptions = EngineOptions {
    device: Device::Cpu,
    pipelined: false,
    precision: PrecisionPolicy::Auto,
    threads: 1,
    max_batch: 4,
    max_queued: 8,
    max_loaded: 2,
};

/// The starter with another last bit in its last tensor.
fn copy(directory: &Path, bit: u8) -> Arc<ServedModel> {
    let (_, weights) = starter::files()
        .into_iter()
        .find(|(name, _)| *name == "model.safetensors")
        .unwrap();
    let mut weights = weights.to_vec();
    let lowest = weights.len() - size_of::<f32>();
    weights[lowest] ^= bit;
    let path = directory.join(format!("{bit}.safetensors"));
    fs_err::write(&path, &weights).unwrap();
    let sha256 = Sha256::digest(&weights)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let name = format!("models/age/versions/{}", bit + 1);
    Arc::new(ServedModel::new(
        name,
        path,
        sha256,
        starter::manifest().clone(),
    ))
}

/// An image of one shade for a version, on its way.
fn submit(
    engine: &Engine,
    admission: &AdmissionController,
    model: &Arc<ServedModel>,
    shade: f32,
) -> oneshot::Receiver<Result<(Output, Permit), Error>> {
    let (reply, answer) = oneshot::channel();
    let client = Client::new("one");
    let item = QueueEntry {
        input: Input::Numbers(vec![shade; model.input.values()]),
        average_flip: false,
        model: Arc::clone(model),
        explain: false,
        deadline: None,
        reply,
        priority: Priority::Interactive,
        client: client.clone(),
        enqueued: Instant::now(),
        trace: None,
        permit: admission
            .admit(&client, 1, Priority::Interactive, None)
            .unwrap()
            .split()
            .unwrap(),
    };
    engine.submit(item).unwrap();
    answer
}

#[tokio::test]
async fn images_of_a_version_that_was_let_go_of_hold_up_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let [pinned, gone, last] = [0, 1, 2].map(|bit| copy(directory.path(), bit));
    let (engine, thread) = Engine::start(OPTIONS).unwrap();
    let admission = AdmissionController::new(8);
    engine.load(Arc::clone(&pinned), true).await.unwrap();
    engine.load(Arc::clone(&gone), false).await.unwrap();
    let rounding = engine.precision_report(&gone);
    assert!(rounding.is_some());
    engine.load(Arc::clone(&last), false).await.unwrap();
    assert_eq!(engine.precision_report(&gone), None);

    let mut late = submit(&engine, &admission, &gone, 0.0);
    let mut soon = submit(&engine, &admission, &pinned, 0.0);
    let (age, first) = tokio::select! {
        biased;
        answer = &mut late => (answer, &gone),
        answer = &mut soon => (answer, &pinned),
    };
    assert_eq!(first.name, pinned.name);
    let age = age.unwrap().unwrap().0.age;
    // It is loaded again and answered; one bit of a weight moves the age by next to nothing.
    let again = late.await.unwrap().unwrap().0.age;
    assert!((again - age).abs() < 0.01, "{again} and {age}");
    // Whoever asks for its metadata is told the same as before.
    assert_eq!(engine.precision_report(&gone), rounding);

    // What cannot be loaded again is told so.
    engine.load(last, false).await.unwrap();
    fs_err::remove_file(&gone.weights).unwrap();
    let refused = submit(&engine, &admission, &gone, 0.0).await.unwrap();
    assert!(matches!(refused, Err(Error::Model { .. })), "{refused:?}");
    drop(engine);
    thread.join().unwrap();
}

#[tokio::test]
async fn batches_that_are_begun_ahead_are_answered_all_and_each_with_its_own_ages() {
    const IMAGES: u8 = 7;
    let directory = tempfile::tempdir().unwrap();
    let [one, other] = [0, 1].map(|bit| copy(directory.path(), bit));
    let mut ages = Vec::new();
    for pipelined in [false, true] {
        let options = EngineOptions {
            pipelined,
            precision: PrecisionPolicy::Only(Precision::F32),
            threads: 2,
            max_batch: 2,
            ..OPTIONS
        };
        let (engine, thread) = Engine::start(options).unwrap();
        let admission = AdmissionController::new(8);
        engine.load(Arc::clone(&one), true).await.unwrap();
        engine.load(Arc::clone(&other), false).await.unwrap();
        let answers = Vec::from_iter((0..IMAGES).map(|shade| {
            let model = if shade % 3 == 0 { &other } else { &one };
            submit(&engine, &admission, model, f32::from(shade) / 4.0)
        }));
        // Whoever has asked is answered, whether or not anything comes after it.
        drop(engine);
        let mut found = Vec::new();
        for answer in answers {
            found.push(answer.await.unwrap().unwrap().0.age);
        }
        thread.join().unwrap();
        ages.push(found);
    }
    let is_apart = |pair: &[f64]| (pair[0] - pair[1]).abs() > 1e-3;
    assert!(ages[0].windows(2).all(is_apart), "{ages:?}");
    let same = |(one, other): (&f64, &f64)| (one - other).abs() < 1e-4;
    assert!(ages[0].iter().zip(&ages[1]).all(same), "{ages:?}");
}
