//! The elements of a tensor in JSON: numbers, and images in the encodings that clients use.
//!
//! JSON has no bytes, so an image is base64 (standard or URL-safe, with or without padding and line
//! breaks, as plain text, as a data URL or as `{"b64": "..."}` of TensorFlow Serving's clients), or
//! a list of byte values.

use std::{fmt, ops::Range};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use tonic::Status;

use crate::services::status;

use super::tensors::{BYTES, Data, FP32};

/// The accepted encodings, for error messages.
const ENCODINGS: &str = "send each image file as base64 text, as a data URL (data:image/jpeg;base64,...), or as a list of its bytes as numbers from 0 to 255";

/// Maximum number of images in a request; `max_images_per_request` cannot be set higher.
const MAX_IMAGES: usize = 10_000;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The elements of a tensor, from one list or from nested ones.
#[derive(Default)]
pub(super) struct Elements {
    numbers: Vec<f32>,
    /// The numbers of each list without other elements; at most one more than [`MAX_IMAGES`].
    lists: Vec<Range<usize>>,
    texts: Vec<String>,
}

impl Elements {
    /// Converts the elements to the datatype; `field` is the tensor.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for images in another encoding.
    pub(super) fn into_data(self, field: &str, datatype: &str) -> Result<Data, Status> {
        match (datatype, self.numbers.is_empty(), self.texts.is_empty()) {
            (_, true, true) => Ok(Data::Missing),
            (FP32, false, true) => Ok(Data::Numbers(self.numbers)),
            (BYTES, _, false) if self.numbers.is_empty() => {
                // Encoded images are not text, so a text is base64.
                let image = |(index, text): (usize, &String)| {
                    let refuse =
                        |reason: String| status::invalid(&format!("{field}.data[{index}]"), reason);
                    decode(text).map_err(refuse)
                };
                let images = self.texts.iter().enumerate().map(image);
                Ok(Data::Elements(images.collect::<Result<_, _>>()?))
            }
            (BYTES, _, _) => {
                let refuse = |reason: String| status::invalid(&format!("{field}.data"), reason);
                Ok(Data::Elements(self.byte_lists().map_err(refuse)?))
            }
            _ => Ok(Data::OtherType),
        }
    }

    /// Images given as lists of byte values.
    fn byte_lists(&self) -> Result<Vec<Bytes>, String> {
        let in_lists: usize = self.lists.iter().map(Range::len).sum();
        if self.lists.len() > MAX_IMAGES {
            return Err(format!("must have at most {MAX_IMAGES} images"));
        }
        if !self.texts.is_empty() || in_lists != self.numbers.len() {
            return Err(format!(
                "numbers must be in one list for each image, without text or further lists; {ENCODINGS}"
            ));
        }
        let image = |(index, list): (usize, &Range<usize>)| {
            let bytes = self.numbers[list.clone()].iter().enumerate();
            let byte = |(position, number): (usize, &f32)| {
                // The cast saturates, so other numbers differ after the conversion back.
                let byte = *number as u8;
                match f32::from(byte) == *number {
                    true => Ok(byte),
                    false => Err(format!(
                        "byte {position} of image {index} must be a whole number from 0 to 255, got {number}; {ENCODINGS}"
                    )),
                }
            };
            bytes.map(byte).collect::<Result<Vec<u8>, _>>()
        };
        let images = self.lists.iter().enumerate().map(image);
        images.map(|image| image.map(Bytes::from)).collect()
    }
}

fn decode(text: &str) -> Result<Bytes, String> {
    let encoded = payload(text)?;
    let decoded = LENIENT.decode(encoded).or_else(|error| {
        // Rarely needed; the usual encoding is not copied.
        let plain = |byte: u8| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => byte,
        };
        let kept = encoded.bytes().filter(|byte| !byte.is_ascii_whitespace());
        let plain: Vec<u8> = kept.map(plain).collect();
        LENIENT.decode(plain).map_err(|_| error)
    });
    match decoded {
        Ok(image) => Ok(image.into()),
        Err(error) => {
            let cause = error.to_string();
            Err(format!(
                "must be base64: {}; {ENCODINGS}",
                cause.trim_end_matches('.')
            ))
        }
    }
}

