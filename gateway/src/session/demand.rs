//! What a route asks of the sign-in itself (step-up, RFC 9470): how somebody authenticated, and how long ago.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::Session;

/// How far the provider's clock may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// `sign_in_prompt`, `sign_in_max_age` and `sign_in_acr_values` of a route. The default asks nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignInDemand {
    /// OpenID Connect's `prompt`: how the provider is to meet the person. Leaves no trace that could be checked.
    pub prompt: Option<Prompt>,
    /// Seconds since the person authenticated (`auth_time`), at most.
    pub max_age_seconds: Option<u64>,
    /// One of these (`acr`) the sign-in must have met, the most wanted first.
    pub acr_values: Vec<String>,
}

/// OpenID Connect Core, 3.1.2.1. `none` is left out: nobody could ever sign in with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// The person authenticates, even if they have a session at the provider.
    Login,
    /// The provider asks for consent.
    Consent,
    /// The person chooses an account.
    SelectAccount,
}

/// In what a session falls short of a route's demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// The person authenticated too long ago, or nobody says when.
    #[error("the sign-in is too long ago")]
    TooLongAgo,
    /// The person authenticated in another way, or nobody says how.
    #[error("the sign-in is not of the kind that is asked for")]
    OtherKind,
}

impl Prompt {
    /// All, with their words.
    pub const ALL: [(&'static str, Self); 3] =
        [("login", Self::Login), ("consent", Self::Consent), ("select_account", Self::SelectAccount)];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Consent => "consent",
            Self::SelectAccount => "select_account",
        }
    }
}

impl SignInDemand {
    /// Asks nothing.
    pub const NONE: Self = Self { prompt: None, max_age_seconds: None, acr_values: Vec::new() };

    /// The names of the parameters by which a demand travels, and goes to the provider.
    pub const PROMPT: &'static str = "prompt";
    /// See [`Self::PROMPT`].
    pub const MAX_AGE: &'static str = "max_age";
    /// See [`Self::PROMPT`].
    pub const ACR_VALUES: &'static str = "acr_values";

    /// Whether a session that was begun in this way may be used.
    ///
    /// # Errors
    /// [`Unmet`]. What the provider does not say is not met: it must send `auth_time` when asked by `max_age`, and `acr`.
    pub fn check(&self, session: &Session, now: SystemTime) -> Result<(), Unmet> {
        if let Some(max_age) = self.max_age_seconds {
            let authenticated = session.claims.get("auth_time").and_then(|times| match times.as_slice() {
                [time] => time.as_u64(),
                _ => None,
            });
            let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let is_recent = authenticated.is_some_and(|then| {
                then <= now.saturating_add(CLOCK_SKEW.as_secs()) && now <= then.saturating_add(max_age)
            });
            if !is_recent {
                return Err(Unmet::TooLongAgo);
            }
        }
        if !self.acr_values.is_empty() {
            let is_met = session.claims.get("acr").is_some_and(|said| match said.as_slice() {
                [said] => self.acr_values.iter().any(|wanted| said == wanted),
                _ => false,
            });
            if !is_met {
                return Err(Unmet::OtherKind);
            }
        }
        Ok(())
    }

    /// The demand as parameters of an authorization request (OpenID Connect Core, 3.1.2.1).
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters = Vec::new();
        if let Some(prompt) = self.prompt {
            parameters.push((Self::PROMPT, prompt.as_str().to_owned()));
        }
        if let Some(seconds) = self.max_age_seconds {
            parameters.push((Self::MAX_AGE, seconds.to_string()));
        }
        if !self.acr_values.is_empty() {
            parameters.push((Self::ACR_VALUES, self.acr_values.join(" ")));
        }
        parameters
    }

    /// Reads what [`Self::parameters`] wrote; `None` if a value is none of a demand.
    #[must_use]
    pub fn of_parameters<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let prompt = match value(Self::PROMPT) {
            None => None,
            Some(text) => Some(Prompt::ALL.iter().find(|(word, _)| *word == text)?.1),
        };
        let max_age_seconds = match value(Self::MAX_AGE) {
            None => None,
            Some(text) => Some(text.parse().ok()?),
        };
        let mut acr_values = Vec::new();
        for word in value(Self::ACR_VALUES).unwrap_or_default().split(' ').filter(|word| !word.is_empty()) {
            if !is_acr(word) {
                return None;
            }
            acr_values.push(word.to_owned());
        }
        Some(Self { prompt, max_age_seconds, acr_values })
    }

    /// The challenge that tells a program what to sign in for (RFC 9470, 3).
    #[must_use]
    pub fn challenge(&self) -> String {
        let mut challenge = "Bearer error=\"insufficient_user_authentication\"".to_owned();
        for (name, value) in self.parameters() {
            // Writing to a string does not fail. The values hold no quote: see `is_acr`.
            _ = write!(challenge, ", {name}=\"{value}\"");
        }
        challenge
    }
}

