use bytes::Bytes;
use serde_json::{Value, json};
use tonic::Status;

use super::{
    super::tensors::{Call, Data, Inferred, OutputTensor, Tensor},
    read,
    request::EXAMPLE,
    response::{Form, write},
};

fn read_json(request: Value) -> Result<(Call, Form), Status> {
    let body = serde_json::to_vec(&request).unwrap();
    read("age".to_owned(), String::new(), body.into(), None)
}

#[test]
fn nested_numbers_are_read_row_by_row() {
    let request = json!({"inputs": [
        {"name": "input", "datatype": "FP32", "shape": [1, 3, 1, 2], "data": [[[[1, 2.5]], [[-3, 4]], [[5, 6]]]]}]});
    let (call, _) = read_json(request).unwrap();
    let Data::Numbers(numbers) = &call.inputs[0].data else {
        panic!("{call:?}");
    };
    assert_eq!(numbers, &[1.0, 2.5, -3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn texts_are_images_in_base64() {
    let input = |data: Value| json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": data}]});
    let (call, _) = read_json(input(json!(["aGVsbG8=", ""]))).unwrap();
    let Data::Elements(images) = &call.inputs[0].data else {
        panic!("{call:?}");
    };
    assert_eq!(images, &[&b"hello"[..], &b""[..]]);
    let status = read_json(input(json!(["aGVsbG8=", "no!"]))).unwrap_err();
    assert!(
        status
            .message()
            .starts_with("inputs[0].data[1]: must be base64"),
        "{status:?}"
    );
}

#[test]
fn a_body_without_json_is_one_image_with_or_without_its_length() {
    let of = |body: &'static [u8]| {
        let body = Bytes::from_static(body);
        let read = read("age".to_owned(), "2".to_owned(), body, Some(0));
        read.map(|(mut call, _)| (call.inputs.pop().unwrap(), call.version))
    };
    for body in [&b"hello"[..], b"\x05\0\0\0hello"] {
        let (tensor, version) = of(body).unwrap();
        let Data::Elements(images) = tensor.data else {
            panic!("{tensor:?}");
        };
        assert_eq!(images, [&b"hello"[..]]);
        assert_eq!((tensor.name.as_str(), version.as_str()), ("image", "2"));
    }
    // A body of a few bytes, and a length that is not that of the rest, are the image.
    let (tensor, _) = of(b"abc").unwrap();
    assert!(matches!(&tensor.data, Data::Elements(images) if images[0] == b"abc"[..]));
    let (tensor, _) = of(b"\x04\0\0\0hello").unwrap();
    assert!(matches!(&tensor.data, Data::Elements(images) if images[0].len() == 9));
    let empty = of(b"").unwrap_err();
    assert!(
        empty.message().contains("must be the JSON"),
        "{}",
        empty.message()
    );
}

#[test]
fn invalid_requests_are_rejected_with_an_example() {
    for body in [
        &b"\xff\xd8\xff\xe0"[..],
        br#"{"instances": [{"b64": "AA=="}]}"#,
    ] {
        let body = Bytes::from_static(body);
        let refused = read(String::new(), String::new(), body, None).unwrap_err();
        let message = refused.message();
        assert!(
            message.contains(EXAMPLE) && message.contains("Inference-Header-Content-Length: 0"),
            "{message}"
        );
    }
    let example = read(String::new(), String::new(), EXAMPLE.into(), None).unwrap_err();
    // The only error is its image, which is a sentence.
    assert!(
        example
            .message()
            .starts_with("inputs[0].data[0]: must be base64"),
        "{}",
        example.message()
    );
}

#[test]
fn bytes_after_the_json_belong_to_the_inputs_in_order() {
    let of = |sizes: &[u64], rest: &[u8]| {
        let inputs: Vec<Value> = sizes
            .iter()
            .map(|size| json!({"name": "input", "datatype": "FP32", "shape": [], "parameters": {"binary_data_size": size}}))
            .collect();
        let text = json!({ "inputs": inputs }).to_string();
        let body = [text.as_bytes(), rest].concat();
        read(String::new(), String::new(), body.into(), Some(text.len()))
    };
    let (call, _) = of(&[2, 3], b"abcde").unwrap();
    let raw = |tensor: &Tensor| {
        let Data::Raw(raw) = &tensor.data else {
            panic!("{tensor:?}");
        };
        raw.clone()
    };
    let found: Vec<Bytes> = call.inputs.iter().map(raw).collect();
    assert_eq!(found, [&b"ab"[..], &b"cde"[..]]);
    assert!(
        of(&[2], b"abc")
            .unwrap_err()
            .message()
            .contains("1 bytes after the JSON")
    );
    let short = of(&[2, 3], b"abcd").unwrap_err();
    assert!(
        short.message().contains(
            "inputs[1].parameters[binary_data_size]: must be at most the 2 bytes that follow"
        ),
        "{short:?}"
    );
}

#[test]
fn responses_have_bytes_for_the_outputs_that_request_them() {
    let inferred = Inferred {
        model: "age".to_owned(),
        version: "3".to_owned(),
        id: "7".to_owned(),
        outputs: vec![
            OutputTensor {
                name: "age",
                shape: [1, 1],
                values: vec![1.5],
                confidence: None,
            },
            OutputTensor {
                name: "interval",
                shape: [1, 2],
                values: vec![0.1, 2.0],
                confidence: Some(0.9),
            },
        ],
    };
    let form = Form {
        all: true,
        named: vec![("interval".to_owned(), false)],
    };
    let written = write(&inferred, &form).unwrap();
    let (text, rest) = written.body.split_at(written.json_bytes.unwrap());
    let expected = json!({
        "model_name": "age", "model_version": "3", "id": "7",
        "outputs": [
            {"name": "age", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}},
            {"name": "interval", "datatype": "FP32", "shape": [1, 2], "parameters": {"confidence": 0.9}, "data": [0.1, 2.0]},
        ],
    });
    assert_eq!(serde_json::from_slice::<Value>(text).unwrap(), expected);
    // 1.5 is 0x3fc00000.
    assert_eq!(rest, [0x00, 0x00, 0xc0, 0x3f]);
    assert_eq!(write(&inferred, &Form::default()).unwrap().json_bytes, None);
}
