//! What a gateway tells a client unasked: a JSON object a line, on an answer that does not end (ADR 0042). The codec,
//! without I/O.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Where a client with a session asks for them, on any host of the gateway.
pub const PATH: &str = "/.pomerium/api/v1/events";
/// The media type of the answer.
pub const MEDIA_TYPE: &str = "application/x-ndjson";
/// Octets of a line at most, its end included.
pub const LINE_LEN_MAX: usize = 4 * 1024;
/// The longest that a living gateway says nothing.
pub const PING_EVERY: Duration = Duration::from_secs(15);

/// One event.
///
/// ```
/// use pomerium_shared::events::{Event, Lines};
///
/// let mut lines = Lines::default();
/// lines.push(&Event::Routes.line()).unwrap();
/// assert_eq!(lines.next().unwrap().unwrap(), Event::Routes);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Nothing: the gateway lives.
    Ping,
    /// The list of routes is another than the client has been told of: it asks for it anew.
    Routes,
    /// How long the session lasts; the first event, and again when it changes.
    Session {
        /// Seconds since 1970.
        expires: u64,
    },
    /// The session is over; the last event.
    Ended {
        /// Why.
        reason: Ended,
    },
    /// The gateway stops and takes nothing new; the last event.
    Draining,
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Its time is over.
    Expired,
    /// Somebody ended it: the person elsewhere, an administrator, or the identity provider.
    Revoked,
    /// A reason that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// The event as its line, with the line's end.
    #[must_use]
    pub fn line(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }
}

/// What came is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// No end of a line within [`LINE_LEN_MAX`].
    #[error("a line of the gateway's events is longer than {LINE_LEN_MAX} bytes")]
    TooLong,
    /// A line that is no JSON object with an `event`, or lacks what belongs to it.
    #[error("a line of the gateway's events cannot be read")]
    Malformed,
}

/// Finds events in what comes, in whatever pieces it comes. Holds less than a line.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Where the search for the next line begins.
    read: usize,
}

impl Lines {
    /// Takes what came; all events in what came before must have been taken by [`next`](Self::next).
    ///
    /// # Errors
    /// [`EventError::TooLong`]: give the stream up.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), EventError> {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(piece);
        let longest = self.buffer.split(|octet| *octet == b'\n').map(<[u8]>::len).max().unwrap_or(0);
        if longest < LINE_LEN_MAX { Ok(()) } else { Err(EventError::TooLong) }
    }

    /// The next whole event; `None` until more came.
    #[expect(
        clippy::should_implement_trait,
        reason = "more may come after the end that an iterator would see"
    )]
    pub fn next(&mut self) -> Option<Result<Event, EventError>> {
        let rest = self.buffer.get(self.read..)?;
        let len = rest.iter().position(|octet| *octet == b'\n')?;
        let event = rest.get(..len).map(serde_json::from_slice);
        self.read += len + 1;
        event.map(|event| event.map_err(|_| EventError::Malformed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Ping),
            Just(Event::Routes),
            any::<u64>().prop_map(|expires| Event::Session { expires }),
            Just(Event::Ended { reason: Ended::Revoked }),
            Just(Event::Draining),
        ]
    }

    fn all(lines: &mut Lines) -> Vec<Result<Event, EventError>> {
        std::iter::from_fn(|| lines.next()).collect()
    }

    #[test]
    fn events_stand_in_lines_as_documented_and_later_ones_are_passed_over() {
        assert_eq!(&Event::Session { expires: 7 }.line()[..], b"{\"event\":\"session\",\"expires\":7}\n");
        let ended = Event::Ended { reason: Ended::Revoked };
        assert_eq!(&ended.line()[..], b"{\"event\":\"ended\",\"reason\":\"revoked\"}\n");
        let mut lines = Lines::default();
        lines.push(b"{\"event\":\"lunch\",\"at\":12}\n{\"event\":\"ended\",\"reason\":\"fire\"}\n").unwrap();
        assert_eq!(all(&mut lines), [Ok(Event::Unknown), Ok(Event::Ended { reason: Ended::Unknown })]);
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut lines = Lines::default();
        let pieces = (0..).map(|_| lines.push(&[b'x'; 1000])).take_while(Result::is_ok).count();
        assert!(pieces * 1000 < LINE_LEN_MAX, "{pieces}");
        let whole = [Event::Ping.line(), Event::Ping.line()].concat().repeat(1000);
        assert_eq!(Lines::default().push(&whole), Ok(()), "many short lines at once are none");
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard_in_whatever_pieces(
            events in prop::collection::vec(any_event(), 0..20),
            len in 1_usize..40,
        ) {
            let said: Vec<u8> = events.iter().flat_map(|event| event.line()).collect();
            let mut lines = Lines::default();
            let mut heard = Vec::new();
            for piece in said.chunks(len) {
                lines.push(piece).unwrap();
                heard.extend(all(&mut lines).into_iter().map(Result::unwrap));
            }
            prop_assert_eq!(heard, events);
        }

        #[test]
        fn no_octets_panic_or_are_kept_without_end(pieces in prop::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let mut lines = Lines::default();
            for piece in pieces {
                if lines.push(&piece).is_err() {
                    break;
                }
                let _any = all(&mut lines);
                prop_assert!(lines.buffer.len() - lines.read < LINE_LEN_MAX);
            }
        }
    }
}
