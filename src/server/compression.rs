/// Lets a generated server read gzip and deflate, and compress its responses with gzip for clients
/// that accept it.
///
/// The limit on a message applies to its decompressed size. A macro, because the generated servers
/// have no common trait.
macro_rules! compressed {
    ($server:expr) => {
        $server
            .accept_compressed(::tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(::tonic::codec::CompressionEncoding::Deflate)
            .send_compressed(::tonic::codec::CompressionEncoding::Gzip)
    };
}
pub(super) use compressed;
