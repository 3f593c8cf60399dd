use tonic::Response;

/// Size in bytes from which predictions are compressed; setting up a compressor costs more than it
/// saves on smaller messages.
const MIN_COMPRESSED: usize = 1024;

/// A response without compression, for small messages and for compressed data such as PNGs.
pub(super) fn uncompressed<T>(message: T) -> Response<T> {
    let mut response = Response::new(message);
    response.disable_compression();
    response
}

/// A response that is compressed, if its client accepts that, unless it is small.
pub(super) fn compressed_if_large<M: prost::Message>(message: M) -> Response<M> {
    if message.encoded_len() < MIN_COMPRESSED {
        uncompressed(message)
    } else {
        Response::new(message)
    }
}