/// Whether a text may be an authentication context class: printable, without space, quote or backslash.
#[must_use]
pub fn is_acr(text: &str) -> bool {
    const ACR_LEN_MAX: usize = 256;
    !text.is_empty()
        && text.len() <= ACR_LEN_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::session::{SessionId, UserId};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn session(claims: &[(&str, Value)]) -> Session {
        Session {
            id: SessionId::new("s"),
            user_id: UserId::new("u"),
            idp_id: String::new(),
            email: String::new(),
            name: String::new(),
            groups: vec![],
            claims: claims.iter().map(|(name, value)| ((*name).to_owned(), vec![value.clone()])).collect(),
            issued_at: at(0),
            expires_at: at(9_999),
            bound_to: None,
            vouched_until: None,
            proof: None,
        }
    }

    fn demand(max_age: Option<u64>, acr: &[&str]) -> SignInDemand {
        let acr_values = acr.iter().map(|acr| (*acr).to_owned()).collect();
        SignInDemand { prompt: None, max_age_seconds: max_age, acr_values }
    }

    #[test]
    fn a_sign_in_counts_for_max_age_and_not_a_second_longer() {
        let demand = demand(Some(300), &[]);
        let signed_in = session(&[("auth_time", json!(1_000))]);
        for (now, met) in [(1_000, true), (1_300, true), (1_301, false), (940, true), (939, false)] {
            assert_eq!(demand.check(&signed_in, at(now)).is_ok(), met, "{now}");
        }
        for unsaid in [json!("1000"), json!(-1), json!(null), json!(1e3)] {
            let session = session(&[("auth_time", unsaid)]);
            assert_eq!(demand.check(&session, at(1_000)), Err(Unmet::TooLongAgo));
        }
        assert_eq!(demand.check(&session(&[]), at(1_000)), Err(Unmet::TooLongAgo));
    }

    #[test]
    fn one_of_the_asked_kinds_is_enough_and_no_other_is() {
        let demand = demand(None, &["phr", "phrh"]);
        assert_eq!(demand.check(&session(&[("acr", json!("phrh"))]), at(1)), Ok(()));
        for other in [json!("PHR"), json!("pwd"), json!(["phr"]), json!("phr phrh"), json!("")] {
            assert_eq!(demand.check(&session(&[("acr", other)]), at(1)), Err(Unmet::OtherKind));
        }
        assert_eq!(SignInDemand::default().check(&session(&[]), at(1)), Ok(()));
    }

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let demand = SignInDemand { prompt: Some(Prompt::Login), ..demand(Some(5), &["a", "b"]) };
        assert_eq!(
            demand.challenge(),
            "Bearer error=\"insufficient_user_authentication\", prompt=\"login\", max_age=\"5\", acr_values=\"a b\""
        );
    }

    proptest! {
        #[test]
        fn what_travels_comes_back(prompt in proptest::option::of(0_usize..3), max_age: Option<u64>, acr in proptest::collection::vec("[!#-Z]{1,20}", 0..4)) {
            let demand = SignInDemand {
                prompt: prompt.map(|place| Prompt::ALL[place].1), max_age_seconds: max_age, acr_values: acr,
            };
            let sent = demand.parameters();
            let find = |name: &str| sent.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
            prop_assert_eq!(SignInDemand::of_parameters(find), Some(demand.clone()));
        }

        #[test]
        fn strange_parameters_are_refused_or_harmless(text in ".{0,40}") {
            if let Some(demand) = SignInDemand::of_parameters(|_| Some(text.as_str())) {
                prop_assert!(!demand.challenge().contains(['\n', '\r']));
            }
        }
    }
}
