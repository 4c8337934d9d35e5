//! `policy test`: a table of cases, each a question with the answer that it should have, and what a run of them says.

mod parse;

use std::{fmt::Write as _, net::IpAddr, time::SystemTime};

use pomerium_shared::clock::Now;

pub(crate) use self::parse::parse;
use super::{
    counted, explain,
    persona::{self, DevicePersona, Persona},
    reasons,
    routes::Routes,
    run::place_asked,
    shown_time, word,
};
use crate::{
    authorize::{PresentedCertificate, Reason, Reasons, Situation},
    yaml::Position,
};

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    /// Where it stands.
    pub(crate) at: Position,
    pub(crate) name: String,
    /// Who asks; nobody is signed in when it says nothing.
    pub(crate) persona: Persona,
    pub(crate) device: Option<DevicePersona>,
    /// A name, an id or a URL.
    pub(crate) route: String,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) ip: IpAddr,
    pub(crate) time: SystemTime,
    pub(crate) country: Option<String>,
    pub(crate) asn: Option<u32>,
    /// Whether a client certificate was shown, and is valid; which one it is cannot be said.
    pub(crate) has_valid_certificate: Option<bool>,
    pub(crate) expect: Expect,
    /// Codes that must be among those of the answer.
    pub(crate) reasons: Vec<Reason>,
}

/// What a case expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Allow,
    Deny,
    SignIn,
}

impl Expect {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::SignIn => "sign-in",
        }
    }
}

/// Asks every case of `routes`: what a run prints, and how many failed. `file` is what places are told with.
pub(crate) fn run(cases: &[Case], routes: &Routes, file: &str, now: Now) -> (String, usize) {
    let mut text = format!("running {}\n", counted(cases.len(), "case", "cases"));
    let mut failures = Vec::new();
    // Writing to a `String` does not fail.
    for case in cases {
        let outcome = ask(case, routes, now);
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        let _ = writeln!(text, "case {} ... {word}", case.name);
        failures.extend(outcome.err().map(|why| (case, why)));
    }
    for (case, why) in &failures {
        let _ = write!(text, "\n---- {} ({file}:{})\n{why}", case.name, case.at);
    }
    let failed = failures.len();
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let _ = writeln!(text, "\nresult: {result}. {} passed; {failed} failed", cases.len() - failed);
    (text, failed)
}

/// Asks one case.
///
/// # Errors
/// What it came to instead, and how.
fn ask(case: &Case, routes: &Routes, now: Now) -> Result<(), String> {
    let (route, place) = routes
        .find(&case.route, case.path.as_deref(), case.method.as_deref())
        .map_err(|error| format!("{error}\n"))?;
    let now = Now { wall: case.time, ..now };
    let session = case.persona.is_somebody().then(|| case.persona.session(None, case.time));
    let device = session.as_ref().zip(case.device.as_ref());
    let situation = Situation {
        device: device.map(|(session, device)| device.device(session, case.time)),
        method: case.method.clone().unwrap_or_else(|| place.method().to_owned()),
        source_ip: case.ip,
        country: case.country.clone(),
        asn: case.asn,
        certificate: case
            .has_valid_certificate
            .map(|is_valid| PresentedCertificate { leaf: Vec::new(), is_valid }),
        session,
        ..place_asked(&place, now)
    };
    let explanation = route.policy.explain(&routes.check(&situation));
    let found = reasons(&explanation.decision);
    let missing: Reasons = case.reasons.iter().copied().filter(|reason| !found.contains(*reason)).collect();
    let came_to = word(explanation.decision.verdict());
    if came_to == case.expect.as_str() && missing.is_empty() {
        return Ok(());
    }
    let mut why = format!("expected {}", case.expect.as_str());
    if !case.reasons.is_empty() {
        let wanted: Reasons = case.reasons.iter().copied().collect();
        let _ = write!(why, " ({wanted})");
    }
    let who = situation.session.as_ref().map_or_else(|| "nobody".to_owned(), persona::shown);
    let _ = writeln!(
        why,
        ", got {came_to} ({found})\nfor {} {place} by {who} from {} at {}",
        situation.method,
        case.ip,
        shown_time(case.time)
    );
    why.push_str(&explain::tree(&explanation));
    Err(why)
}
