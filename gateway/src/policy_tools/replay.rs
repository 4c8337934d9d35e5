//! `policy replay`: the decisions that a gateway has logged, taken again by a candidate configuration.
//!
//! A log may be far larger than memory: whatever is kept of it has a bound, and what is beyond is counted.

mod line;
mod report;
mod streams;

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read as _},
    sync::Arc,
    time::SystemTime,
};

use pomerium_shared::clock::Now;

use self::{
    line::{Check, Line},
    streams::Streams,
};
use super::{persona, plain, routes::Routes};
use crate::{
    authorize::{Decision, Inputs, Situation, Verdict},
    config::Route,
};

/// Bytes of a line at most: inputs of 8 KiB, escaped, beside a path of a request's longest head.
const LINE_LEN_MAX: u64 = 256 * 1024;
/// People and routes whose access changes, told apart at most.
const GROUPS_MAX: usize = 10_000;

/// A replay on its way through a log.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    candidate: &'a Routes,
    now: Now,
    groups: BTreeMap<GroupKey, Group>,
    streams: Streams,
    count: Counts,
    /// The latest decision seen.
    latest: Option<SystemTime>,
}

/// How many lines of which kind there were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Decisions that were taken again.
    decisions: u64,
    same: u64,
    gained: u64,
    lost: u64,
    undecided: u64,
    /// Changes of people and routes beyond [`GROUPS_MAX`].
    not_shown: u64,
    /// Decisions that the log does not hold the inputs of.
    without_inputs: u64,
    /// Lines that are no JSON, or too long.
    unreadable: u64,
}

/// What happens to whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    change: Change,
    person: String,
    route: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Loses,
    Gains,
    /// The log does not hold all that the candidate asks about.
    Undecided,
}

/// How often, and the first time.
#[derive(Debug)]
struct Group {
    requests: u64,
    before: String,
    after: String,
    first_at: SystemTime,
    first_request: String,
}

/// What the candidate says to a recorded question.
enum Answer {
    NoRoute,
    Decided(Decision),
    /// It depends on what the log does not hold: the criteria.
    Undecided(String),
}

impl<'a> Replay<'a> {
    pub(crate) fn new(candidate: &'a Routes, now: Now) -> Self {
        Self {
            candidate,
            now,
            groups: BTreeMap::new(),
            streams: Streams::default(),
            count: Counts::default(),
            latest: None,
        }
    }

    /// Reads a whole log.
    ///
    /// # Errors
    /// What reading brings; a line that cannot be understood is counted only.
    pub(crate) fn read(&mut self, log: &mut impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if log.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') && line.len() as u64 == LINE_LEN_MAX {
                log.skip_until(b'\n')?;
                self.count.unreadable += 1;
            } else {
                self.line(&line);
            }
        }
    }

    /// Takes one line.
    pub(crate) fn line(&mut self, line: &[u8]) {
        match Line::parse(line) {
            Line::Nothing => {}
            Line::Unreadable => self.count.unreadable += 1,
            Line::WithoutInputs => self.count.without_inputs += 1,
            Line::Check(check) => self.check(*check),
            Line::StreamOpened(request_id) => self.streams.open(&request_id),
            Line::StreamEnded(request_id) => self.streams.end(&request_id),
            Line::GatewayStopped => self.streams.end_all(),
        }
    }

    fn check(&mut self, check: Check) {
        let Ok(situation) = check.inputs.situation(self.now) else {
            self.count.without_inputs += 1;
            return;
        };
        let at = situation.now.wall;
        self.latest = self.latest.max(Some(at));
        self.count.decisions += 1;
        let route = self.route_of(&check, &situation);
        let answer = decide(self.candidate, route, &check.inputs, &situation);
        let was_allowed = check.decision.verdict() == Verdict::Allow;
        let change = match (was_allowed, &answer) {
            (_, Answer::Undecided(_)) => Some(Change::Undecided),
            (true, answer) if !answer.is_yes() => Some(Change::Loses),
            (false, answer) if answer.is_yes() => Some(Change::Gains),
            _ => None,
        };
        let counter = match change {
            None => &mut self.count.same,
            Some(Change::Gains) => &mut self.count.gained,
            Some(Change::Loses) => &mut self.count.lost,
            Some(Change::Undecided) => &mut self.count.undecided,
        };
        *counter += 1;
        let person = situation.session.as_ref();
        let person = person.map_or_else(|| "(not signed in)".to_owned(), persona::shown);
        let route = route.map_or_else(|| plain(&check.route_name), |route| route.name.clone());
        if let Some(change) = change {
            let before = super::answer(&check.decision);
            self.group(GroupKey { change, person: person.clone(), route: route.clone() }, || Group {
                requests: 0,
                before,
                after: answer.to_string(),
                first_at: at,
                first_request: plain(&check.request_id),
            });
        }
        if was_allowed && situation.method == "CONNECT" {
            self.streams.permit(check, person, route, at);
        }
    }

    fn group(&mut self, key: GroupKey, first: impl FnOnce() -> Group) {
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            self.count.not_shown += 1;
            return;
        }
        self.groups.entry(key).or_insert_with(first).requests += 1;
    }

    fn route_of(&self, check: &Check, situation: &Situation) -> Option<&'a Arc<Route>> {
        let Situation { method, host, path, .. } = situation;
        self.candidate.recorded(&check.route_id, &check.route_name, method, host, path)
    }

    /// Whether the candidate would leave a stream open at the log's end; `None` if the log does not tell.
    fn keeps(&self, check: &Check, latest: SystemTime) -> Option<bool> {
        let mut situation = check.inputs.situation(self.now).ok()?;
        situation.now.wall = latest;
        // The stream is open, so its session has been renewed since.
        if let Some(session) = situation.session.as_mut().filter(|session| !session.is_valid_at(latest)) {
            session.expires_at = latest + std::time::Duration::from_secs(1);
        }
        match decide(self.candidate, self.route_of(check, &situation), &check.inputs, &situation) {
            Answer::Undecided(_) => None,
            answer => Some(answer.is_yes()),
        }
    }
}

fn decide(candidate: &Routes, route: Option<&Arc<Route>>, inputs: &Inputs, situation: &Situation) -> Answer {
    let Some(route) = route else { return Answer::NoRoute };
    let policy = &route.policy;
    let check = candidate.check(situation);
    if let Some(decision) = policy.decide_from_known(&check, |criterion| inputs.knows(criterion)) {
        return Answer::Decided(decision);
    }
    let mut unknown: Vec<_> =
        policy.criteria().filter(|criterion| !inputs.knows(criterion)).map(ToString::to_string).collect();
    unknown.dedup();
    unknown.truncate(3);
    Answer::Undecided(plain(&unknown.join(", ")))
}

impl Answer {
    const fn is_yes(&self) -> bool {
        matches!(self, Self::Decided(decision) if matches!(decision.verdict(), Verdict::Allow))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoRoute => f.write_str("no route"),
            Self::Decided(decision) => f.write_str(&super::answer(decision)),
            Self::Undecided(criteria) => write!(f, "not in the log: {criteria}"),
        }
    }
}
