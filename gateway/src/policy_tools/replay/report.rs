//! What a replay has found, for people and for programs.

use std::{collections::BTreeSet, fmt::Write as _, time::UNIX_EPOCH};

use serde_json::{Value as Json, json};

use super::{Change, Counts, Replay, streams::Stream};
use crate::policy_tools::{diff::columns, plain, shown_time};

/// The end of a replay.
#[derive(Debug)]
pub(crate) struct Report<'r> {
    replay: &'r Replay<'r>,
    /// Streams that the candidate would close.
    closed: Vec<&'r Stream>,
    /// Streams that the log does not tell enough of.
    undecided: Vec<&'r Stream>,
}

impl Replay<'_> {
    /// What was found so far.
    pub(crate) fn report(&self) -> Report<'_> {
        let latest = self.latest.unwrap_or(UNIX_EPOCH);
        let (mut closed, mut undecided) = (Vec::new(), Vec::new());
        for stream in self.streams.still_open() {
            match self.keeps(&stream.check, latest) {
                Some(true) => {}
                Some(false) => closed.push(stream),
                None => undecided.push(stream),
            }
        }
        Report { replay: self, closed, undecided }
    }
}

impl Change {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Loses => "loses",
            Self::Gains => "gains",
            Self::Undecided => "undecided",
        }
    }
}

impl Report<'_> {
    /// Whether there was any decision to take again.
    pub(crate) const fn has_decisions(&self) -> bool {
        self.replay.count.decisions > 0
    }

    /// Whether the candidate decides anything otherwise, or cannot be told to decide the same.
    pub(crate) fn is_change(&self) -> bool {
        let Counts { gained, lost, undecided, without_inputs, .. } = self.replay.count;
        gained + lost + undecided + without_inputs > 0
            || !self.closed.is_empty()
            || !self.undecided.is_empty()
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let rows: Vec<_> = self
            .replay
            .groups
            .iter()
            .map(|(key, group)| {
                let first = format!("{} {}", shown_time(group.first_at), group.first_request);
                let (person, route) = (key.person.clone(), key.route.clone());
                let requests = group.requests.to_string();
                let change = key.change.as_str().to_owned();
                [change, person, route, requests, group.before.clone(), group.after.clone(), first]
            })
            .collect();
        let headings = ["", "PERSON", "ROUTE", "REQUESTS", "BEFORE", "AFTER", "FIRST"];
        let mut text = columns(headings, &rows);
        if !rows.is_empty() {
            text.push('\n');
        }
        let streams: Vec<_> = [("would close", &self.closed), ("undecided", &self.undecided)]
            .into_iter()
            .flat_map(|(word, streams)| streams.iter().map(move |stream| (word, stream)))
            .map(|(word, stream)| {
                let since = shown_time(stream.since);
                let request = plain(&stream.check.request_id);
                [word.to_owned(), stream.person.clone(), stream.route.clone(), since, request]
            })
            .collect();
        text.push_str(&columns(["OPEN STREAM", "PERSON", "ROUTE", "SINCE", "REQUEST"], &streams));
        if !streams.is_empty() {
            text.push('\n');
        }
        text.push_str(&self.summary());
        text
    }

    fn summary(&self) -> String {
        let count = &self.replay.count;
        let mut text = String::new();
        // Writing to a `String` does not fail.
        let _ = writeln!(
            text,
            "decisions taken again: {}; {} the same, {} gained, {} lost, {} undecided",
            count.decisions, count.same, count.gained, count.lost, count.undecided
        );
        for change in [Change::Gains, Change::Loses] {
            let keys = || self.replay.groups.keys().filter(move |key| key.change == change);
            let people: BTreeSet<_> = keys().map(|key| &key.person).collect();
            let routes: BTreeSet<_> = keys().map(|key| &key.route).collect();
            if !people.is_empty() {
                let word = if change == Change::Gains { "gain" } else { "lose" };
                let _ =
                    writeln!(text, "people who {word} access: {}, on routes: {}", people.len(), routes.len());
            }
        }
        let open = self.replay.streams.still_open().count();
        let closed = self.closed.len();
        let _ = writeln!(text, "streams that the log shows as open: {open}, of which would close: {closed}");
        for (number, what) in [
            (count.not_shown, "changes of more people and routes are not shown"),
            (self.replay.streams.not_followed(), "streams could not be followed"),
            (count.without_inputs, "decisions have no inputs that can be read: they were not taken again"),
            (count.unreadable, "lines could not be read"),
        ] {
            if number > 0 {
                let _ = writeln!(text, "note: {number} {what}");
            }
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        let count = &self.replay.count;
        let changes: Vec<Json> = self
            .replay
            .groups
            .iter()
            .map(|(key, group)| {
                json!({
                    "change": key.change.as_str(), "person": key.person, "route": key.route,
                    "requests": group.requests, "before": group.before, "after": group.after,
                    "first": { "time": shown_time(group.first_at), "request_id": group.first_request },
                })
            })
            .collect();
        let streams = |streams: &[&Stream]| -> Vec<Json> {
            let stream = |stream: &&Stream| {
                json!({
                    "person": stream.person, "route": stream.route, "since": shown_time(stream.since),
                    "request_id": plain(&stream.check.request_id),
                })
            };
            streams.iter().map(stream).collect()
        };
        let document = json!({
            "decisions": count.decisions, "same": count.same, "gained": count.gained, "lost": count.lost,
            "undecided": count.undecided, "not_shown": count.not_shown,
            "without_inputs": count.without_inputs, "unreadable": count.unreadable,
            "open_streams": self.replay.streams.still_open().count(),
            "streams_not_followed": self.replay.streams.not_followed(),
            "changes": changes,
            "streams_closed": streams(&self.closed), "streams_undecided": streams(&self.undecided),
        });
        format!("{document:#}\n")
    }
}
