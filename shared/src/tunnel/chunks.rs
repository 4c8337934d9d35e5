//! Bytes that arrived in pieces, sent on as one.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// A chain of [`Bytes`] that reads as one buffer: the content of one DATA frame.
///
/// ```
/// use bytes::{Buf, Bytes};
/// use pomerium_shared::tunnel::Chunks;
/// let mut chunks: Chunks = [Bytes::from_static(b"SSH-"), Bytes::from_static(b"2.0")].into_iter().collect();
/// assert_eq!(chunks.remaining(), 7);
/// assert_eq!(chunks.copy_to_bytes(7), &b"SSH-2.0"[..]);
/// ```
#[derive(Debug, Default, Clone)]
pub struct Chunks {
    // None is empty: `chunk` must show the first byte.
    parts: VecDeque<Bytes>,
    remaining: usize,
}

impl Chunks {
    /// Adds bytes at the end.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.remaining += part.len();
            self.parts.push_back(part);
        }
    }

    /// Takes the first piece as it came, without copying.
    pub fn pop(&mut self) -> Option<Bytes> {
        let part = self.parts.pop_front()?;
        self.remaining -= part.len();
        Some(part)
    }

    /// The pieces, first to last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter()
    }

    /// Whether no byte is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remaining == 0
    }
}

impl From<Bytes> for Chunks {
    fn from(part: Bytes) -> Self {
        Self::from_iter([part])
    }
}

impl FromIterator<Bytes> for Chunks {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let mut chunks = Self::default();
        for part in parts {
            chunks.push(part);
        }
        chunks
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let count = self.parts.len().min(slices.len());
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advance past the end of the chunks");
        self.remaining -= count;
        while let Some(part) = self.parts.front_mut() {
            if count < part.len() {
                part.advance(count);
                return;
            }
            count -= part.len();
            self.parts.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        assert!(count <= self.remaining, "copy past the end of the chunks");
        // One piece is shared, not copied.
        if let Some(part) = self.parts.front_mut().filter(|part| count <= part.len()) {
            self.remaining -= count;
            let taken = part.split_to(count);
            if part.is_empty() {
                self.parts.pop_front();
            }
            return taken;
        }
        let mut copy = bytes::BytesMut::with_capacity(count);
        bytes::BufMut::put(&mut copy, self.take(count));
        copy.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn steps() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<(bool, usize)>)> {
        let parts = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12);
        (parts, proptest::collection::vec((any::<bool>(), 0_usize..60), 0..20))
    }

    proptest! {
        #[test]
        fn a_chain_reads_as_the_bytes_behind_one_another((parts, steps) in steps()) {
            let mut whole: Bytes = parts.concat().into();
            let mut chunks: Chunks = parts.into_iter().map(Bytes::from).collect();
            for (copy, count) in steps {
                let count = count.min(whole.len());
                if copy {
                    prop_assert_eq!(chunks.copy_to_bytes(count), whole.copy_to_bytes(count));
                } else {
                    chunks.advance(count);
                    whole.advance(count);
                }
                prop_assert_eq!(chunks.remaining(), whole.len());
                prop_assert_eq!(chunks.chunk().is_empty(), whole.is_empty());
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = chunks.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                prop_assert_eq!(seen, whole.to_vec());
            }
        }
    }
}
