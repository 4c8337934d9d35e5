//! From a provider's claims to a session.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::ProviderError;
use crate::{
    session::{Claims, Session, SessionId, UserId},
    store::ProviderTokens,
};

/// Before a token's end, so that a refresh that needs a second try is still in time.
const REFRESH_AHEAD: Duration = Duration::from_secs(60);

/// Shortest time between two refreshes of a session.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// Claims that speak of the token, not of the person.
const TOKEN_CLAIMS: [&str; 8] = ["iss", "aud", "exp", "iat", "nonce", "at_hash", "c_hash", "jti"];

/// Who a provider says somebody is, verified.
#[derive(Debug)]
pub(crate) struct Identity {
    claims: Map<String, Value>,
    tokens: ProviderTokens,
    expires_in: Option<Duration>,
}

impl Identity {
    /// Reads the claims of an ID token whose signature has been verified.
    pub(super) fn of_id_token(
        id_token: String,
        access_token: String,
        refresh_token: Option<String>,
        expires_in: Option<Duration>,
    ) -> Result<Self, ProviderError> {
        let bad = || ProviderError::BadToken("its claims cannot be read".to_owned());
        let payload = id_token.split('.').nth(1).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or_else(bad)?;
        let claims = serde_json::from_slice(&payload).map_err(|_| bad())?;
        Ok(Self { claims, tokens: ProviderTokens { id_token, access_token, refresh_token }, expires_in })
    }

    /// Lays UserInfo over the ID token; it must speak of the same person (OpenID Connect Core, 5.3.2).
    pub(super) fn add_user_info(&mut self, user_info: Map<String, Value>) -> Result<(), ProviderError> {
        if user_info.get("sub") != self.claims.get("sub") {
            return Err(ProviderError::BadToken("UserInfo speaks of somebody else".to_owned()));
        }
        self.claims.extend(user_info);
        Ok(())
    }

    /// A provider that sends no new refresh token means the old one to be used again.
    pub(super) fn keep_refresh_token(&mut self, old: &str) {
        self.tokens.refresh_token.get_or_insert_with(|| old.to_owned());
    }

    /// The session of this identity, what to keep beside it, and when to ask the provider again.
    pub(crate) fn into_session(
        self,
        id: SessionId,
        idp_id: &str,
        now: SystemTime,
        expires_at: SystemTime,
    ) -> (Session, ProviderTokens, Option<SystemTime>) {
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let subject = text("oid");
        let user_id = if subject.is_empty() { text("sub") } else { subject };
        // An address that its owner never proved is no identity.
        let is_unverified = self.claims.get("email_verified").is_some_and(|v| matches!(v.as_bool(), Some(false)) || v == "false");
        let email = if is_unverified { String::new() } else { text("email") };
        let groups = match self.claims.get("groups") {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(group)) => vec![group.clone()],
            _ => Vec::new(),
        };
        let mut claims = Claims::new();
        for (name, value) in &self.claims {
            if !TOKEN_CLAIMS.contains(&name.as_str()) {
                flatten(name, value, &mut claims);
            }
        }
        if is_unverified {
            claims.remove("email");
        }
        let session = Session {
            id,
            user_id: UserId::new(user_id),
            idp_id: idp_id.to_owned(),
            email,
            name: text("name"),
            groups,
            claims,
            issued_at: now,
            expires_at,
        };
        let refresh_at = self.tokens.refresh_token.as_ref().and(self.expires_in).map(|lifetime| {
            now + lifetime.saturating_sub(REFRESH_AHEAD).max(REFRESH_INTERVAL_MIN)
        });
        (session, self.tokens, refresh_at)
    }
}

/// Nested objects become `a.b.c`, every value a list.
fn flatten(name: &str, value: &Value, into: &mut Claims) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(&format!("{name}.{field}"), value, into);
            }
        }
        Value::Array(items) => {
            into.insert(name.to_owned(), items.clone());
        }
        value => {
            into.insert(name.to_owned(), vec![value.clone()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(claims: &Value) -> Session {
        let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let identity = Identity::of_id_token(token, String::new(), None, None).unwrap();
        let now = SystemTime::UNIX_EPOCH;
        identity.into_session(SessionId::new("ours"), "idp", now, now).0
    }

    #[test]
    fn claims_are_flattened_and_the_session_id_is_ours() {
        let session = session(&json!({"sub": "u", "jti": "theirs", "a": {"b": {"c": 1}}, "groups": ["x", 2]}));
        assert_eq!((session.id.as_str(), session.user_id.as_str()), ("ours", "u"));
        assert_eq!(session.claims.get("a.b.c"), Some(&vec![json!(1)]));
        assert_eq!(session.groups, ["x"]);
        assert!(!session.claims.contains_key("jti"));
    }

    #[test]
    fn an_unverified_email_is_no_identity() {
        for unverified in [json!(false), json!("false")] {
            let session = session(&json!({"sub": "u", "email": "root@corp.example", "email_verified": unverified}));
            assert_eq!(session.email, "");
            assert!(!session.claims.contains_key("email"));
        }
    }

    #[test]
    fn user_info_of_somebody_else_is_refused() {
        let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(json!({"sub": "u"}).to_string()));
        let mut identity = Identity::of_id_token(token, String::new(), None, None).unwrap();
        let other = json!({"sub": "v", "email": "v@corp.example"});
        assert!(identity.add_user_info(other.as_object().unwrap().clone()).is_err());
    }
}
