//! Datagrams in a row, to one place, that one call of the system can send: all of one length, the last may be shorter.

use super::{DATAGRAM_MAX, tunnel::HANDSHAKE};

/// Octets of a train at most: what fits a UDP datagram of IPv4, which is what the system cuts it from.
const TRAIN_MAX: usize = 65_507;

/// A buffer that datagrams are written into, one behind the other.
#[derive(Debug)]
pub struct Train {
    buffer: Box<[u8]>,
    used: usize,
    segment: usize,
    segments: usize,
    segments_max: usize,
    is_closed: bool,
}

/// A whole train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready<'a> {
    /// All datagrams.
    pub contents: &'a [u8],
    /// Octets of each, but for the last.
    pub segment: usize,
    /// How many there are.
    pub segments: usize,
}

impl Train {
    /// An empty train, of so many datagrams at most.
    #[must_use]
    pub fn new(segments_max: usize) -> Self {
        // What is written behind the last datagram may be one that begins the next train.
        let buffer = vec![0; TRAIN_MAX + DATAGRAM_MAX].into_boxed_slice();
        Self { buffer, used: 0, segment: 0, segments: 0, segments_max: segments_max.max(1), is_closed: false }
    }

    /// From the next datagram on, so many in a train at most.
    pub const fn limit(&mut self, segments_max: usize) {
        self.segments_max = if segments_max == 0 { 1 } else { segments_max };
    }

    /// Where the next datagram is to be written: room for [`DATAGRAM_MAX`] octets.
    pub fn room(&mut self) -> &mut [u8] {
        const _: () = assert!(DATAGRAM_MAX >= HANDSHAKE);
        &mut self.buffer[self.used..self.used + DATAGRAM_MAX]
    }

    /// Takes what was written into [`Self::room`] as a datagram of `len` octets; `false` where it cannot ride along: send what is
    /// [`Self::ready`], and [`Self::restart`] with it.
    #[must_use]
    pub fn push(&mut self, len: usize) -> bool {
        let len = len.min(DATAGRAM_MAX);
        let is_first = self.segments == 0;
        let fits = !self.is_closed
            && self.segments < self.segments_max
            && self.used + len <= TRAIN_MAX
            && (is_first || len <= self.segment);
        if fits {
            self.segment = if is_first { len } else { self.segment };
            self.is_closed = len < self.segment;
            self.used += len;
            self.segments += 1;
        }
        fits
    }

    /// What there is to send, if anything.
    #[must_use]
    pub fn ready(&self) -> Option<Ready<'_>> {
        let contents = &self.buffer[..self.used];
        (self.segments > 0).then_some(Ready { contents, segment: self.segment, segments: self.segments })
    }

    /// Begins the next train, with the `len` octets in [`Self::room`] as its first datagram; none where that is 0.
    pub fn restart(&mut self, len: usize) {
        let len = len.min(DATAGRAM_MAX);
        self.buffer.copy_within(self.used..self.used + len, 0);
        (self.used, self.segment, self.is_closed) = (len, len, false);
        self.segments = usize::from(len > 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(train: &mut Train, len: usize, fill: u8, sent: &mut Vec<Vec<u8>>) {
        train.room()[..len].fill(fill);
        if !train.push(len) {
            take(train, sent);
            train.restart(len);
        }
    }

    fn take(train: &Train, sent: &mut Vec<Vec<u8>>) {
        let Some(ready) = train.ready() else { return };
        let datagrams: Vec<_> = ready.contents.chunks(ready.segment).map(<[u8]>::to_vec).collect();
        assert_eq!(datagrams.len(), ready.segments);
        assert!(ready.contents.len() <= TRAIN_MAX);
        sent.extend(datagrams);
    }

    proptest! {
        #[test]
        fn every_datagram_leaves_whole_and_in_order(
            lens in proptest::collection::vec(1_usize..=DATAGRAM_MAX, 0..200), segments_max in 1_usize..70,
        ) {
            let mut train = Train::new(segments_max);
            let mut sent = Vec::new();
            for (number, len) in lens.iter().enumerate() {
                write(&mut train, *len, number as u8, &mut sent);
            }
            take(&train, &mut sent);
            let expected: Vec<_> = lens.iter().enumerate().map(|(n, len)| vec![n as u8; *len]).collect();
            prop_assert_eq!(sent, expected);
        }
    }

    #[test]
    fn datagrams_of_one_length_go_out_in_one_call() {
        let mut train = Train::new(64);
        assert!((0..40).all(|_| train.push(1452)) && train.push(100));
        assert_eq!(train.ready().map(|ready| ready.segments), Some(41));
        assert!(!train.push(1452), "nothing rides behind a shorter one");
        train.restart(1452);
        assert_eq!(train.ready().map(|ready| (ready.segments, ready.segment)), Some((1, 1452)));
        assert!(!train.push(1453), "nothing rides that is longer than the first");
        train.restart(0);
        assert_eq!(train.ready(), None);
    }
}
