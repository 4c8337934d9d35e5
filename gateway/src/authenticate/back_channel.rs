//! The identity provider signs people out itself (OpenID Connect Back-Channel Logout 1.0).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{AuthRequest, Authenticate, issuer::IssuerError, jws, pages, store_failed};

/// Where the provider posts its logout tokens; the operator registers it there.
pub(super) const BACK_CHANNEL_PATH: &str = "/oauth2/backchannel_logout";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// How old a logout token may be, by its `iat`.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Characters of a `jti` at most.
const JTI_LEN_MAX: usize = 256;

/// Whose sessions end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Logout {
    /// Names this token: it counts once.
    jti: String,
    subject: Option<String>,
    /// The provider's own session; with none, all of the subject's end.
    provider_session: Option<String>,
    /// When it was made: what began later is not meant.
    made_at: SystemTime,
}

/// In what a token falls short of a logout token (section 2.4 and 2.6 of the specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum LogoutError {
    #[error("it is a token of another kind")]
    OtherKind,
    #[error("it names no event of logout")]
    NoEvent,
    #[error("it has a nonce, as ID tokens have")]
    HasNonce,
    #[error("it has no jti")]
    NoJti,
    #[error("it says not when it was made, or that was long ago")]
    Old,
    #[error("it names neither sub nor sid")]
    Nobody,
}

impl Authenticate {
    pub(super) async fn back_channel_logout(
        &self,
        req: &AuthRequest<'_>,
        now: SystemTime,
    ) -> Response<Bytes> {
        let sent = url::form_urlencoded::parse(&req.form).find(|(name, _)| name == "logout_token");
        let Some((_, token)) = sent else { return refused("logout_token is missing") };
        let audience = [self.config.identity_provider.client_id.clone()];
        let verified = match self.provider_keys.verify(&token, &audience, now).await {
            Ok(verified) => verified,
            Err(IssuerError::Token(error)) => {
                tracing::warn!(%error, "a logout token was refused");
                return refused("the logout token is not valid");
            }
            Err(error @ IssuerError::NoKeys(_)) => {
                tracing::warn!(%error, "a logout token could not be checked");
                return pages::problem(StatusCode::SERVICE_UNAVAILABLE, "The keys cannot be fetched.");
            }
        };
        let logout = match logout_of(verified.kind.as_deref(), &verified.claims, now) {
            Ok(logout) => logout,
            Err(error) => {
                tracing::warn!(%error, "a logout token was refused");
                return refused("the logout token is not valid");
            }
        };
        self.log_out(&logout, now).await
    }

    async fn log_out(&self, logout: &Logout, now: SystemTime) -> Response<Bytes> {
        let (subject, provider_session) = (logout.subject.as_deref(), logout.provider_session.as_deref());
        let begun_before = logout.made_at + Duration::from_secs(jws::CLOCK_SKEW);
        // Ended first: a token that is used up without effect would leave somebody in.
        let ended =
            self.store.end_provider_sessions(&self.idp_id, subject, provider_session, begun_before).await;
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => return store_failed(&error),
        };
        let life = AGE_MAX + Duration::from_secs(2 * jws::CLOCK_SKEW);
        match self.store.claim_once(&format!("logout:{}:{}", self.idp_id, logout.jti), now + life, now).await
        {
            Ok(true) => {
                tracing::info!(sessions = ended, "the identity provider signed somebody out");
                pages::text(StatusCode::OK, "")
            }
            Ok(false) => refused("the logout token was already used"),
            Err(error) => store_failed(&error),
        }
    }
}

/// What a verified token asks for. Pure.
fn logout_of(
    kind: Option<&str>,
    claims: &Map<String, Value>,
    now: SystemTime,
) -> Result<Logout, LogoutError> {
    let is_logout = kind.is_none_or(|kind| {
        let kind = kind.to_ascii_lowercase();
        matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "logout+jwt")
    });
    if !is_logout {
        return Err(LogoutError::OtherKind);
    }
    if !claims.get("events").and_then(|events| events.get(EVENT)).is_some_and(Value::is_object) {
        return Err(LogoutError::NoEvent);
    }
    if claims.contains_key("nonce") {
        return Err(LogoutError::HasNonce);
    }
    let text = |name: &str| {
        claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let jti = text("jti").filter(|jti| jti.len() <= JTI_LEN_MAX).ok_or(LogoutError::NoJti)?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let made = jws::seconds(claims, "iat").ok().flatten().ok_or(LogoutError::Old)?;
    if made.saturating_add(AGE_MAX.as_secs()) < now {
        return Err(LogoutError::Old);
    }
    let (subject, provider_session) = (text("sub"), text("sid"));
    if subject.is_none() && provider_session.is_none() {
        return Err(LogoutError::Nobody);
    }
    let made_at = UNIX_EPOCH + Duration::from_secs(made.min(now));
    Ok(Logout { jti, subject, provider_session, made_at })
}

/// The answer to a token that does not count (section 2.8).
fn refused(why: &str) -> Response<Bytes> {
    let mut response = pages::json(&json!({"error": "invalid_request", "error_description": why}));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn check(
        change: impl FnOnce(&mut Map<String, Value>),
        kind: Option<&str>,
    ) -> Result<Logout, LogoutError> {
        let claims = json!({"iat": NOW, "jti": "j", "sub": "alice", "sid": "s", "events": {EVENT: {}}});
        let mut claims = claims.as_object().unwrap().clone();
        change(&mut claims);
        logout_of(kind, &claims, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn a_logout_token_is_what_the_specification_says() {
        let whole = check(|_| {}, Some("logout+jwt")).unwrap();
        assert_eq!((whole.subject.as_deref(), whole.provider_session.as_deref()), (Some("alice"), Some("s")));
        for kind in [None, Some("JWT"), Some("application/logout+jwt")] {
            assert!(check(|_| {}, kind).is_ok(), "{kind:?}");
        }
        let set = |name: &'static str, value: Value| {
            move |claims: &mut Map<String, Value>| _ = claims.insert(name.into(), value)
        };
        assert_eq!(check(|_| {}, Some("at+jwt")), Err(LogoutError::OtherKind));
        assert_eq!(check(set("events", json!({})), None), Err(LogoutError::NoEvent));
        assert_eq!(check(set("events", json!(EVENT)), None), Err(LogoutError::NoEvent));
        assert_eq!(check(set("events", json!({EVENT: true})), None), Err(LogoutError::NoEvent));
        assert_eq!(check(set("nonce", json!(null)), None), Err(LogoutError::HasNonce));
        assert_eq!(check(set("jti", json!("")), None), Err(LogoutError::NoJti));
        assert_eq!(check(set("jti", json!("j".repeat(300))), None), Err(LogoutError::NoJti));
        assert_eq!(check(set("iat", json!(NOW - 601)), None), Err(LogoutError::Old));
        assert_eq!(check(set("iat", json!("now")), None), Err(LogoutError::Old));
        let nobody =
            |claims: &mut Map<String, Value>| claims.retain(|name, _| name != "sub" && name != "sid");
        assert_eq!(check(nobody, None), Err(LogoutError::Nobody));
    }
}
