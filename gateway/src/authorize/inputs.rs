//! What a decision was made from, as the log keeps it: enough to decide again, and no more.
//!
//! Claims are personal data: only those that the route's policy asks for are kept. No token, no query and no name that a
//! person gave a device is part of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use pomerium_shared::{clock::Now, posture::PostureReport};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{CheckRequest, ClaimPath, Criterion, Policy, PresentedCertificate, Situation, record::RecordKey};
use crate::{
    device::{Device, DeviceKind, Thumbprint},
    session::{Claims, Session, SessionId, UserId},
};

/// Bytes of the inputs as JSON at most: what is beyond is left out, and named.
pub const INPUTS_LEN_MAX: usize = 8 * 1024;

/// The inputs of one decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    time: String,
    method: String,
    host: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    path: String,
    ip: IpAddr,
    #[serde(default, skip_serializing_if = "is_false")]
    cors_preflight: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    country: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asn: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateInputs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionInputs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<DeviceInputs>,
    /// What was there and is not kept, because the whole would have been too long.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    left_out: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CertificateInputs {
    valid: bool,
    /// The leaf in DER as base64; only where the policy asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaf: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SessionInputs {
    #[serde(default)]
    id: String,
    user: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    email: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    /// The claims that the policy asks for; `null` is one that the person does not have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    claims: BTreeMap<String, Option<Vec<Json>>>,
    issued: String,
    expires: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bound: Option<Thumbprint>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct DeviceInputs {
    id: String,
    user: String,
    kind: DeviceKind,
    approved: bool,
    enrolled: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    posture: Option<PostureReport>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reported: Option<String>,
}

