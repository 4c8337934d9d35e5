//! `policy diff`: which people gain or lose which routes between two configurations.
//!
//! A route is asked for by one request that it takes, of both configurations, through their routers: a route that comes
//! or goes, or takes over what was another's, is seen as what it does to people.

use std::{collections::HashSet, fmt::Write as _, net::IpAddr, sync::Arc};

use pomerium_shared::clock::Now;
use serde_json::{Value as Json, json};

use super::{
    counted, persona, reasons,
    routes::{Place, Routes},
    run::place_asked,
    word,
};
use crate::{
    authorize::{Decision, PresentedCertificate, Situation, Verdict},
    config::Route,
    session::Session,
};

/// Changes that are shown at most; the others are counted.
const SHOWN_MAX: usize = 10_000;

/// What both configurations are asked.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    pub(crate) old: &'a Routes,
    pub(crate) new: &'a Routes,
    /// Everybody who is known; that nobody is signed in is asked as well.
    pub(crate) people: &'a [Session],
    /// Where they come from.
    pub(crate) ip: IpAddr,
    /// When they ask.
    pub(crate) now: Now,
}

/// What changes.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    changes: Vec<Change<'a>>,
    not_shown: usize,
    gains: usize,
    losses: usize,
    people: usize,
    routes: usize,
    /// Routes of which only a pattern says what they take: asked for with the path `/`.
    patterns: Vec<String>,
}

/// What changes for one person on one route.
#[derive(Debug)]
struct Change<'a> {
    /// `None`: nobody is signed in.
    person: Option<&'a Session>,
    route: String,
    place: String,
    before: Answer,
    after: Answer,
}

/// What one configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    NoRoute,
    Decided(Decision),
}

impl Answer {
    fn of(routes: &Routes, route: Option<&Arc<Route>>, situation: &Situation) -> Self {
        route.map_or(Self::NoRoute, |route| Self::Decided(route.policy.evaluate(&routes.check(situation))))
    }

    const fn is_yes(self) -> bool {
        matches!(self, Self::Decided(decision) if matches!(decision.verdict(), Verdict::Allow))
    }

    const fn word(self) -> &'static str {
        match self {
            Self::NoRoute => "no route",
            Self::Decided(decision) => word(decision.verdict()),
        }
    }

    fn json(self) -> Json {
        match self {
            Self::NoRoute => json!({ "answer": self.word() }),
            Self::Decided(decision) => {
                let codes: Vec<_> = reasons(&decision).iter().map(|reason| reason.as_str()).collect();
                json!({ "answer": self.word(), "reasons": codes })
            }
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoRoute => f.write_str(self.word()),
            Self::Decided(decision) => f.write_str(&super::answer(decision)),
        }
    }
}

/// One request to both configurations, and the routes that take it.
struct Probe<'a> {
    situation: Situation,
    place: String,
    old: Option<&'a Arc<Route>>,
    new: Option<&'a Arc<Route>>,
}

impl Probe<'_> {
    /// What changes, if anything does. Who has a client certificate is not known: where one is needed, somebody with a valid
    /// one is asked for first, and then somebody without.
    fn change(&mut self, survey: &Survey<'_>) -> Option<(Answer, Answer)> {
        let routes = [self.old, self.new];
        let needs_certificate = routes.into_iter().flatten().any(|route| route.policy.has_client_authority());
        let valid = needs_certificate.then(|| PresentedCertificate { leaf: Vec::new(), is_valid: true });
        valid.map(Some).into_iter().chain([None]).find_map(|certificate| {
            self.situation.certificate = certificate;
            let before = Answer::of(survey.old, self.old, &self.situation);
            let after = Answer::of(survey.new, self.new, &self.situation);
            (before.is_yes() != after.is_yes()).then_some((before, after))
        })
    }
}

/// Compares.
pub(crate) fn compare<'a>(survey: &Survey<'a>) -> Comparison<'a> {
    let (probes, patterns) = probes(survey);
    let mut comparison = Comparison {
        changes: Vec::new(),
        not_shown: 0,
        gains: 0,
        losses: 0,
        people: survey.people.len(),
        routes: probes.len(),
        patterns,
    };
    for mut probe in probes {
        for person in std::iter::once(None).chain(survey.people.iter().map(Some)) {
            probe.situation.session = person.cloned();
            if let Some((before, after)) = probe.change(survey) {
                let route = probe.new.or(probe.old).map(|route| route.name.clone()).unwrap_or_default();
                let change = Change { person, route, place: probe.place.clone(), before, after };
                comparison.add(change);
            }
        }
    }
    comparison
}

