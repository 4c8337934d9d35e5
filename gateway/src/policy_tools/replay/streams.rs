//! Which streams a log shows as still open, with the decision that opened each.

use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

use super::line::Check;

/// Decisions that wait for their stream at most: a stream opens seconds after its decision, or never.
const PERMITTED_MAX: usize = 1_000;
/// Open streams that are followed at most.
const OPEN_MAX: usize = 10_000;

/// A stream and the decision on it.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) check: Check,
    pub(super) person: String,
    pub(super) route: String,
    pub(super) since: SystemTime,
}

/// The streams of a log so far.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Allowed and not open yet, the oldest first.
    permitted: VecDeque<Stream>,
    /// By request id.
    open: BTreeMap<String, Stream>,
    /// Streams beyond [`OPEN_MAX`], and those whose decision the log lacks.
    not_followed: u64,
}

impl Streams {
    /// A stream may open.
    pub(super) fn permit(&mut self, check: Check, person: String, route: String, since: SystemTime) {
        if self.permitted.len() >= PERMITTED_MAX {
            self.permitted.pop_front();
        }
        self.permitted.push_back(Stream { check, person, route, since });
    }

    /// A stream has opened.
    pub(super) fn open(&mut self, request_id: &str) {
        let at = self.permitted.iter().position(|stream| stream.check.request_id == request_id);
        match at.and_then(|at| self.permitted.remove(at)) {
            Some(stream) if self.open.len() < OPEN_MAX => {
                self.open.insert(request_id.to_owned(), stream);
            }
            _ => self.not_followed += 1,
        }
    }

    /// A stream has ended.
    pub(super) fn end(&mut self, request_id: &str) {
        self.open.remove(request_id);
    }

    /// All have.
    pub(super) fn end_all(&mut self) {
        self.open.clear();
        self.permitted.clear();
        self.not_followed = 0;
    }

    /// Those that are open.
    pub(super) fn still_open(&self) -> impl Iterator<Item = &Stream> {
        self.open.values()
    }

    /// How many there are that nothing more is known of: some of them may have ended.
    pub(super) const fn not_followed(&self) -> u64 {
        self.not_followed
    }
}
