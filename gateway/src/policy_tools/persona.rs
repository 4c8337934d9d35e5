//! Who asks: what the store knows of somebody, what a command or a case says of them, and the session of both.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use pomerium_shared::posture::PostureReport;
use serde_json::Value as Json;

use super::{plain, shown_time};
use crate::{
    device::{Device, DeviceKind, Thumbprint},
    session::{Session, SessionId, UserId},
    store::Known,
};

/// How long a session lasts that only a question has.
const LIFE: Duration = Duration::from_secs(3600);

/// Somebody as a command or a case describes them. What is `None` is as the store says, or empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Persona {
    /// The user id.
    pub(crate) user: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) groups: Option<Vec<String>>,
    /// Each replaces the claim of its name.
    pub(crate) claims: BTreeMap<String, Vec<Json>>,
    /// When they signed in.
    pub(crate) signed_in_at: Option<SystemTime>,
    /// Whether the session is bound to the device's key.
    pub(crate) is_bound: Option<bool>,
}

/// A device as a command or a case describes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DevicePersona {
    pub(crate) id: String,
    pub(crate) kind: DeviceKind,
    pub(crate) is_approved: bool,
    /// The report, and when the gateway received it (`None`: as the question is asked).
    pub(crate) posture: Option<(PostureReport, Option<SystemTime>)>,
}

impl Default for DevicePersona {
    fn default() -> Self {
        Self { id: "device".to_owned(), kind: DeviceKind::ClientKey, is_approved: false, posture: None }
    }
}

impl Persona {
    /// An email address or a user id, as somebody types it.
    pub(crate) fn named(text: &str) -> Self {
        if text.contains('@') {
            Self { email: Some(text.to_owned()), ..Self::default() }
        } else {
            Self { user: Some(text.to_owned()), ..Self::default() }
        }
    }

    /// Whether anything is said of anybody: else nobody is signed in.
    pub(crate) fn is_somebody(&self) -> bool {
        *self != Self::default()
    }

    /// The session that this person has at `at`, over what the store knows. One that is over by then is taken as begun
    /// again, since the question is what policy says of the person.
    pub(crate) fn session(&self, known: Option<&Known>, at: SystemTime) -> Session {
        let mut session = known.and_then(|known| known.session.clone()).unwrap_or_else(|| fresh(known, at));
        if !session.is_valid_at(at) || session.issued_at > at {
            (session.issued_at, session.expires_at) = (at, at + LIFE);
        }
        if let Some(user) = &self.user {
            session.user_id = UserId::new(&**user);
        }
        if let Some(email) = &self.email {
            session.email.clone_from(email);
        }
        if let Some(groups) = &self.groups {
            session.groups.clone_from(groups);
        }
        session.claims.extend(self.claims.clone());
        if let Some(signed_in_at) = self.signed_in_at {
            session.issued_at = signed_in_at;
        }
        match self.is_bound {
            Some(true) => session.bound_to = Some(Thumbprint::from_text(DevicePersona::default().id)),
            Some(false) => session.bound_to = None,
            None => {}
        }
        session
    }
}

fn fresh(known: Option<&Known>, at: SystemTime) -> Session {
    Session {
        id: SessionId::new("asked"),
        user_id: UserId::new(known.map_or("", |known| known.user.id.as_str())),
        idp_id: String::new(),
        email: known.map(|known| known.user.email.clone()).unwrap_or_default(),
        name: known.map(|known| known.user.name.clone()).unwrap_or_default(),
        groups: Vec::new(),
        claims: BTreeMap::new(),
        issued_at: at,
        expires_at: at + LIFE,
        bound_to: None,
        vouched_until: None,
        proof: None,
    }
}

impl DevicePersona {
    /// The device of this session at `at`; of a bound session the one that it is bound to.
    pub(crate) fn device(&self, session: &Session, at: SystemTime) -> Device {
        Device {
            id: session.bound_to.as_ref().map_or_else(|| self.id.clone(), ToString::to_string),
            user_id: session.user_id.clone(),
            name: String::new(),
            kind: self.kind,
            is_approved: self.is_approved,
            enrolled_at: at,
            posture: self.posture.clone().map(|(report, received_at)| (report, received_at.unwrap_or(at))),
        }
    }
}

/// Who somebody is, for a line: the email address, else the user id.
pub(crate) fn shown(session: &Session) -> String {
    plain(if session.email.is_empty() { session.user_id.as_str() } else { &session.email })
}

/// Where what is known of somebody comes from.
pub(crate) fn source(known: Option<&Known>, at: SystemTime) -> String {
    match known {
        None => "not in the store: only what the command says is known".to_owned(),
        Some(Known { session: None, user }) => format!(
            "signed in at {} and has no session left: claims and groups are not known",
            shown_time(user.signed_in_at)
        ),
        Some(Known { session: Some(session), .. }) if session.is_valid_at(at) => {
            format!("signed in at {}", shown_time(session.issued_at))
        }
        Some(Known { session: Some(session), .. }) => format!(
            "their session of {} is over by then: taken as begun again",
            shown_time(session.issued_at)
        ),
    }
}
