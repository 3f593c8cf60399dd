//! Frames on the pipes between server and worker: four bytes of length, big-endian, then a message.
//!
//! The server uses tokio's codec of the same format. The worker has no async runtime and uses these
//! functions.

use std::io::{self, Read, Write};

use prost::Message;

/// Longest accepted frame in bytes; a longer one was not written by this protocol.
pub(super) const MAX_FRAME: usize = 16 << 20;

/// Exit code of a worker that lost another rank of its training.
pub(super) const EXIT_RANK_LOST: u8 = 5;

/// A field at the end of each message, 2047 of type bytes, which readers ignore. It ends with a
/// newline: `srun` forwards the output of a task by lines, and would keep the last part of a frame
/// until a later one contains a newline.
const LINE_END: [u8; 4] = [0xfa, 0x7f, 1, b'\n'];

/// Writes one message and flushes.
///
/// # Errors
/// A closed pipe, or a message that is longer than [`MAX_FRAME`].
pub(super) fn write(output: &mut impl Write, message: &impl Message) -> io::Result<()> {
    let length = message.encoded_len() + LINE_END.len();
    let header = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME);
    let header = header.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame must have at most {MAX_FRAME} bytes, got {length}"),
        )
    })?;
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend_from_slice(&header.to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.extend_from_slice(&LINE_END);
    output.write_all(&bytes)?;
    output.flush()
}

/// Reads the next message; `None` if the stream ends between two messages.
///
/// # Errors
/// A frame that is too long, truncated or not decodable.
pub(super) fn read<M: Message + Default>(input: &mut impl Read) -> io::Result<Option<M>> {
    let mut header = [0; 4];
    let mut filled = 0;
    while filled < header.len() {
        match input.read(&mut header[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_be_bytes(header) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame must have at most {MAX_FRAME} bytes, got {length}"),
        ));
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    M::decode(bytes.as_slice())
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::worker_v1::{Heartbeat, WorkerEvent, worker_event::Kind};

    fn heartbeat(progress: u64) -> WorkerEvent {
        WorkerEvent {
            kind: Some(Kind::Heartbeat(Heartbeat { progress })),
        }
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let mut pipe = Vec::new();
        write(&mut pipe, &heartbeat(7)).unwrap();
        write(&mut pipe, &heartbeat(8)).unwrap();
        // Field 2, length 2; inside it field 1, varint 7. Then field 2047, length 1, a newline.
        let frame = [0, 0, 0, 8, 0x12, 2, 8, 7, 0xfa, 0x7f, 1, 10];
        assert_eq!(pipe[..12], frame);
        let mut input = pipe.as_slice();
        assert_eq!(read::<WorkerEvent>(&mut input).unwrap(), Some(heartbeat(7)));
        assert_eq!(read::<WorkerEvent>(&mut input).unwrap(), Some(heartbeat(8)));
        assert_eq!(read::<WorkerEvent>(&mut input).unwrap(), None);
    }

    #[test]
    fn text_in_the_pipe_is_an_error() {
        let mut input: &[u8] = b"hello world\n";
        assert_eq!(
            read::<WorkerEvent>(&mut input).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let mut cut: &[u8] = &[0, 0, 0, 9, 1];
        assert_eq!(
            read::<WorkerEvent>(&mut cut).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
