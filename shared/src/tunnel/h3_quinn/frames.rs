//! Cuts what a peer sends at the borders of HTTP/3 frames (RFC 9114, 7.1).
//!
//! `h3` buffers whatever it is given until it can read a whole frame. Given one frame's header, and then its content
//! piece by piece, it holds no more than one of them; this is also where a frame too long to hold is refused, an
//! empty DATA frame is dropped (`h3` takes it for the end of the stream), and an end amid a frame is noticed.

use bytes::{Buf as _, Bytes};

use crate::tunnel::{Chunks, FIELD_SECTION_LEN_MAX};

/// Content of a frame other than DATA at most: a field section is never longer on the wire than our SETTINGS allow it to be.
const CONTROL_LEN_MAX: u64 = FIELD_SECTION_LEN_MAX;

/// `DATA` (RFC 9114, 7.2.1).
const TYPE_DATA: u64 = 0x00;

/// The control stream's type (RFC 9114, 6.2.1).
const STREAM_CONTROL: u64 = 0x00;

/// A frame other than DATA is longer than [`CONTROL_LEN_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer announced a frame of {0} bytes that is no DATA frame")]
pub(super) struct FrameTooLong(u64);

/// Where in a stream the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameScanner {
    /// Before the type of a one-way stream.
    StreamType,
    /// Before a frame, or amid its type and length.
    Header,
    /// Within a frame's content.
    Content { left: u64 },
    /// In a one-way stream that has no frames.
    Unframed,
}

impl FrameScanner {
    /// Takes the next piece from `queue` that crosses no border; `None` if it takes more bytes to tell.
    ///
    /// # Errors
    /// [`FrameTooLong`]: the stream must be stopped with `H3_EXCESSIVE_LOAD`.
    pub(super) fn next(&mut self, queue: &mut Chunks) -> Result<Option<Bytes>, FrameTooLong> {
        loop {
            if queue.is_empty() {
                return Ok(None);
            }
            match *self {
                Self::Unframed => return Ok(queue.pop()),
                Self::Content { left } => {
                    let len = queue.chunk().len();
                    let taken = usize::try_from(left).map_or(len, |left| len.min(left));
                    *self = Self::after(left - taken as u64);
                    return Ok(Some(queue.copy_to_bytes(taken)));
                }
                Self::StreamType => {
                    let Some((kind, len)) = varint(queue, 0) else { return Ok(None) };
                    *self = if kind == STREAM_CONTROL { Self::Header } else { Self::Unframed };
                    return Ok(Some(queue.copy_to_bytes(len)));
                }
                Self::Header => {
                    let Some((kind, kind_len)) = varint(queue, 0) else { return Ok(None) };
                    let Some((content, content_len)) = varint(queue, kind_len) else { return Ok(None) };
                    if kind != TYPE_DATA && content > CONTROL_LEN_MAX {
                        return Err(FrameTooLong(content));
                    }
                    let header = queue.copy_to_bytes(kind_len + content_len);
                    *self = Self::after(content);
                    if kind != TYPE_DATA || content > 0 {
                        return Ok(Some(header));
                    }
                }
            }
        }
    }

    /// Whether the stream may end here, given what of it is still queued.
    pub(super) fn may_end(self, queue: &Chunks) -> bool {
        !matches!(self, Self::Content { .. }) && queue.is_empty()
    }

    const fn after(left: u64) -> Self {
        if left == 0 { Self::Header } else { Self::Content { left } }
    }
}

/// The variable-length integer `skip` bytes into `queue`, and its length (RFC 9000, 16).
fn varint(queue: &Chunks, skip: usize) -> Option<(u64, usize)> {
    let mut bytes = queue.iter().flat_map(|part| part.iter().copied()).skip(skip);
    let first = bytes.next()?;
    let len = 1_usize << (first >> 6);
    let mut value = u64::from(first & 0x3f);
    for _ in 1..len {
        value = value << 8 | u64::from(bytes.next()?);
    }
    Some((value, len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(scanner: &mut FrameScanner, queue: &mut Chunks) -> Vec<Bytes> {
        std::iter::from_fn(|| scanner.next(queue).unwrap()).collect()
    }

    #[test]
    fn a_header_frame_too_long_to_hold_is_refused_before_its_content() {
        let mut queue = Chunks::from(Bytes::from_static(&[0x01, 0x80, 0x10, 0x00, 0x00]));
        assert_eq!(FrameScanner::Header.next(&mut queue), Err(FrameTooLong(0x10_0000)));
    }

    #[test]
    fn an_empty_data_frame_is_dropped() {
        let mut queue = Chunks::from(Bytes::from_static(&[0, 0, 0, 0, 0, 1, b'x']));
        let pieces = drain(&mut FrameScanner::Header, &mut queue);
        assert_eq!(pieces, [&[0, 1][..], b"x"]);
    }

    #[test]
    fn an_end_amid_a_frame_is_no_end() {
        for cut in [1, 2, 4] {
            let mut queue = Chunks::from(Bytes::from_static(&[0, 3, b'a', b'b', b'c']).slice(..cut));
            let mut scanner = FrameScanner::Header;
            drain(&mut scanner, &mut queue);
            assert!(!scanner.may_end(&queue), "{cut}");
        }
    }

    #[test]
    fn a_one_way_stream_without_frames_passes_untouched() {
        let mut queue = Chunks::from(Bytes::from_static(&[0x02, 0x01, 0xbf, 0xff, 0xff, 0xff]));
        let pieces = drain(&mut FrameScanner::StreamType, &mut queue);
        assert_eq!(pieces.concat(), [0x02, 0x01, 0xbf, 0xff, 0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn cutting_loses_nothing_wherever_packets_end(
            frames in proptest::collection::vec((0_u8..4, proptest::collection::vec(any::<u8>(), 1..60)), 0..8),
            packet in 1_usize..50,
        ) {
            let mut sent = Vec::new();
            let mut borders = Vec::new();
            for (kind, content) in &frames {
                sent.extend([*kind, u8::try_from(content.len()).unwrap()]);
                borders.push(sent.len());
                sent.extend(content);
                borders.push(sent.len());
            }
            let (mut scanner, mut queue, mut got) = (FrameScanner::Header, Chunks::default(), Vec::new());
            for part in sent.chunks(packet) {
                queue.push(Bytes::copy_from_slice(part));
                for piece in drain(&mut scanner, &mut queue) {
                    let (start, end) = (got.len(), got.len() + piece.len());
                    prop_assert!(!borders.iter().any(|border| (start + 1..end).contains(border)));
                    got.extend(piece);
                }
            }
            prop_assert_eq!(got, sent);
            prop_assert!(scanner.may_end(&queue));
        }

        #[test]
        fn any_bytes_are_cut_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut queue = Chunks::from(Bytes::from(bytes));
            let mut scanner = FrameScanner::StreamType;
            while let Ok(Some(piece)) = scanner.next(&mut queue) {
                prop_assert!(!piece.is_empty());
            }
        }
    }
}
