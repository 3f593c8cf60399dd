//! Round trips through the file, and refusals.

use tch::Tensor;

use crate::proto::{
    v1,
    worker_v1::{PartialEpoch, Resume, ResumePoint, TrainerRecord},
};

use super::{Snapshot, read};

fn snapshot() -> Snapshot {
    let record = TrainerRecord {
        epochs: 3,
        dataset_digest: "d1".to_owned(),
        partial: Some(PartialEpoch {
            position: 7,
            sum_squared_error: 0.1 + 0.2,
            ..Default::default()
        }),
        ..Default::default()
    };
    let tensors = [
        ("state/fc.bias".to_owned(), Tensor::from_slice(&[1.5f32])),
        ("state/n".to_owned(), Tensor::from(9_i64)),
        (
            "moment/1".to_owned(),
            Tensor::from_slice(&[0.25f32, f32::MIN_POSITIVE]),
        ),
    ];
    let named = tensors.iter().map(|(name, one)| (name.clone(), one));
    Snapshot::take(record, named, |name| name.starts_with("moment/")).unwrap()
}

#[test]
fn a_file_is_read_bit_by_bit_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let point = snapshot().write(directory.path(), 2, 5).unwrap();
    assert_eq!(point.file, "trainer-2-5.safetensors");
    let resume = Resume {
        point: Some(point),
        ..Default::default()
    };
    let mut restored = read(directory.path(), &resume, ("d1", 1)).unwrap();
    assert_eq!(restored.record.epochs, 3);
    let partial = restored.record.partial.unwrap();
    assert_eq!(
        partial.sum_squared_error.to_bits(),
        (0.1_f64 + 0.2).to_bits()
    );
    let state = restored.take("state/");
    assert_eq!(state.keys().collect::<Vec<_>>(), ["fc.bias", "n"]);
    assert_eq!(state["n"].int64_value(&[]), 9);
    let moment = Vec::<f32>::try_from(&restored.tensors["moment/1"]).unwrap();
    assert_eq!(moment, [0.25, f32::MIN_POSITIVE]);
}

#[test]
fn an_unusable_file_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let point = snapshot().write(directory.path(), 1, 1).unwrap();
    let refused = |point: &ResumePoint, digest: &str| {
        let resume = Resume {
            point: Some(point.clone()),
            ..Default::default()
        };
        read(directory.path(), &resume, (digest, 1)).unwrap_err()
    };
    let text = refused(&point, "d2");
    assert!(text.contains("the dataset has changed"), "{text}");
    let path = directory.path().join(&point.file);
    let mut bytes = fs_err::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    let text = refused(&point, "d1");
    assert!(text.contains("is damaged"), "{text}");
    fs_err::remove_file(path).unwrap();
    let text = refused(&point, "d1");
    assert!(text.contains("trainer-1-1.safetensors"), "{text}");
}

#[test]
fn a_file_of_other_shards_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut of_four = snapshot();
    of_four.record.shards = 4;
    let point = of_four.write(directory.path(), 1, 1).unwrap();
    let resume = Resume {
        point: Some(point),
        ..Default::default()
    };
    read(directory.path(), &resume, ("d1", 4)).unwrap();
    let text = read(directory.path(), &resume, ("d1", 2)).unwrap_err();
    assert!(text.ends_with("must be 2, got 4"), "{text}");
}

#[test]
fn a_best_epoch_without_its_weights_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut with_best = snapshot();
    with_best.record.best = Some(v1::EpochMetrics {
        epoch: 2,
        ..Default::default()
    });
    let point = with_best.write(directory.path(), 1, 1).unwrap();
    assert_eq!(point.best_epoch, 2);
    let resume = Resume {
        point: Some(point),
        ..Default::default()
    };
    let text = read(directory.path(), &resume, ("d1", 1)).unwrap_err();
    assert!(text.contains("best epoch is missing"), "{text}");
}
