//! What goes over a leg of a stream that can be resumed: octets and the words about them, as frames of one kind octet, and
//! what the kind says.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::{reason::EndReason, tunnel::Chunks};

const OCTETS: u8 = 0;
const END: u8 = 1;
const CONFIRM: u8 = 2;
const CUT: u8 = 3;
const PING: u8 = 4;

/// Octets of a frame before its content at most: the kind, and a number.
const HEAD_LEN_MAX: usize = 9;

/// One frame, or a piece of one with octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Octets of the stream.
    Octets(Bytes),
    /// No more octets follow.
    End,
    /// All before this place has come.
    Confirm(u64),
    /// The stream was cut, and why. Only where a leg cannot say so itself.
    Cut(EndReason),
    /// To be answered with [`Frame::Confirm`].
    Ping,
}

/// The peer does not keep to the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no frame of a stream that can be resumed")]
pub(super) struct BadFrame;

/// Puts octets behind `words`, in their frame.
pub(super) fn octets(mut content: Chunks, words: &mut Chunks) {
    let len = u32::try_from(content.remaining()).expect("a batch is far below 4 GiB");
    let mut head = BytesMut::with_capacity(5);
    head.put_u8(OCTETS);
    head.put_u32(len);
    words.push(head.freeze());
    while let Some(piece) = content.pop() {
        words.push(piece);
    }
}

/// A frame without octets.
pub(super) fn word(frame: &Frame) -> Bytes {
    let mut head = BytesMut::with_capacity(HEAD_LEN_MAX);
    match frame {
        Frame::Octets(_) => debug_assert!(false, "octets have their own"),
        Frame::End => head.put_u8(END),
        Frame::Confirm(place) => {
            head.put_u8(CONFIRM);
            head.put_u64(*place);
        }
        Frame::Cut(reason) => {
            head.put_u8(CUT);
            head.put_u64(reason.error_code());
        }
        Frame::Ping => head.put_u8(PING),
    }
    head.freeze()
}

/// Finds frames in what comes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The beginning of a frame whose rest has not come.
    head: BytesMut,
    /// Octets of the frame under way that are still to come.
    left: usize,
}

impl Reader {
    /// Takes what came, and hands on each frame in it. Octets are not copied.
    pub(super) fn take(&mut self, mut piece: Bytes, mut on: impl FnMut(Frame)) -> Result<(), BadFrame> {
        while !piece.is_empty() {
            if self.left > 0 {
                let octets = piece.split_to(self.left.min(piece.len()));
                self.left -= octets.len();
                on(Frame::Octets(octets));
                continue;
            }
            self.head.put_u8(piece.get_u8());
            let kind = self.head[0];
            let len = match kind {
                OCTETS => 5,
                CONFIRM | CUT => HEAD_LEN_MAX,
                END | PING => 1,
                _ => return Err(BadFrame),
            };
            if self.head.len() < len {
                continue;
            }
            let mut head = self.head.split().freeze();
            head.advance(1);
            match kind {
                OCTETS => self.left = head.get_u32() as usize,
                END => on(Frame::End),
                CONFIRM => on(Frame::Confirm(head.get_u64())),
                CUT => on(Frame::Cut(EndReason::from_error_code(head.get_u64()).ok_or(BadFrame)?)),
                _ => on(Frame::Ping),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let mut wire = BytesMut::new();
        let words = [Frame::Confirm(7), Frame::Ping, Frame::Cut(EndReason::Policy), Frame::End];
        wire.put(word(&words[0]));
        let mut framed = Chunks::default();
        octets([Bytes::from_static(b"ab"), Bytes::from_static(b"c")].into_iter().collect(), &mut framed);
        wire.put(framed);
        for frame in &words[1..] {
            wire.put(word(frame));
        }
        for cut in 1..=wire.len() {
            let (mut reader, mut found, mut text) = (Reader::default(), Vec::new(), Vec::new());
            for piece in wire.chunks(cut) {
                let on = |frame| match frame {
                    Frame::Octets(octets) => text.extend_from_slice(&octets),
                    word => found.push(word),
                };
                reader.take(Bytes::copy_from_slice(piece), on).unwrap();
            }
            assert_eq!(found, words);
            assert_eq!(text, b"abc");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(Reader::default().take(Bytes::from_static(&[9]), |_| {}), Err(BadFrame));
        assert_eq!(Reader::default().take(Bytes::from_static(&[3; 9]), |_| {}), Err(BadFrame));
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_a_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut reader = Reader::default();
            for piece in pieces {
                if reader.take(piece.into(), |_| {}).is_err() {
                    break;
                }
            }
        }
    }
}