/// A request for each route of either configuration, and the names of those that only a pattern describes.
fn probes<'a>(survey: &Survey<'a>) -> (Vec<Probe<'a>>, Vec<String>) {
    let (old, new) = (survey.old, survey.new);
    let (mut probes, mut patterns) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    let mut add = |place: Option<Place>, old: Option<&'a Arc<Route>>, new: Option<&'a Arc<Route>>| {
        let key = |route: Option<&Arc<Route>>| route.map(Arc::as_ptr);
        if !seen.insert((key(old), key(new))) {
            return false;
        }
        let stranger = Situation::of_stranger(survey.now);
        let situation = place.as_ref().map_or(stranger, |place| place_asked(place, survey.now));
        let written = || new.or(old).map(|route| route.from_url.clone()).unwrap_or_default();
        let place = place.map_or_else(written, |place| place.to_string());
        probes.push(Probe { situation: Situation { source_ip: survey.ip, ..situation }, place, old, new });
        true
    };
    for (own, route) in
        new.all().iter().map(|route| (new, route)).chain(old.all().iter().map(|route| (old, route)))
    {
        if let Some(place) = own.sample(route) {
            let (before, after) = (old.at(&place), new.at(&place));
            add(Some(place), before, after);
        } else if own.is_pattern(route) {
            let of = |routes: &'a Routes| routes.same_as(route);
            if add(None, of(old), of(new)) {
                patterns.push(route.name.clone());
            }
        }
    }
    (probes, patterns)
}

impl<'a> Comparison<'a> {
    fn add(&mut self, change: Change<'a>) {
        if change.after.is_yes() {
            self.gains += 1;
        } else {
            self.losses += 1;
        }
        if self.changes.len() < SHOWN_MAX {
            self.changes.push(change);
        } else {
            self.not_shown += 1;
        }
    }

    /// Whether anybody's access changes.
    pub(crate) const fn is_change(&self) -> bool {
        self.gains + self.losses > 0
    }

    /// As a table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let rows: Vec<_> = self.changes.iter().map(Change::cells).collect();
        text.push_str(&columns(["", "PERSON", "ROUTE", "BEFORE", "AFTER"], &rows));
        // Writing to a `String` does not fail.
        if self.not_shown > 0 {
            let _ = writeln!(text, "... and {} more", self.not_shown);
        }
        for name in &self.patterns {
            let _ = writeln!(
                text,
                "note: only a pattern says what the route {name} takes: asked for with the path /"
            );
        }
        let (people, routes) =
            (counted(self.people, "person", "people"), counted(self.routes, "route", "routes"));
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = if self.is_change() {
            writeln!(text, "{gap}{people}, {routes}: {} gained, {} lost", self.gains, self.losses)
        } else {
            writeln!(text, "{gap}{people}, {routes}: nobody's access changes")
        };
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        let changes: Vec<_> = self.changes.iter().map(Change::json).collect();
        let document = json!({
            "people": self.people, "routes": self.routes, "gained": self.gains, "lost": self.losses,
            "not_shown": self.not_shown, "patterns": self.patterns, "changes": changes,
        });
        format!("{document:#}\n")
    }
}

impl Change<'_> {
    const fn word(&self) -> &'static str {
        if self.after.is_yes() { "gains" } else { "loses" }
    }

    fn cells(&self) -> [String; 5] {
        let person = self.person.map_or_else(|| "(not signed in)".to_owned(), persona::shown);
        [self.word().to_owned(), person, self.route.clone(), self.before.to_string(), self.after.to_string()]
    }

    fn json(&self) -> Json {
        let person = self
            .person
            .map(|session| json!({ "user": session.user_id.as_str(), "email": session.email.as_str() }));
        json!({
            "change": self.word(), "person": person, "route": self.route, "url": self.place,
            "before": self.before.json(), "after": self.after.json(),
        })
    }
}

/// Cells under their headings; nothing where there is no row.
pub(super) fn columns<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let headings = headings.map(str::to_owned);
    if rows.is_empty() {
        return String::new();
    }
    let lines = || std::iter::once(&headings).chain(rows);
    let widths: [usize; N] =
        std::array::from_fn(|at| lines().map(|row| row[at].chars().count()).max().unwrap_or_default());
    let mut text = String::new();
    for row in lines() {
        let padded: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}