/// The base64 of a data URL (RFC 2397); other texts are returned unchanged.
fn payload(text: &str) -> Result<&str, String> {
    const SCHEME: &str = "data:";
    let text = text.trim_ascii();
    let scheme = text.get(..SCHEME.len());
    if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
        return Ok(text);
    }
    let parts = text.split_once(',');
    let is_base64 = |head: &str| {
        let last = head.rsplit(';').next();
        last.is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case("base64"))
    };
    match parts {
        Some((head, payload)) if is_base64(head) => Ok(payload),
        _ => Err(format!(
            "a data URL must have its content as base64, after \";base64,\"; {ENCODINGS}"
        )),
    }
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut elements = Elements::default();
        Flat(&mut elements).deserialize(deserializer)?;
        Ok(elements)
    }
}

/// Adds the elements of nested lists.
struct Flat<'a>(&'a mut Elements);

impl<'de> DeserializeSeed<'de> for Flat<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flat<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("numbers, images in base64, or lists of them")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.numbers.push(value as f32);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<(), E> {
        // An empty text takes three bytes of JSON and ten times as many here.
        if self.0.texts.len() == MAX_IMAGES {
            return Err(E::custom(format!("must have at most {MAX_IMAGES} images")));
        }
        self.0.texts.push(value);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let entry: Option<(String, String)> = map.next_entry()?;
        match entry {
            Some((key, text)) if key == "b64" && map.next_key::<String>()?.is_none() => {
                self.visit_string(text)
            }
            _ => Err(A::Error::custom(
                "an object among the elements must be {\"b64\": \"base64 of an image file\"}",
            )),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let elements = self.0;
        let (first, lists) = (elements.numbers.len(), elements.lists.len());
        while list.next_element_seed(Flat(elements))?.is_some() {}
        let own = first..elements.numbers.len();
        if !own.is_empty() && elements.lists.len() == lists && lists <= MAX_IMAGES {
            elements.lists.push(own);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(datatype: &str, elements: &Value) -> Result<Data, Status> {
        let elements: Elements = serde_json::from_value(elements.clone()).unwrap();
        elements.into_data("inputs[0]", datatype)
    }

    fn images(elements: Value) -> Vec<Bytes> {
        match read(BYTES, &elements) {
            Ok(Data::Elements(images)) => images,
            other => panic!("{elements}: {other:?}"),
        }
    }

    fn refusal(elements: Value) -> String {
        read(BYTES, &elements).unwrap_err().message().to_owned()
    }

    /// The bytes fb ff bf 00, whose base64 has both characters that the URL-safe alphabet replaces,
    /// and padding.
    const IMAGE: [u8; 4] = [0xfb, 0xff, 0xbf, 0x00];

    #[test]
    fn base64_of_every_kind_is_the_same_image() {
        for text in [
            "+/+/AA==",
            "-_-_AA==",
            "+/+/AA",
            "-_-_AA",
            " +/+/AA==\n",
            "+/+/\r\nAA==\r\n",
            "-_-_\nAA",
            "data:image/jpeg;base64,+/+/AA==",
            "data:image/jpeg;base64,-_-_AA",
            "DATA:image/png;charset=utf-8;Base64,+/+/\n AA==",
            "data:;base64,+/+/AA==",
        ] {
            assert_eq!(images(json!([text])), [&IMAGE[..]], "{text:?}");
            assert_eq!(images(json!([[text], text])), [&IMAGE[..]; 2], "{text:?}");
            assert_eq!(images(json!([{ "b64": text }])), [&IMAGE[..]], "{text:?}");
        }
    }

    #[test]
    fn lists_of_byte_values_are_one_image_each_however_deep() {
        let values = json!([251, 255, 191, 0]);
        assert_eq!(images(values.clone()), [&IMAGE[..]]);
        assert_eq!(images(json!([values])), [&IMAGE[..]]);
        assert_eq!(images(json!([[values], [[7]]])), [&IMAGE[..], &[7]]);
        assert_eq!(images(json!([251.0, 255.0, 191.0, 0.0])), [&IMAGE[..]]);
    }

    #[test]
    fn elements_that_are_no_image_are_refused_with_what_to_send() {
        let cases = [
            (json!(["no!"]), "inputs[0].data[0]: must be base64: "),
            (
                json!(["+/+/AA==", "me.jpg"]),
                "inputs[0].data[1]: must be base64: ",
            ),
            (
                json!(["b'+/+/AA=='"]),
                "inputs[0].data[0]: must be base64: ",
            ),
            (
                json!(["data:image/jpeg,%FF%D8"]),
                "inputs[0].data[0]: a data URL must have its content as base64",
            ),
            (
                json!(["data:image/jpeg;base64"]),
                "inputs[0].data[0]: a data URL must have its content as base64",
            ),
            (
                json!([255, 216, -1]),
                "inputs[0].data: byte 2 of image 0 must be a whole number from 0 to 255, got -1",
            ),
            (
                json!([[255], [216, 256]]),
                "inputs[0].data: byte 1 of image 1 must be a whole number from 0 to 255, got 256",
            ),
            (
                json!([0.5]),
                "inputs[0].data: byte 0 of image 0 must be a whole number from 0 to 255, got 0.5",
            ),
            (
                json!([1, [2, 3]]),
                "inputs[0].data: numbers must be in one list for each image",
            ),
            (
                json!([[2, 3], 1]),
                "inputs[0].data: numbers must be in one list for each image",
            ),
            (
                json!([[2, 3], "AA=="]),
                "inputs[0].data: numbers must be in one list for each image",
            ),
            (
                json!(7),
                "inputs[0].data: numbers must be in one list for each image",
            ),
        ];
        for (elements, expected) in cases {
            let found = refusal(elements);
            assert!(found.starts_with(expected), "{found}, not {expected}");
            assert!(found.ends_with(ENCODINGS), "{found}");
        }
        let too_many = json!(vec![[1]; MAX_IMAGES + 1]);
        assert_eq!(
            refusal(too_many),
            "inputs[0].data: must have at most 10000 images"
        );
    }

    #[test]
    fn texts_and_objects_that_cannot_be_elements_end_the_reading() {
        let refused = |elements: Value| {
            let read = serde_json::from_value::<Elements>(elements);
            read.err().map(|error| error.to_string())
        };
        let object = "an object among the elements must be {\"b64\": \"base64 of an image file\"}";
        for elements in [
            json!([{}]),
            json!([{"image": "AA=="}]),
            json!([{"b64": "AA==", "c": "AA=="}]),
        ] {
            assert_eq!(refused(elements).as_deref(), Some(object));
        }
        assert!(refused(json!([{"b64": 7}])).is_some());
        assert!(refused(json!([null])).is_some());
        assert!(refused(json!([true])).is_some());
        assert_eq!(refused(json!(vec![""; MAX_IMAGES])), None);
        let too_many = refused(json!(vec![""; MAX_IMAGES + 1]));
        assert_eq!(too_many.as_deref(), Some("must have at most 10000 images"));
    }

    #[test]
    fn numbers_of_a_prepared_image_are_read_row_by_row_whatever_their_lists() {
        let numbers = |elements: Value| match read(FP32, &elements) {
            Ok(Data::Numbers(numbers)) => numbers,
            other => panic!("{elements}: {other:?}"),
        };
        assert_eq!(
            numbers(json!([[[1, 2.5]], [[-3, 4]]])),
            [1.0, 2.5, -3.0, 4.0]
        );
        assert_eq!(numbers(json!([1, [2]])), [1.0, 2.0]);
        assert_eq!(
            numbers(json!(vec![[1]; MAX_IMAGES + 5])).len(),
            MAX_IMAGES + 5
        );
        let text = read(FP32, &json!(["AA=="]));
        assert!(matches!(text, Ok(Data::OtherType)), "{text:?}");
        let none = read(BYTES, &json!([[], []]));
        assert!(matches!(none, Ok(Data::Missing)), "{none:?}");
    }
}
