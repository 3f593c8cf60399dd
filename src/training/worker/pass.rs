//! Results of a pass over images in eval mode, and their exchange between ranks.

use crate::{evaluation::Scored, training::data_loader::LabelledImage};

use super::{decision::Decision, error::Error};

/// The end of a pass.
#[derive(Debug)]
pub(super) enum Pass {
    /// Predictions for readable images, and the positions of these images.
    Complete(Vec<Scored>, Vec<u32>),
    Stopped,
    Paused,
}

impl Pass {
    /// Returns the end of a pass that a decision ends early.
    ///
    /// # Errors
    /// A cancelled training.
    pub(super) fn early_end(decision: Decision, phase: &str) -> Result<Option<Self>, Error> {
        // The test, which ends the training anyway, is finished first.
        let is_validation = phase == "validate";
        match decision {
            Decision::Cancel => Err(Error::Cancelled),
            Decision::Stop if is_validation => Ok(Some(Pass::Stopped)),
            Decision::Pause if is_validation => Ok(Some(Pass::Paused)),
            Decision::Stop | Decision::Pause | Decision::Continue | Decision::OutOfTime => Ok(None),
        }
    }
}

/// Results of one rank, or of all.
#[derive(Debug, Default, PartialEq)]
pub(super) struct PassPart {
    pub(super) skipped: u64,
    /// By position.
    pub(super) scored: Vec<(u32, Scored)>,
}

impl PassPart {
    /// Encodes the results with the decision of this rank.
    pub(super) fn encode(&self, decision: Decision) -> Vec<u8> {
        let mut bytes = vec![decision.code()];
        bytes.extend_from_slice(&self.skipped.to_le_bytes());
        for (position, scored) in &self.scored {
            bytes.extend_from_slice(&position.to_le_bytes());
            bytes.extend_from_slice(&scored.predicted.to_le_bytes());
        }
        bytes
    }

    /// Returns the results of all ranks in the order of the images.
    pub(super) fn merge(encoded: &[Vec<u8>], images: &[LabelledImage]) -> Self {
        let mut merged = PassPart::default();
        for bytes in encoded {
            // The first byte is the decision.
            let Some((skipped, scored)) = bytes.get(1..).and_then(<[u8]>::split_first_chunk::<8>)
            else {
                continue;
            };
            merged.skipped += u64::from_le_bytes(*skipped);
            let (scored, _) = scored.as_chunks::<12>();
            for one in scored {
                let [a, b, c, d, predicted @ ..] = *one;
                let position = u32::from_le_bytes([a, b, c, d]);
                let scored = Scored {
                    age: f64::from(images[position as usize].age),
                    predicted: f64::from_le_bytes(predicted),
                };
                merged.scored.push((position, scored));
            }
        }
        merged
            .scored
            .sort_unstable_by_key(|(position, _)| *position);
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_merged_in_the_order_of_the_images() {
        let image = |age: f32| LabelledImage {
            path: "/faces".into(),
            age,
        };
        let images = [10.0, 20.0, 30.0].map(image);
        let scored = |position: u32, predicted: f64| {
            let age = f64::from(images[position as usize].age);
            (position, Scored { age, predicted })
        };
        let part = |skipped: u64, scored: &[(u32, Scored)]| PassPart {
            skipped,
            scored: scored.to_vec(),
        };
        let (first, second) = (
            part(1, &[scored(0, 0.1), scored(2, 29.5)]),
            part(2, &[scored(1, -3.0)]),
        );
        let encoded = [
            first.encode(Decision::Continue),
            second.encode(Decision::Pause),
            part(0, &[]).encode(Decision::Continue),
        ];
        let expected = part(3, &[scored(0, 0.1), scored(1, -3.0), scored(2, 29.5)]);
        assert_eq!(PassPart::merge(&encoded, &images), expected);
    }

    #[test]
    fn a_test_is_finished_before_a_stop() {
        let end = |decision, phase| Pass::early_end(decision, phase);
        assert!(matches!(
            end(Decision::Stop, "validate"),
            Ok(Some(Pass::Stopped))
        ));
        assert!(matches!(
            end(Decision::Pause, "validate"),
            Ok(Some(Pass::Paused))
        ));
        assert!(matches!(end(Decision::Stop, "test"), Ok(None)));
        assert!(matches!(end(Decision::OutOfTime, "validate"), Ok(None)));
        assert!(matches!(
            end(Decision::Cancel, "test"),
            Err(Error::Cancelled)
        ));
    }
}
