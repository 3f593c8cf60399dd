//! Records of an event file, in the format of TensorFlow's `TFRecordWriter`.
//!
//! A record is the length of an `Event` in 8 bytes, the checksum of the length, the event and its
//! checksum. Numbers are little-endian; checksums are CRC-32C (RFC 3720), masked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::proto::{
    tensorboard_v1::{
        DataType, Event, PluginData, SessionLog, SessionStatus, Summary, SummaryMetadata,
        SummaryValue, Tensor, TensorShape, event::What, summary_value::Value,
    },
    to_json,
    v1::{EpochMetrics, TrainingSpec},
};

/// Version in the first record of a file.
const FILE_VERSION: &str = "brain.Event:2";
/// Tag of the text with the spec.
const SPEC_TAG: &str = "spec";

/// First record of a file.
pub(super) fn file_version() -> Vec<u8> {
    record(0, What::FileVersion(FILE_VERSION.to_owned()))
}

/// Invalidates this epoch and later ones in earlier files.
pub(super) fn session_start(epoch: u32) -> Vec<u8> {
    let status = SessionStatus::Start.into();
    record(epoch, What::SessionLog(SessionLog { status }))
}

/// The spec as a text before the first epoch.
pub(super) fn spec(spec: &TrainingSpec) -> Vec<u8> {
    // TensorBoard renders texts as Markdown.
    let text = format!("```json\n{:#}\n```", to_json(spec));
    let value = SummaryValue {
        tag: SPEC_TAG.to_owned(),
        value: Some(Value::Tensor(Tensor {
            dtype: DataType::String.into(),
            tensor_shape: Some(TensorShape {}),
            string_val: vec![text.into_bytes()],
        })),
        metadata: Some(SummaryMetadata {
            plugin_data: Some(PluginData {
                plugin_name: "text".to_owned(),
            }),
        }),
    };
    record(0, What::Summary(Summary { value: vec![value] }))
}

/// Metrics of an epoch; of epoch 0 only those of the validation.
pub(super) fn epoch(metrics: &EpochMetrics) -> Vec<u8> {
    let mut values = vec![
        ("loss/validation", metrics.val_loss),
        ("error/validation_rmse_years", metrics.val_rmse),
        ("error/validation_mae_years", metrics.val_mae),
    ];
    if metrics.epoch > 0 {
        values.extend(of_training(metrics));
    }
    let value = values
        .into_iter()
        .map(|(tag, value)| SummaryValue {
            tag: tag.to_owned(),
            // The widest number of the format.
            value: Some(Value::SimpleValue(value as f32)),
            metadata: None,
        })
        .collect();
    record(metrics.epoch, What::Summary(Summary { value }))
}

/// Metrics that an epoch has but not the validation of initial weights.
fn of_training(metrics: &EpochMetrics) -> [(&'static str, f64); 11] {
    let seconds = metrics.seconds.unwrap_or_default();
    [
        ("loss/train", metrics.train_loss),
        ("error/train_mae_years", metrics.train_mae),
        ("learning_rate", metrics.learning_rate),
        ("speed/images_per_second", metrics.images_per_second),
        ("seconds/data", seconds.data),
        ("seconds/forward", seconds.forward),
        ("seconds/backward", seconds.backward),
        ("seconds/update", seconds.update),
        ("seconds/validate", seconds.validate),
        ("seconds/checkpoint", seconds.checkpoint),
        ("seconds/total", seconds.total),
    ]
}

fn record(step: u32, what: What) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let event = Event {
        wall_time: now.unwrap_or(Duration::ZERO).as_secs_f64(),
        step: i64::from(step),
        what: Some(what),
    };
    framed(&event.encode_to_vec())
}

/// Adds length and checksums to an event.
fn framed(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(content.len() + 16);
    record.extend(length);
    record.extend(masked_checksum(&length).to_le_bytes());
    record.extend(content);
    record.extend(masked_checksum(content).to_le_bytes());
    record
}

/// CRC-32C, masked because the CRC of data with an embedded CRC is degenerate.
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        let ascending: Vec<u8> = (0..32).collect();
        // Appendix B.4.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c::crc32c(&ascending), 0x46dd_794e);
    }

    #[test]
    fn a_record_has_the_bytes_of_tensorboards_own_writer() {
        let event = Event {
            wall_time: 1.5,
            step: 0,
            what: Some(What::FileVersion(FILE_VERSION.to_owned())),
        };
        // RecordWriter of tensorboard 2.21 with Event(wall_time=1.5, file_version="brain.Event:2").
        let expected =
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c";
        let found: String = framed(&event.encode_to_vec())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_session_start_has_the_bytes_of_tensorboards_own_writer() {
        let event = Event {
            wall_time: 2.5,
            step: 7,
            what: Some(What::SessionLog(SessionLog {
                status: SessionStatus::Start.into(),
            })),
        };
        // RecordWriter of tensorboard 2.21 with Event(wall_time=2.5, step=7,
        // session_log=SessionLog(status=SessionLog.START)).
        let expected = "0f000000000000006d532b0909000000000000044010073a0208019aaf83ce";
        let found: String = framed(&event.encode_to_vec())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(found, expected);
    }
}
