//! From what the provider says of a person to what policy reads.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::ProviderError;
use crate::{
    config::ProviderQuirks,
    session::{Claims, UserId},
};

/// Levels of nesting that are flattened at most; deeper values stay whole.
const DEPTH_MAX: usize = 8;

/// What only the signed ID token may say: who it is, and how and when they signed in. UserInfo never overrides these,
/// and they alone outlive a refresh that brings no new ID token.
const TOKEN_CLAIMS: [&str; 18] = [
    "iss",
    "sub",
    "aud",
    "azp",
    "exp",
    "iat",
    "nbf",
    "jti",
    "nonce",
    "at_hash",
    "c_hash",
    "auth_time",
    "acr",
    "amr",
    "sid",
    "oid",
    "tid",
    "xms_edov",
];

/// Who the provider says somebody is.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// `oid` where the provider sends one, else `sub`.
    pub user_id: UserId,
    /// `email`, else `mail`; empty when neither was sent.
    pub email: String,
    /// `name`; empty when none was sent.
    pub name: String,
    /// `groups`, as far as they are texts.
    pub groups: Vec<String>,
    /// All claims, flattened.
    pub claims: Claims,
}

impl Identity {
    /// Claims of a new ID token, completed and overridden by the UserInfo's: the latter is newer.
    ///
    /// # Errors
    /// [`ProviderError::Nonconforming`] when there is no subject, or the two speak of different people (OpenID
    /// Connect Core, 5.3.2).
    pub(super) fn from_claims(
        mut claims: Map<String, Value>,
        user_info: Option<Map<String, Value>>,
        quirks: &ProviderQuirks,
    ) -> Result<Self, ProviderError> {
        if let Some(user_info) = user_info {
            if user_info.get("sub") != claims.get("sub") {
                return Err(ProviderError::Nonconforming("its UserInfo is about somebody else"));
            }
            claims.extend(user_info.into_iter().filter(|(name, _)| !is_of_the_token(name)));
        }
        if has_unverified_email(&claims, quirks) {
            for name in ["email", "mail"] {
                claims.remove(name);
            }
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let user_id =
            text("oid").or_else(|| text("sub")).ok_or(ProviderError::Nonconforming("it sent no subject"))?;
        let groups = match claims.get(quirks.groups_claim) {
            Some(Value::Array(groups)) => {
                groups.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(Value::String(group)) => vec![group.clone()],
            _ => Vec::new(),
        };
        Ok(Self {
            user_id: UserId::new(user_id),
            email: text("email").or_else(|| text("mail")).unwrap_or_default().to_owned(),
            name: text("name").unwrap_or_default().to_owned(),
            groups,
            claims: flatten(claims),
        })
    }

    /// Claims after a refresh without a new ID token. Of the old token only who it is and how they signed in still
    /// count; all else is what the UserInfo says now, so that a group that was taken away is gone.
    ///
    /// # Errors
    /// As [`Self::from_claims`].
    pub(super) fn from_user_info(
        old_token: Map<String, Value>,
        user_info: Map<String, Value>,
        quirks: &ProviderQuirks,
    ) -> Result<Self, ProviderError> {
        let kept = old_token.into_iter().filter(|(name, _)| is_of_the_token(name)).collect();
        Self::from_claims(kept, Some(user_info), quirks)
    }
}

fn is_of_the_token(name: &str) -> bool {
    TOKEN_CLAIMS.contains(&name)
}

/// Whether the provider says that the address is not known to be the person's own.
fn has_unverified_email(claims: &Map<String, Value>, quirks: &ProviderQuirks) -> bool {
    if quirks.has_many_tenants {
        // The administrator of any tenant may write any address; this says whether the tenant owns its domain.
        return !claims.get("xms_edov").is_some_and(is_yes);
    }
    claims.get("email_verified").is_some_and(|said| !said.is_null() && !is_yes(said))
}

/// Some providers say it as a text or a number; what is neither yes nor no is no.
fn is_yes(said: &Value) -> bool {
    match said {
        Value::Bool(yes) => *yes,
        Value::String(yes) => yes.eq_ignore_ascii_case("true") || yes == "1",
        Value::Number(yes) => yes.as_u64() == Some(1),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The claims of a compact JWS, believed only where its signature **was already verified**.
pub(in crate::authenticate) fn of_verified_token(token: &str) -> Option<Map<String, Value>> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// The claims of a JSON UserInfo answer; signed ones (`application/jwt`) are not read.
pub(super) fn of_user_info(body: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(body).ok()
}

/// Nested objects become `a.b.c`, every value a list.
pub(in crate::authenticate) fn flatten(claims: Map<String, Value>) -> Claims {
    let mut flat = Claims::new();
    for (name, value) in claims {
        flatten_into(&mut flat, name, value, DEPTH_MAX);
    }
    flat
}

fn flatten_into(flat: &mut Claims, name: String, value: Value, depth: usize) {
    match value {
        Value::Object(inner) if depth > 0 => {
            for (key, value) in inner {
                flatten_into(flat, format!("{name}.{key}"), value, depth - 1);
            }
        }
        Value::Array(values) => flat.entry(name).or_default().extend(values),
        value => flat.entry(name).or_default().push(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::SignOutPage;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    const QUIRKS: ProviderQuirks = ProviderQuirks {
        groups_claim: "groups",
        answers_by_form: false,
        has_many_tenants: false,
        sign_out: SignOutPage::Discovered,
    };

    fn of(claims: Map<String, Value>, info: Option<Map<String, Value>>) -> Result<Identity, ProviderError> {
        Identity::from_claims(claims, info, &QUIRKS)
    }

    #[test]
    fn a_tenants_address_counts_only_where_the_tenant_owns_its_domain() {
        let quirks = ProviderQuirks { has_many_tenants: true, ..QUIRKS };
        for (said, counts) in [
            (json!({}), false),
            (json!({"email_verified": true}), false),
            (json!({"xms_edov": false}), false),
            (json!({"xms_edov": "0"}), false),
            (json!({"xms_edov": true}), true),
            (json!({"xms_edov": 1}), true),
            (json!({"xms_edov": "1"}), true),
        ] {
            let mut claims = map(said.clone());
            claims.extend(map(json!({"sub": "u", "email": "boss@corp.example"})));
            let identity = Identity::from_claims(claims, None, &quirks).unwrap();
            assert_eq!(identity.email.is_empty(), !counts, "{said}");
        }
    }

    #[test]
    fn groups_come_from_the_claim_of_the_provider() {
        let quirks = ProviderQuirks { groups_claim: "cognito:groups", ..QUIRKS };
        let claims = map(json!({"sub": "u", "cognito:groups": ["staff"], "groups": ["other"]}));
        assert_eq!(Identity::from_claims(claims, None, &quirks).unwrap().groups, ["staff"]);
    }

    #[test]
    fn claims_are_flattened_and_every_value_is_a_list() {
        let claims = map(json!({"sub": "u", "a": {"b": {"c": 1}, "d": [2, 3]}, "groups": ["x", 7, "y"]}));
        let identity = of(claims, None).unwrap();
        assert_eq!(identity.groups, ["x", "y"]);
        assert_eq!(identity.claims["a.b.c"], [json!(1)]);
        assert_eq!(identity.claims["a.d"], [json!(2), json!(3)]);
        assert_eq!(identity.claims["sub"], [json!("u")]);
    }

    #[test]
    fn the_user_info_is_newer_but_must_be_about_the_same_person() {
        let token = map(json!({"sub": "u", "email": "old@example.com", "mail": "m@example.com"}));
        let newer = map(json!({"sub": "u", "email": "new@example.com"}));
        assert_eq!(of(token.clone(), Some(newer)).unwrap().email, "new@example.com");
        let other = map(json!({"sub": "v", "email": "admin@example.com"}));
        assert!(of(token, Some(other)).is_err());
    }

    #[test]
    fn an_email_that_the_provider_has_not_verified_is_no_email() {
        for (verified, counts) in [
            (json!(true), true),
            (json!("true"), true),
            (json!(null), true),
            (json!(false), false),
            (json!("false"), false),
            (json!("no"), false),
            (json!(0), false),
            (json!([true]), false),
        ] {
            let claims = json!({"sub": "u", "email": "a@example.com", "mail": "a@example.com", "email_verified": verified});
            let identity = of(map(claims), None).unwrap();
            let expected = if counts { "a@example.com" } else { "" };
            assert_eq!(identity.email, expected, "{verified}");
            let named = identity.claims.contains_key("email") || identity.claims.contains_key("mail");
            assert_eq!(named, counts, "{verified}: a claim criterion must not see it either");
        }
        // The UserInfo may withdraw it as well.
        let token = map(json!({"sub": "u", "email": "a@example.com", "email_verified": true}));
        let info = map(json!({"sub": "u", "email_verified": false}));
        assert_eq!(of(token, Some(info)).unwrap().email, "");
    }

    #[test]
    fn the_user_info_does_not_say_who_signed_in_and_how() {
        let token = map(json!({"sub": "u", "acr": "low", "auth_time": 1}));
        let info =
            map(json!({"sub": "u", "acr": "high", "auth_time": 2, "amr": ["mfa"], "oid": "root", "x": 1}));
        let identity = of(token, Some(info)).unwrap();
        assert_eq!(identity.user_id.as_str(), "u");
        assert_eq!(identity.claims["acr"], [json!("low")]);
        assert_eq!(identity.claims["auth_time"], [json!(1)]);
        assert_eq!(identity.claims["x"], [json!(1)]);
        assert!(!identity.claims.contains_key("amr") && !identity.claims.contains_key("oid"));
    }

    #[test]
    fn a_refresh_without_an_id_token_keeps_the_sign_in_and_replaces_the_rest() {
        let token =
            json!({"sub": "u", "amr": ["mfa"], "groups": ["admins"], "email": "a@example.com", "team": "x"});
        let info = json!({"sub": "u", "email": "b@example.com"});
        let identity = Identity::from_user_info(map(token), map(info), &QUIRKS).unwrap();
        assert!(identity.groups.is_empty(), "a group that is not sent any more is gone");
        assert_eq!(identity.email, "b@example.com");
        assert_eq!(identity.claims.keys().collect::<Vec<_>>(), ["amr", "email", "sub"]);
    }

    #[test]
    fn somebody_without_a_subject_is_nobody() {
        assert!(of(map(json!({"email": "a@example.com"})), None).is_err());
        assert!(of(map(json!({"sub": ""})), None).is_err());
        let azure = map(json!({"sub": "pairwise", "oid": "object", "mail": "a@example.com"}));
        let identity = of(azure, None).unwrap();
        assert_eq!((identity.user_id.as_str(), identity.email.as_str()), ("object", "a@example.com"));
    }
}