/// Why recorded inputs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// Not the JSON of inputs.
    #[error("these are not the inputs of a decision")]
    Malformed(#[source] serde_json::Error),
    /// A time is none.
    #[error("a time of the inputs cannot be read")]
    Time(#[source] jiff::Error),
    /// The certificate is not base64.
    #[error("the certificate of the inputs cannot be read")]
    Certificate(#[source] base64::DecodeError),
}

/// What a criterion asks about that a log may lack.
enum Fact<'a> {
    /// Something that is always kept; or external data, which a log never holds and a configuration does.
    Kept,
    Claim(&'a ClaimPath),
    /// The claims that say how somebody signed in.
    AuthMethod,
    Groups,
    Email,
    Path,
    Certificate,
}

/// The claims of [`Fact::AuthMethod`].
const AUTH_METHOD_CLAIMS: [&str; 2] = ["amr", "acr"];

fn fact(criterion: &Criterion) -> Fact<'_> {
    match criterion {
        Criterion::Claim(path, _) => Fact::Claim(path),
        Criterion::AuthMethod(_) => Fact::AuthMethod,
        Criterion::Groups(_) => Fact::Groups,
        Criterion::Email(_) | Criterion::Domain(_) => Fact::Email,
        Criterion::Record(matcher) if matcher.key == RecordKey::Email => Fact::Email,
        Criterion::HttpPath(_) | Criterion::PomeriumRoutes => Fact::Path,
        Criterion::ClientCertificate(_) => Fact::Certificate,
        Criterion::Accept
        | Criterion::Reject
        | Criterion::AuthenticatedUser
        | Criterion::User(_)
        | Criterion::HttpMethod(_)
        | Criterion::SourceIp(_)
        | Criterion::CorsPreflight
        | Criterion::Clock(_)
        | Criterion::Record(_)
        | Criterion::Device(_)
        | Criterion::Posture(_)
        | Criterion::InvalidClientCertificate
        | Criterion::SessionAge(_)
        | Criterion::SessionBound
        | Criterion::Country(_)
        | Criterion::Asn(_)
        | Criterion::McpTool(_)
        | Criterion::Ssh(_) => Fact::Kept,
    }
}

impl Inputs {
    /// What `policy` decided from, or could have.
    #[must_use]
    pub fn of(policy: &Policy, check: &CheckRequest<'_>) -> Self {
        let request = &check.request;
        Self {
            time: written(check.now.wall),
            method: request.method.to_owned(),
            host: request.host.to_owned(),
            // Router and app see no query in the path; if one ever gets here, it stays out of the log.
            path: request.path.split(['?', '#']).next().unwrap_or_default().to_owned(),
            ip: request.source_ip,
            cors_preflight: request.is_cors_preflight,
            country: request.place.country.map(str::to_owned),
            asn: request.place.asn,
            certificate: request.certificate.map(|shown| {
                let is_asked =
                    policy.criteria().any(|criterion| matches!(fact(criterion), Fact::Certificate));
                let leaf = is_asked.then(|| BASE64.encode(&shown.leaf));
                CertificateInputs { valid: shown.is_valid, leaf }
            }),
            session: check.live_session().map(|session| SessionInputs::of(policy, session)),
            device: check.device.map(DeviceInputs::of),
            left_out: BTreeSet::new(),
        }
    }

    /// As compact JSON of at most [`INPUTS_LEN_MAX`] bytes. What makes it too long is left out and named, the longest
    /// first.
    #[must_use]
    pub fn to_json(mut self) -> String {
        loop {
            // There is nothing in it that JSON cannot hold.
            let text = serde_json::to_string(&self).unwrap_or_default();
            if text.len() <= INPUTS_LEN_MAX {
                return text;
            }
            if !self.leave_out_longest() {
                return "{}".to_owned();
            }
        }
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`InputsError::Malformed`].
    pub fn from_json(text: &str) -> Result<Self, InputsError> {
        serde_json::from_str(text).map_err(InputsError::Malformed)
    }

    /// The question that was asked. What the log does not hold is empty: see [`Self::knows`].
    ///
    /// # Errors
    /// [`InputsError::Time`], [`InputsError::Certificate`].
    pub fn situation(&self, now: Now) -> Result<Situation, InputsError> {
        let certificate = |kept: &CertificateInputs| {
            let leaf = kept.leaf.as_ref().map(|leaf| BASE64.decode(leaf)).transpose();
            let leaf = leaf.map_err(InputsError::Certificate)?.unwrap_or_default();
            Ok(PresentedCertificate { leaf, is_valid: kept.valid })
        };
        Ok(Situation {
            session: self.session.as_ref().map(SessionInputs::session).transpose()?,
            device: self.device.as_ref().map(DeviceInputs::device).transpose()?,
            method: self.method.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            source_ip: self.ip,
            is_cors_preflight: self.cors_preflight,
            certificate: self.certificate.as_ref().map(certificate).transpose()?,
            country: self.country.clone(),
            asn: self.asn,
            now: Now { wall: read(&self.time)?, ..now },
        })
    }

    /// Whether everything is here that `criterion` asks about.
    #[must_use]
    pub fn knows(&self, criterion: &Criterion) -> bool {
        // What a session would say is not asked where there is none.
        let has = |name: &str| self.session.is_none() || !self.left_out.contains(name);
        match fact(criterion) {
            Fact::Kept => true,
            Fact::Groups => has("groups"),
            Fact::Email => has("email"),
            Fact::Path => !self.left_out.contains("path"),
            Fact::Claim(path) => self.session.as_ref().is_none_or(|session| session.answers(path)),
            Fact::AuthMethod => self.session.as_ref().is_none_or(|session| {
                AUTH_METHOD_CLAIMS.iter().all(|claim| session.claims.contains_key(*claim))
            }),
            // What is not valid is not looked at.
            Fact::Certificate => {
                self.certificate.as_ref().is_none_or(|shown| !shown.valid || shown.leaf.is_some())
            }
        }
    }

    /// Drops the longest part that may be dropped; `false` when there is none.
    fn leave_out_longest(&mut self) -> bool {
        let length = |value: &Option<Vec<Json>>| serde_json::to_string(value).map_or(0, |text| text.len());
        let mut parts = vec![(self.path.len(), "path".to_owned())];
        if let Some(leaf) = self.certificate.as_ref().and_then(|shown| shown.leaf.as_ref()) {
            parts.push((leaf.len(), "certificate".to_owned()));
        }
        if let Some(session) = &self.session {
            parts.push((session.email.len(), "email".to_owned()));
            parts.push((session.groups.iter().map(|group| group.len() + 3).sum(), "groups".to_owned()));
            let claims = session.claims.iter();
            parts.extend(claims.map(|(name, value)| (name.len() + length(value), format!("claim/{name}"))));
        }
        let Some((_, name)) = parts.into_iter().filter(|(length, _)| *length > 0).max() else {
            return false;
        };
        match (name.as_str(), &mut self.session) {
            ("path", _) => self.path.clear(),
            ("certificate", _) => self.certificate.iter_mut().for_each(|shown| shown.leaf = None),
            ("email", Some(session)) => session.email.clear(),
            ("groups", Some(session)) => session.groups.clear(),
            (claim, Some(session)) => {
                session.claims.remove(claim.strip_prefix("claim/").unwrap_or(claim));
            }
            (_, None) => return false,
        }
        // A name of a claim may itself be what is too long.
        let shown: String = name.chars().take(80).collect();
        self.left_out.insert(shown);
        true
    }
}

impl SessionInputs {
    fn of(policy: &Policy, session: &Session) -> Self {
        let mut claims = BTreeMap::new();
        let mut keep = |key: &str| {
            let value = session.claims.get(key);
            claims.insert(key.to_owned(), value.cloned());
            value.is_some()
        };
        for criterion in policy.criteria() {
            match fact(criterion) {
                // The first that is there is the one that counts.
                Fact::Claim(path) => {
                    path.keys().any(&mut keep);
                }
                Fact::AuthMethod => AUTH_METHOD_CLAIMS.into_iter().for_each(|key| {
                    keep(key);
                }),
                _ => {}
            }
        }
        Self {
            id: session.id.to_string(),
            user: session.user_id.to_string(),
            email: session.email.clone(),
            groups: session.groups.clone(),
            claims,
            issued: written(session.issued_at),
            expires: written(session.expires_at),
            bound: session.bound_to.clone(),
        }
    }

    /// Whether it is known what a look-up of this claim finds.
    fn answers(&self, path: &ClaimPath) -> bool {
        for key in path.keys() {
            match self.claims.get(key) {
                Some(Some(_)) => return true,
                Some(None) => {}
                None => return false,
            }
        }
        true
    }

    fn session(&self) -> Result<Session, InputsError> {
        let claims: Claims =
            self.claims.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
        Ok(Session {
            id: SessionId::new(&*self.id),
            user_id: UserId::new(&*self.user),
            idp_id: String::new(),
            email: self.email.clone(),
            name: String::new(),
            groups: self.groups.clone(),
            claims,
            issued_at: read(&self.issued)?,
            expires_at: read(&self.expires)?,
            bound_to: self.bound.clone(),
            vouched_until: None,
            proof: None,
        })
    }
}

impl DeviceInputs {
    fn of(device: &Device) -> Self {
        let posture = device.posture.as_ref();
        Self {
            id: device.id.clone(),
            user: device.user_id.to_string(),
            kind: device.kind,
            approved: device.is_approved,
            enrolled: written(device.enrolled_at),
            posture: posture.map(|(report, _)| PostureReport { hostname: String::new(), ..report.clone() }),
            reported: posture.map(|(_, at)| written(*at)),
        }
    }

    fn device(&self) -> Result<Device, InputsError> {
        let posture = match (&self.posture, &self.reported) {
            (Some(report), Some(at)) => Some((report.clone(), read(at)?)),
            _ => None,
        };
        Ok(Device {
            id: self.id.clone(),
            user_id: UserId::new(&*self.user),
            name: String::new(),
            kind: self.kind,
            is_approved: self.approved,
            enrolled_at: read(&self.enrolled)?,
            posture,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// RFC 3339, to the nanosecond.
fn written(time: SystemTime) -> String {
    // Only years beyond 9999 cannot be written; nothing that was decided happened then.
    jiff::Timestamp::try_from(time).map(|at| at.to_string()).unwrap_or_default()
}

fn read(text: &str) -> Result<SystemTime, InputsError> {
    text.parse::<jiff::Timestamp>().and_then(SystemTime::try_from).map_err(InputsError::Time)
}
