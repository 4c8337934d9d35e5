//! Capsules (RFC 9297, 3.2): what stands on the stream of a flow. Pure.

use bytes::{Buf, BufMut as _, Bytes, BytesMut};

use super::PAYLOAD_LEN_MAX;
use crate::tunnel::Chunks;

/// `DATAGRAM` (RFC 9297, 5.4).
const DATAGRAM: u64 = 0x00;

/// The context of UDP payloads (RFC 9298, 4).
const CONTEXT_UDP: u64 = 0;

/// Bytes that a QUIC variable-length integer takes at most (RFC 9000, 16).
const VARINT_LEN_MAX: usize = 8;

/// The stream broke the rules of capsules; the flow must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// A DATAGRAM capsule is longer than any UDP payload.
    #[error("the peer announced a datagram of {0} bytes")]
    TooLong(u64),
    /// The stream ended amid a capsule.
    #[error("the stream ended amid a capsule")]
    Truncated,
}

/// Takes the bytes of a stream as they come and gives the UDP payloads in them. Other capsules are skipped, however long.
#[derive(Debug, Default)]
pub struct CapsuleReader {
    queue: Chunks,
    /// Bytes of a capsule that nobody wants and that are still to come.
    to_skip: u64,
}

impl CapsuleReader {
    /// Takes what arrived.
    pub fn push(&mut self, mut arrived: Chunks) {
        while let Some(part) = arrived.pop() {
            self.queue.push(part);
        }
    }

    /// The next payload; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`CapsuleError::TooLong`].
    pub fn next_payload(&mut self) -> Result<Option<Bytes>, CapsuleError> {
        loop {
            self.skip();
            let Some((kind, len, header_len)) = self.header() else { return Ok(None) };
            if kind != DATAGRAM {
                self.queue.advance(header_len);
                self.to_skip = len;
                continue;
            }
            let too_long = || CapsuleError::TooLong(len);
            let content_len = usize::try_from(len).map_err(|_| too_long())?;
            if content_len > PAYLOAD_LEN_MAX + VARINT_LEN_MAX {
                return Err(too_long());
            }
            if self.queue.remaining() < header_len + content_len {
                return Ok(None);
            }
            self.queue.advance(header_len);
            if let Some(payload) = payload(self.queue.copy_to_bytes(content_len)) {
                return Ok(Some(payload));
            }
        }
    }

    /// What the end of the stream means here.
    ///
    /// # Errors
    /// [`CapsuleError::Truncated`].
    pub fn finish(&self) -> Result<(), CapsuleError> {
        let is_whole = self.queue.is_empty() && self.to_skip == 0;
        is_whole.then_some(()).ok_or(CapsuleError::Truncated)
    }

    fn skip(&mut self) {
        let here = usize::try_from(self.to_skip).unwrap_or(usize::MAX).min(self.queue.remaining());
        self.queue.advance(here);
        self.to_skip -= here as u64;
    }

    /// Type and length of the capsule that the queue begins with, and the bytes that they take.
    fn header(&self) -> Option<(u64, u64, usize)> {
        let mut start = [0; 2 * VARINT_LEN_MAX];
        let mut len = 0;
        for part in self.queue.iter() {
            let room = &mut start[len..];
            let taken = room.len().min(part.len());
            room[..taken].copy_from_slice(&part[..taken]);
            len += taken;
        }
        let mut rest = &start[..len];
        let kind = varint(&mut rest)?;
        let content_len = varint(&mut rest)?;
        Some((kind, content_len, len - rest.len()))
    }
}

/// A payload as a DATAGRAM capsule.
#[must_use]
pub fn datagram(payload: &Bytes) -> Chunks {
    let mut header = BytesMut::with_capacity(2 * VARINT_LEN_MAX);
    put_varint(&mut header, DATAGRAM);
    put_varint(&mut header, payload.len() as u64 + 1);
    put_varint(&mut header, CONTEXT_UDP);
    [header.freeze(), payload.clone()].into_iter().collect()
}

