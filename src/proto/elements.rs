//! Counts the repeated elements of an encoded message before it is decoded.
//!
//! An element takes two bytes in the encoded message and up to some hundred bytes in memory, so the
//! size limit of a request alone does not bound the memory of its decoded form.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// The maximum number of repeated messages, strings and byte strings in one request. The largest
/// valid request has one element per image.
pub(crate) const MAX_ELEMENTS: usize = 20_000;

/// As prost, which refuses to decode deeper messages.
const MAX_DEPTH: usize = 100;

/// Returns false if the message has more than `limit` repeated messages, strings and byte strings
/// in all. Packed numbers are not counted: they take at most eight bytes for each encoded byte.
///
/// Malformed bytes are left to the decoder.
pub(super) fn has_at_most(limit: usize, descriptor: &MessageDescriptor, message: &[u8]) -> bool {
    let mut left = limit;
    count(descriptor, message, &mut left, MAX_DEPTH)
}

fn count(descriptor: &MessageDescriptor, mut bytes: &[u8], left: &mut usize, depth: usize) -> bool {
    if depth == 0 {
        return true;
    }
    while !bytes.is_empty() {
        let Ok((number, wire_type)) = decode_key(&mut bytes) else {
            return true;
        };
        if wire_type != WireType::LengthDelimited {
            if skip_field(wire_type, number, &mut bytes, DecodeContext::default()).is_err() {
                return true;
            }
            continue;
        }
        let length = decode_varint(&mut bytes).map(usize::try_from);
        let Ok(Ok(length)) = length else {
            return true;
        };
        let Some((content, rest)) = bytes.split_at_checked(length) else {
            return true;
        };
        bytes = rest;
        let Some(field) = descriptor.get_field(number) else {
            continue;
        };
        if is_counted(&field) {
            let Some(fewer) = left.checked_sub(1) else {
                return false;
            };
            *left = fewer;
        }
        if let Kind::Message(inner) = field.kind()
            && !count(&inner, content, left, depth - 1)
        {
            return false;
        }
    }
    true
}

/// True for lists and maps of messages, strings and byte strings.
fn is_counted(field: &FieldDescriptor) -> bool {
    let is_sized = matches!(field.kind(), Kind::Message(_) | Kind::String | Kind::Bytes);
    is_sized && (field.is_list() || field.is_map())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::{descriptor, open_inference::ModelInferRequest, v1};

    fn fits<M: prost::Message + prost::Name>(limit: usize, bytes: &[u8]) -> bool {
        has_at_most(limit, &descriptor::<M>(), bytes)
    }

    #[test]
    fn elements_of_all_depths_are_counted() {
        // Field 5, `inputs`, empty: two bytes each.
        let inputs = [0x2a, 0x00].repeat(1000);
        assert!(fits::<ModelInferRequest>(1000, &inputs));
        assert!(!fits::<ModelInferRequest>(999, &inputs));
        // StartTrainingRequest.spec (1), TrainingSpec.optimizer (7), OptimizerSpec.groups (9).
        let groups = [0x4a, 0x00].repeat(50);
        let optimizer = [&[0x3a, 100][..], &groups].concat();
        let spec = [&[0x0a, 102][..], &optimizer].concat();
        assert!(fits::<v1::StartTrainingRequest>(50, &spec));
        assert!(!fits::<v1::StartTrainingRequest>(49, &spec));
    }

    #[test]
    fn images_and_labels_of_a_request_are_counted() {
        let request = v1::PredictRequest {
            images: vec![bytes::Bytes::from_static(&[7; 300]); 3],
            ..Default::default()
        };
        assert!(fits::<v1::PredictRequest>(3, &request.encode_to_vec()));
        assert!(!fits::<v1::PredictRequest>(2, &request.encode_to_vec()));
        let labels = ["a", "b"].map(|key| (key.to_owned(), String::new()));
        let request = v1::StartTrainingRequest {
            labels: labels.into(),
            ..Default::default()
        };
        assert!(!fits::<v1::StartTrainingRequest>(
            1,
            &request.encode_to_vec()
        ));
    }

    #[test]
    fn malformed_bytes_are_left_to_the_decoder() {
        for bytes in [&[0x0a][..], &[0x0a, 0x05, 1], &[0xff; 20], &[0x0b]] {
            assert!(fits::<v1::PredictRequest>(0, bytes), "{bytes:?}");
            assert!(v1::PredictRequest::decode(bytes).is_err());
        }
    }
}
