//! Number of shards, and the batches that they can divide.

use crate::proto::validation::Check;

use super::resolved::Spec;

const MAX_SHARDS: u32 = 64;
/// Fewest images of a shard in a step whose BatchNorm statistics are usable.
const MIN_SHARD_IMAGES: usize = 4;

pub(super) fn read(check: &mut Check, given: Option<u32>) -> usize {
    let shards = given.unwrap_or(1);
    if !shards.is_power_of_two() || shards > MAX_SHARDS {
        check.refuse(
            "spec.shards",
            format!("must be a power of two from 1 to {MAX_SHARDS}, got {shards}"),
        );
        return 1;
    }
    shards as usize
}

/// Refuses shards that do not divide the batch, or that are too small for their BatchNorms.
pub(super) fn check_batch(check: &mut Check, spec: &Spec) {
    let (shards, batch_size) = (spec.shards, spec.batch_size);
    if shards == 1 {
        return;
    }
    let images = if spec.freeze_batch_norm {
        1
    } else {
        MIN_SHARD_IMAGES
    };
    if !batch_size.is_multiple_of(shards) || batch_size < images * shards {
        let multiple = if batch_size < images * shards {
            format!("at least {} ({images} images per shard)", images * shards)
        } else {
            format!("a multiple of spec.shards ({shards})")
        };
        check.refuse(
            "spec.batch_size",
            format!("must be {multiple}, got {batch_size}; change it or spec.shards"),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::{proto::v1, training::spec::halve_batch};

    use super::Spec;

    fn minimal() -> v1::TrainingSpec {
        v1::TrainingSpec {
            dataset: Some(v1::DatasetSpec {
                path: "/faces".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn shards_divide_the_batch_and_have_enough_images() {
        let with = |shards: u32, batch_size: u32, batch_norm: v1::BatchNormPolicy| {
            let spec = v1::TrainingSpec {
                shards: Some(shards),
                batch_size: Some(batch_size),
                batch_norm: batch_norm.into(),
                ..minimal()
            };
            Spec::resolve(Some(&spec))
        };
        let (update, frozen) = (v1::BatchNormPolicy::Update, v1::BatchNormPolicy::Frozen);
        for (shards, batch_size, batch_norm) in [
            (1, 1, update),
            (2, 8, update),
            (8, 32, update),
            (64, 256, update),
            (8, 8, frozen),
        ] {
            let spec = with(shards, batch_size, batch_norm).unwrap();
            assert_eq!(spec.shards, shards as usize);
        }
        for (shards, batch_size, batch_norm, field) in [
            (0, 32, update, "spec.shards"),
            (3, 33, update, "spec.shards"),
            (128, 4_096, update, "spec.shards"),
            (4, 18, update, "spec.batch_size"),
            (8, 24, update, "spec.batch_size"),
            (8, 12, frozen, "spec.batch_size"),
        ] {
            let violations = with(shards, batch_size, batch_norm).unwrap_err();
            assert_eq!(violations.len(), 1, "{violations:?}");
            assert_eq!(violations[0].field, field, "{shards} {batch_size}");
        }
        // The default is one shard.
        assert_eq!(Spec::resolve(Some(&minimal())).unwrap().shards, 1);
        // A smaller batch would leave 2 images per shard.
        let mut spec = with(4, 16, update).unwrap().to_message();
        assert_eq!(halve_batch(&mut spec), None);
    }
}