/// The UDP payload of an HTTP Datagram; `None` where it is of another context, or of none, or longer than UDP allows.
#[must_use]
pub fn payload(mut datagram: Bytes) -> Option<Bytes> {
    let mut rest = &datagram[..];
    let is_udp = varint(&mut rest)? == CONTEXT_UDP;
    let header_len = datagram.len() - rest.len();
    datagram.advance(header_len);
    (is_udp && datagram.len() <= PAYLOAD_LEN_MAX).then_some(datagram)
}

/// Takes a variable-length integer (RFC 9000, 16); `None` if it is not whole.
pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let first = *rest.first()?;
    let len = 1_usize << (first >> 6);
    let (bytes, after) = rest.split_at_checked(len)?;
    let value = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    *rest = after;
    // The two bits of the length are no part of the value.
    Some(value & (u64::MAX >> (66 - 8 * len)))
}

/// Writes a number below 2^62 in as few bytes as it takes.
pub(super) fn put_varint(out: &mut BytesMut, value: u64) {
    match value {
        0..0x40 => out.put_uint(value, 1),
        0x40..0x4000 => out.put_uint(value | 0x4000, 2),
        0x4000..0x4000_0000 => out.put_uint(value | 0x8000_0000, 4),
        _ => out.put_uint(value | 0xc000_0000_0000_0000, 8),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(stream: &[u8], piece_len: usize) -> Result<Vec<Bytes>, CapsuleError> {
        let mut reader = CapsuleReader::default();
        let mut payloads = Vec::new();
        for piece in stream.chunks(piece_len) {
            reader.push(Bytes::copy_from_slice(piece).into());
            while let Some(payload) = reader.next_payload()? {
                payloads.push(payload);
            }
        }
        reader.finish().map(|()| payloads)
    }

    fn written(capsule: Chunks) -> Vec<u8> {
        let mut capsule = capsule;
        capsule.copy_to_bytes(capsule.remaining()).to_vec()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 9000, appendix A.1.
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            let mut rest = bytes;
            assert_eq!((varint(&mut rest), rest.len()), (Some(value), 0));
            let mut cut = &bytes[..bytes.len() - 1];
            assert_eq!(varint(&mut cut), None);
        }
    }

    #[test]
    fn capsules_of_other_types_and_contexts_are_passed_over() {
        let mut stream = vec![0x17, 0x03, b'a', b'b', b'c'];
        stream.extend([0x00, 0x02, 0x04, b'x']);
        stream.extend(written(datagram(&Bytes::from_static(b"ping"))));
        stream.extend([0x00, 0x00]);
        for piece_len in 1..stream.len() {
            assert_eq!(read(&stream, piece_len).unwrap(), ["ping"]);
        }
    }

    #[test]
    fn a_skipped_capsule_takes_no_memory_and_a_datagram_of_it_is_refused() {
        let mut reader = CapsuleReader::default();
        reader.push(Bytes::from_static(&[0x17, 0xc0, 0, 0, 1, 0, 0, 0, 0]).into());
        for _ in 0..1000 {
            reader.push(Bytes::from_static(&[0; 1000]).into());
            assert_eq!(reader.next_payload(), Ok(None));
            assert!(reader.queue.is_empty());
        }
        assert_eq!(reader.finish(), Err(CapsuleError::Truncated));
        assert_eq!(read(&[0x00, 0x80, 0x01, 0x00, 0x00], 5), Err(CapsuleError::TooLong(0x10000)));
    }

    proptest! {
        #[test]
        fn payloads_come_back_however_the_stream_is_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
            piece_len in 1_usize..400,
        ) {
            let payloads: Vec<Bytes> = payloads.into_iter().map(Bytes::from).collect();
            let stream: Vec<u8> = payloads.iter().flat_map(|payload| written(datagram(payload))).collect();
            prop_assert_eq!(read(&stream, piece_len).unwrap(), payloads);
        }

        #[test]
        fn any_bytes_are_read_or_refused(stream in prop::collection::vec(any::<u8>(), 0..400), piece_len in 1_usize..50) {
            if let Ok(payloads) = read(&stream, piece_len) {
                prop_assert!(payloads.iter().map(Bytes::len).sum::<usize>() <= stream.len());
            }
        }

        #[test]
        fn numbers_come_back(value in 0_u64..1 << 62) {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            prop_assert_eq!(varint(&mut &out[..]), Some(value));
        }
    }
}
