//! The codec of all services: prost's, behind the limits on a request.

use std::{collections::HashMap, marker::PhantomData};

use bytes::Buf as _;
use prost::{Message, Name};
use tonic::{
    Code, Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_prost::ProstEncoder;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    descriptor,
    elements::{MAX_ELEMENTS, has_at_most},
    in_flight, recorded,
};

/// A [`Codec`] that refuses a request before it is decoded if its decoded form would take much more
/// memory than its bytes, or if the requests in flight take too much.
#[derive(Debug, Clone)]
pub(crate) struct LimitedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for LimitedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for LimitedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = LimitedEncoder<T>;
    type Decoder = LimitedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        LimitedEncoder(ProstEncoder::new(BufferSettings::default()))
    }

    fn decoder(&mut self) -> Self::Decoder {
        LimitedDecoder(PhantomData)
    }
}

/// The encoder of [`LimitedCodec`].
#[derive(Debug, Clone)]
pub(crate) struct LimitedEncoder<T>(ProstEncoder<T>);

impl<T: Message> Encoder for LimitedEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        if !in_flight::hold_response(message.encoded_len()) {
            return Err(too_many_bytes());
        }
        self.0.encode(message, buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// The decoder of [`LimitedCodec`].
#[derive(Debug, Clone)]
pub(crate) struct LimitedDecoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> Decoder for LimitedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Clients decode responses with the same codec.
        if U::NAME.ends_with("Request") {
            check::<U>(buffer.chunk())?;
        }
        let message: U = U::decode(buffer).map_err(|error| {
            refused(
                Code::InvalidArgument,
                "MALFORMED_MESSAGE",
                format!("failed to decode {}: {error}", U::NAME),
            )
        })?;
        recorded::record(&message);
        Ok(Some(message))
    }
}

/// `bytes` are the whole message, decompressed.
fn check<U: Name>(bytes: &[u8]) -> Result<(), Status> {
    if !in_flight::hold_message(bytes.len()) {
        return Err(too_many_bytes());
    }
    if !has_at_most(MAX_ELEMENTS, &descriptor::<U>(), bytes) {
        return Err(refused(
            Code::InvalidArgument,
            "TOO_MANY_ELEMENTS",
            format!(
                "{} must have at most {MAX_ELEMENTS} elements in its lists; send several requests",
                U::NAME
            ),
        ));
    }
    Ok(())
}

fn too_many_bytes() -> Status {
    let message = in_flight::MESSAGE.to_owned();
    refused(Code::ResourceExhausted, in_flight::REASON, message)
}

fn refused(code: Code, reason: &str, message: String) -> Status {
    let details = ErrorDetails::with_error_info(reason, "visage", HashMap::new());
    Status::with_error_details(code, message, details)
}
