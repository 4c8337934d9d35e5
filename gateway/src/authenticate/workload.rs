//! Workloads (CI jobs, pods): the token of a configured issuer is traded for a short session (RFC 8693).

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    Authenticate,
    issuer::{Issuer, IssuerError},
    jws,
    provider::claims,
    token_endpoint::{Form, Issued, TokenRefusal},
};
use crate::{
    config::WorkloadIssuer,
    https_client::HttpsClient,
    session::{Claims, Session, SessionId, UserId, WORKLOAD_IDP_PREFIX},
    store::ProviderTokens,
};

pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const SUBJECT_TOKEN_TYPES: [&str; 2] =
    ["urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"];
/// Hosts that one token may be asked for at once.
const AUDIENCES_MAX: usize = 16;
/// By these policy knows people: a workload's issuer does not speak of people.
const CLAIMS_OF_PEOPLE: [&str; 8] =
    ["email", "email_verified", "mail", "name", "groups", "oid", "preferred_username", "upn"];

/// One configured issuer with its keys.
#[derive(Debug)]
pub(super) struct Workload {
    settings: WorkloadIssuer,
    keys: Issuer,
}

impl Workload {
    pub(super) fn new(settings: &WorkloadIssuer, http: &HttpsClient) -> Self {
        Self { settings: settings.clone(), keys: Issuer::new(settings.issuer.clone(), http.clone()) }
    }

    /// Names this very configuration: a session ends with what it was granted by.
    pub(super) fn idp_id(&self) -> String {
        let digest = Sha256::digest(format!("{:?}", self.settings));
        format!("{WORKLOAD_IDP_PREFIX}{}", URL_SAFE_NO_PAD.encode(digest))
    }
}

impl Authenticate {
    /// Trades a workload's token for a session of ours.
    pub(super) async fn exchange(
        &self,
        form: &Form,
        host: &str,
        now: SystemTime,
    ) -> Result<Issued, TokenRefusal> {
        let token = form.one("subject_token").ok_or(TokenRefusal::request("subject_token is missing"))?;
        if !form.one("subject_token_type").is_some_and(|kind| SUBJECT_TOKEN_TYPES.contains(&kind)) {
            return Err(TokenRefusal::request("subject_token_type must be that of a JWT or ID token"));
        }
        let mut hosts = vec![host.to_owned()];
        for audience in form.all("audience").take(AUDIENCES_MAX) {
            if !(self.config.is_our_host)(audience) {
                return Err(TokenRefusal::Invalid {
                    error: "invalid_target",
                    why: "no host of this gateway",
                });
            }
            hosts.push(audience.to_owned());
        }
        // Only to choose whom to ask: the token is not believed yet.
        let said = claims::of_verified_token(token).ok_or(TokenRefusal::grant("the token is malformed"))?;
        let issuer = said.get("iss").and_then(Value::as_str).unwrap_or_default();
        let workload = self
            .workloads
            .iter()
            .find(|workload| workload.keys.is(issuer))
            .ok_or(TokenRefusal::grant("no tokens of this issuer are taken"))?;
        let verified = workload.keys.verify(token, &workload.settings.audiences, now).await;
        let claims = match verified {
            Ok(verified) => verified.claims,
            Err(error) => {
                tracing::warn!(issuer = workload.settings.name, %error, "a workload's token was refused");
                return Err(match error {
                    IssuerError::Token(_) => TokenRefusal::grant("the token is not valid here"),
                    IssuerError::NoKeys(_) => TokenRefusal::Busy("the issuer's keys cannot be fetched"),
                });
            }
        };
        let session = session_of(&workload.settings, workload.idp_id(), token, claims, now)
            .map_err(TokenRefusal::grant)?;
        // The same token is the same session, however often it is sent.
        if self.store.session(&session.id).await?.is_none() {
            self.store.put_session(&session, &ProviderTokens::none()).await?;
            tracing::info!(session = %session.id, user = %session.user_id, "a workload came in");
        }
        let token = self.program_token(&session, &hosts, now);
        Ok(Issued {
            token: token.ok_or(TokenRefusal::Busy("no token can be made"))?,
            session: Arc::new(session),
        })
    }
}

