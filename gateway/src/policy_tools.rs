//! What people do with policy before it runs: explain one answer, test a table of cases, compare two configurations,
//! and replay the log of a gateway against a candidate.
//!
//! All of it asks [`crate::authorize`] the questions that the proxy would ask, with the router that the proxy has. The
//! decisions and the texts are pure; `run` alone reads files, the store and the clock. Nothing here changes anything.

mod cases;
mod diff;
mod explain;
mod persona;
mod replay;
mod routes;
pub(crate) mod run;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use crate::authorize::{Decision, Reasons, Verdict};

/// Characters of somebody's name that are shown.
const SHOWN_LEN_MAX: usize = 200;

/// RFC 3339 in UTC, to the second.
fn shown_time(time: SystemTime) -> String {
    let second = jiff::Timestamp::try_from(time).and_then(|at| jiff::Timestamp::from_second(at.as_second()));
    second.map_or_else(|_| "a time that cannot be written".to_owned(), |at| at.to_string())
}

/// The reason codes that belong to a decision's verdict.
fn reasons(decision: &Decision) -> Reasons {
    match decision.verdict() {
        Verdict::SignIn => decision.allow.reasons.union(decision.deny.reasons),
        Verdict::Allow | Verdict::Deny { .. } => decision.visible_reasons(),
    }
}

/// The word for a verdict, as cases write it.
const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::SignIn => "sign-in",
        Verdict::Deny { .. } => "deny",
    }
}

/// The word for a decision with its reason codes: `deny (email-unauthorized)`.
fn answer(decision: &Decision) -> String {
    let reasons = reasons(decision);
    let word = word(decision.verdict());
    if reasons.is_empty() { word.to_owned() } else { format!("{word} ({reasons})") }
}

/// A text of a person, a provider or a log: bounded, and without what a terminal would obey.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars().take(SHOWN_LEN_MAX) {
        match c {
            '"' | '\'' | '\\' => plain.push(c),
            _ => plain.extend(c.escape_debug()),
        }
    }
    plain
}

/// `1 route`, `2 routes`.
fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}
