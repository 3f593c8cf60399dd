//! Bytes that are said to be a request of the Open Inference Protocol, as gRPC or as JSON with or
//! without tensors behind it: they become as many images as the request says, or an error that a
//! client can read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use visage::testing::fuzzing::{Form, images};

/// More than a request that is fuzzed can have.
const MOST_IMAGES: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let [form, length @ .., ] = bytes else {
        return;
    };
    let (form, body) = match form % 3 {
        0 => (Form::Grpc, length),
        1 => (Form::Json, length),
        _ => match length {
            [high, low, body @ ..] => {
                let json = usize::from(u16::from_be_bytes([*high, *low]));
                (Form::JsonAndTensors(json), body)
            }
            _ => return,
        },
    };
    match images(form, body, MOST_IMAGES) {
        Ok(count) => assert!((1..=MOST_IMAGES).contains(&count)),
        Err(status) => assert!(!status.message().is_empty()),
    }
});