/// The session of a workload whose token was verified, or why there is none. Pure.
fn session_of(
    settings: &WorkloadIssuer,
    idp_id: String,
    token: &str,
    claims: Map<String, Value>,
    now: SystemTime,
) -> Result<Session, &'static str> {
    let subject = claims.get("sub").and_then(Value::as_str).filter(|subject| !subject.is_empty());
    let subject = subject.ok_or("the token has no subject")?.to_owned();
    let expiry = jws::seconds(&claims, "exp").ok().flatten().ok_or("the token has no expiry")?;
    let expires_at = UNIX_EPOCH
        .checked_add(Duration::from_secs(expiry))
        .map_or(now + settings.expire, |end| end.min(now + settings.expire));
    if expires_at <= now {
        return Err("the token has expired");
    }
    let mut claims = claims::flatten(claims);
    let is_met = |(name, wanted): &(String, Vec<String>)| {
        let said = claims.get(name).map_or(&[][..], Vec::as_slice);
        said.iter().any(|said| wanted.iter().any(|wanted| is_text(said, wanted)))
    };
    if !settings.claims.iter().all(is_met) {
        return Err("a claim of the token is not one that is asked for");
    }
    forget_people(&mut claims);
    claims.insert("workload_issuer".to_owned(), vec![settings.name.clone().into()]);
    Ok(Session {
        id: SessionId::new(format!(
            "wl-{}",
            URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{idp_id} {token}")))
        )),
        user_id: UserId::new(format!("workload/{}/{subject}", settings.name)),
        idp_id,
        email: String::new(),
        name: subject,
        groups: settings.groups.clone(),
        claims,
        issued_at: now,
        expires_at,
        bound_to: None,
        vouched_until: None,
        proof: None,
    })
}

fn is_text(said: &Value, wanted: &str) -> bool {
    match said {
        Value::String(said) => said == wanted,
        Value::Bool(_) | Value::Number(_) => said.to_string().as_str() == wanted,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

fn forget_people(claims: &mut Claims) {
    claims.retain(|name, _| {
        let top = name.split('.').next().unwrap_or_default();
        !CLAIMS_OF_PEOPLE.contains(&top)
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn settings() -> WorkloadIssuer {
        WorkloadIssuer {
            name: "github".into(),
            issuer: "https://issuer.example".parse().unwrap(),
            audiences: vec!["gateway".into()],
            claims: vec![
                ("repository".into(), vec!["corp/app".into(), "corp/lib".into()]),
                ("protected".into(), vec!["true".into()]),
            ],
            groups: vec!["ci".into()],
            expire: Duration::from_secs(600),
        }
    }

    fn check(change: Value) -> Result<Session, &'static str> {
        let mut claims =
            json!({"sub": "repo:corp/app", "exp": NOW + 3600, "repository": "corp/app", "protected": true});
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let claims = claims.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
        let claims = claims.map(|(name, value)| (name.clone(), value.clone())).collect();
        session_of(&settings(), "idp".into(), "token", claims, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn a_workload_is_never_mistaken_for_a_person() {
        let said = json!({"email": "boss@corp.example", "mail": "x", "groups": ["admins"], "groups.x": 1, "name": "Boss", "oid": "1"});
        let session = check(said).unwrap();
        assert_eq!(session.user_id.as_str(), "workload/github/repo:corp/app");
        assert_eq!((session.email.as_str(), session.groups.as_slice()), ("", ["ci".to_owned()].as_slice()));
        let names: Vec<_> = session.claims.keys().map(String::as_str).collect();
        assert_eq!(names, ["exp", "protected", "repository", "sub", "workload_issuer"]);
    }

    #[test]
    fn each_condition_must_be_met_by_one_of_its_values() {
        for (change, is_good) in [
            (json!({}), true),
            (json!({"repository": "corp/lib"}), true),
            (json!({"repository": ["x", "corp/lib"]}), true),
            (json!({"protected": "true"}), true),
            (json!({"repository": "evil/app"}), false),
            (json!({"repository": "corp/app2"}), false),
            (json!({"repository": null}), false),
            (json!({"repository": {"corp/app": 1}}), false),
            (json!({"protected": false}), false),
            (json!({"sub": ""}), false),
            (json!({"exp": null}), false),
        ] {
            assert_eq!(check(change.clone()).is_ok(), is_good, "{change}");
        }
    }

    #[test]
    fn a_session_ends_with_the_token_or_before() {
        let life =
            |change| check(change).unwrap().expires_at.duration_since(UNIX_EPOCH).unwrap().as_secs() - NOW;
        assert_eq!(life(json!({})), 600);
        assert_eq!(life(json!({"exp": NOW + 30})), 30);
        assert_eq!(life(json!({"exp": u64::MAX})), 600);
        assert!(check(json!({"exp": NOW})).is_err());
    }
}
