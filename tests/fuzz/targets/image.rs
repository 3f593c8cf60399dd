//! Arbitrary bytes as an image: the result is pixels within the limits that match the header, or an
//! error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use visage::testing::{Limits, Preprocessor, decode, inspect};

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 250_000,
    max_dimension: 4_000,
};

// Without the hook that ends the fuzzer at once: a decoder's panic is caught and costs one image,
// and one that nobody catches still ends it.
fuzz_target!(init: drop(std::panic::take_hook()), |bytes: &[u8]| {
    let header = inspect(bytes, &LIMITS);
    let Ok(image) = decode(bytes, &LIMITS) else {
        return;
    };
    let header = header.expect("what can be decoded has a header");
    let (width, height) = image.dimensions();
    let stored = (header.width, header.height);
    assert!(stored == (width, height) || stored == (height, width));
    assert!(u64::from(width) * u64::from(height) <= LIMITS.max_pixels);
    let resized = Preprocessor::new().resize(image, 64);
    assert_eq!(resized.dimensions(), (64, 64));
});
