//! Who can sign in, and what was given out: codes, access tokens, refresh tokens. Bounded, in memory, without a clock.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

/// How long a code is good.
pub(super) const CODE_LIFETIME: Duration = Duration::from_secs(60);

/// How long an access token is good.
const ACCESS_LIFETIME: Duration = Duration::from_secs(3600);

/// How long a refresh token is good: a long working day.
const REFRESH_LIFETIME: Duration = Duration::from_secs(14 * 3600);

/// Entries of each kind at a time: a few hundred sign-ins of a few people on one machine.
pub(super) const ENTRIES_MAX: usize = 1000;

/// Somebody who can sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Person {
    /// What the button says, and the subject.
    pub(super) name: &'static str,
    /// The email address.
    pub(super) email: &'static str,
    groups: &'static [&'static str],
}

/// Everyone who can sign in. The quickstart's policy allows the first.
pub(super) const PEOPLE: [Person; 2] = [
    Person { name: "alice", email: "alice@corp.example", groups: &["engineering", "everyone"] },
    Person { name: "bob", email: "bob@corp.example", groups: &["everyone"] },
];

impl Person {
    pub(super) fn named(name: &str) -> Option<Self> {
        PEOPLE.into_iter().find(|person| person.name == name)
    }

    /// The claims of ID token and UserInfo.
    pub(super) fn claims(self) -> Value {
        json!({
            "sub": format!("development-{}", self.name),
            "email": self.email,
            "email_verified": true,
            "name": self.name,
            "groups": self.groups,
        })
    }
}

/// What a code stands for.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) person: Person,
    pub(super) nonce: Option<String>,
    /// The PKCE challenge (RFC 7636, 4.2).
    pub(super) challenge: String,
}

/// Everything that was given out and is still good.
#[derive(Default)]
pub(super) struct Grants {
    codes: Table<Code>,
    access: Table<Person>,
    refresh: Table<Person>,
}

impl Grants {
    /// A fresh code; `None` when too many are out.
    pub(super) fn issue_code(&mut self, code: Code, now: SystemTime) -> Option<String> {
        self.codes.insert(code, now, now + CODE_LIFETIME)
    }

    /// What a code stands for, once, in time, and for whoever asked for it. A failed try uses it up.
    pub(super) fn redeem_code(&mut self, code: &str, verifier: &str, now: SystemTime) -> Option<Code> {
        let code = self.codes.take(code, now)?;
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        bool::from(challenge.as_bytes().ct_eq(code.challenge.as_bytes())).then_some(code)
    }

    /// An access token and a refresh token; `None` when too many are out.
    pub(super) fn issue_tokens(&mut self, person: Person, now: SystemTime) -> Option<(String, String)> {
        let access = self.access.insert(person, now, now + ACCESS_LIFETIME)?;
        Some((access, self.refresh.insert(person, now, now + REFRESH_LIFETIME)?))
    }

    /// Whose refresh token this is; it is used up, another one comes with the new tokens.
    pub(super) fn redeem_refresh(&mut self, token: &str, now: SystemTime) -> Option<Person> {
        self.refresh.take(token, now)
    }

    /// Whose access token this is.
    pub(super) fn person_of(&self, token: &str, now: SystemTime) -> Option<Person> {
        self.access.0.get(token).filter(|entry| now < entry.expires_at).map(|entry| entry.value)
    }
}

/// Values under random names, each until its time.
struct Table<T>(HashMap<String, Entry<T>>);

struct Entry<T> {
    value: T,
    expires_at: SystemTime,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Table<T> {
    fn insert(&mut self, value: T, now: SystemTime, expires_at: SystemTime) -> Option<String> {
        self.0.retain(|_, entry| now < entry.expires_at);
        if self.0.len() >= ENTRIES_MAX {
            return None;
        }
        let name = super::random();
        self.0.insert(name.clone(), Entry { value, expires_at });
        Some(name)
    }

    fn take(&mut self, name: &str, now: SystemTime) -> Option<T> {
        self.0.remove(name).filter(|entry| now < entry.expires_at).map(|entry| entry.value)
    }
}
