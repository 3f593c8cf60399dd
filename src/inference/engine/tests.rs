//! The engine alone, with copies of the starter weights that differ by a bit.

use std::{path::Path, sync::Arc};

use sha2::{Digest as _, Sha256};
use tch::Device;

use super::{Engine, EngineOptions};
use crate::{
    inference::{
        Client, Error, PredictOptions, Priority, ServedModel, admission::AdmissionController,
        job::Job, model_io::ModelInput, queue::EntryResult,
    },
    model::{
        precision::{Precision, PrecisionPolicy},
        starter,
    },
};

/// On the CPU, with room for two versions.
const OPTIONS: EngineOptions = EngineOptions {
    device: Device::Cpu,
    pipelined: false,
    precision: PrecisionPolicy::Auto,
    threads: 1,
    max_batch: 4,
    max_queued: 8,
    max_loaded: 2,
};

/// The starter with `bit` changed in its last value.
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

/// Submits an image of one shade.
fn submit(
    engine: &Engine,
    admission: &AdmissionController,
    model: &Arc<ServedModel>,
    shade: f32,
) -> EntryResult {
    let client = Client::new("one");
    let priority = Priority::Interactive;
    let mut permits = admission.admit(&client, 1, priority, None).unwrap();
    let job = Job {
        index: 0,
        model: Arc::clone(model),
        options: PredictOptions::default(),
        deadline: None,
        priority,
        client,
        trace: None,
    };
    let input = ModelInput::Values(vec![shade; model.input.values()]);
    let permit = permits.split().unwrap();
    engine.submit(job, input, permit).unwrap()
}

#[tokio::test]
async fn images_of_an_evicted_version_delay_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let [pinned, evicted, last] = [0, 1, 2].map(|bit| copy(directory.path(), bit));
    let (engine, thread) = Engine::start(OPTIONS).unwrap();
    let admission = AdmissionController::new(8);
    engine.load(Arc::clone(&pinned), true).await.unwrap();
    engine.load(Arc::clone(&evicted), false).await.unwrap();
    let report = engine.precision_report(&evicted);
    assert!(report.is_some());
    engine.load(Arc::clone(&last), false).await.unwrap();
    assert_eq!(engine.precision_report(&evicted), None);

    let mut late = submit(&engine, &admission, &evicted, 0.0);
    let mut soon = submit(&engine, &admission, &pinned, 0.0);
    let (result, first) = tokio::select! {
        biased;
        result = &mut late => (result, &evicted),
        result = &mut soon => (result, &pinned),
    };
    assert_eq!(first.name, pinned.name);
    let age = result.unwrap().unwrap().0.age;
    // The version is loaded again; one bit of a weight hardly changes the age.
    let again = late.await.unwrap().unwrap().0.age;
    assert!((again - age).abs() < 0.01, "{again} and {age}");
    // Its report is the same as before.
    assert_eq!(engine.precision_report(&evicted), report);

    // A version that cannot be loaded again fails its images.
    engine.load(last, false).await.unwrap();
    fs_err::remove_file(&evicted.weights).unwrap();
    let refused = submit(&engine, &admission, &evicted, 0.0).await.unwrap();
    assert!(matches!(refused, Err(Error::Model { .. })), "{refused:?}");
    drop(engine);
    thread.join().unwrap();
}

#[tokio::test]
async fn pipelined_batches_all_have_results_and_each_image_its_own_age() {
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
        let results = Vec::from_iter((0..IMAGES).map(|shade| {
            let model = if shade % 3 == 0 { &other } else { &one };
            submit(&engine, &admission, model, f32::from(shade) / 4.0)
        }));
        // Images that are queued have results even if nothing comes after them.
        drop(engine);
        let mut found = Vec::new();
        for result in results {
            found.push(result.await.unwrap().unwrap().0.age);
        }
        thread.join().unwrap();
        ages.push(found);
    }
    let is_apart = |pair: &[f64]| (pair[0] - pair[1]).abs() > 1e-3;
    assert!(ages[0].windows(2).all(is_apart), "{ages:?}");
    let same = |(one, other): (&f64, &f64)| (one - other).abs() < 1e-4;
    assert!(ages[0].iter().zip(&ages[1]).all(same), "{ages:?}");
}
