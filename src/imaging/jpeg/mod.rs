//! JPEG decoding by libjpeg-turbo, in the form that mozjpeg ships.
//!
//! Pillow and torchvision decode with the same library, so the pixels are bit-equal. The library
//! reports damage as numbered warnings and errors. Warnings that mean missing or damaged image data
//! are errors here: the library fills missing data with grey, and half a face would be used for
//! training or prediction. Superfluous bytes between or after segments change no pixel and are
//! accepted.
//!
//! - `decoder`: decodes or checks one file.
//! - `messages`: the callbacks of the library. It aborts by unwinding through its C frames.
//! - `markers`: counts the scans before memory is allocated for them.

mod decoder;
mod markers;
mod messages;
#[cfg(test)]
mod tests;

pub(super) use self::decoder::Decoder;
