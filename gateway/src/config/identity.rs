//! The identity provider: presets by name, and what the file says over them.

use std::time::Duration;

use url::Url;

use super::{IdentityProvider, section::Section};

/// Long enough for a restart of the provider, short enough that somebody who was dismissed meanwhile is out soon.
const UNREACHABLE_GRACE_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// What a provider's name stands for.
struct Preset {
    issuer: Option<&'static str>,
    scopes: &'static [&'static str],
    request_params: &'static [(&'static str, &'static str)],
}

const BASIC: &[&str] = &["openid", "profile", "email"];
const OFFLINE: &[&str] = &["openid", "profile", "email", "offline_access"];

fn preset(name: &str) -> Option<Preset> {
    let (issuer, scopes) = match name {
        "oidc" | "okta" | "auth0" | "ping" => (None, OFFLINE),
        "google" => (Some("https://accounts.google.com"), BASIC),
        "gitlab" => (Some("https://gitlab.com"), BASIC),
        _ => return None,
    };
    // Without these Google sends no refresh token, and never asks which account.
    let request_params: &[_] = match name {
        "google" => &[("prompt", "select_account consent"), ("access_type", "offline")],
        _ => &[],
    };
    Some(Preset { issuer, scopes, request_params })
}

/// Reads `idp_*`.
pub(super) fn provider(top: &Section<'_>) -> Option<IdentityProvider> {
    let preset = match top.filled("idp_provider") {
        None => {
            top.error("idp_provider", "is missing: oidc fits every OpenID Connect provider");
            None
        }
        Some("azure" | "cognito" | "github" | "onelogin" | "apple" | "hosted") => {
            top.error("idp_provider", "this provider is known but not built yet in this gateway");
            None
        }
        Some(name) => {
            let preset = preset(name);
            if preset.is_none() {
                top.error(
                    "idp_provider",
                    "unknown provider; expected one of oidc, google, okta, auth0, gitlab, ping",
                );
            }
            preset
        }
    };
    let issuer = issuer(top, preset.as_ref());
    let client_id = top.filled("idp_client_id");
    if client_id.is_none() && !top.has("idp_client_id") {
        top.error("idp_client_id", "is missing: the id that the provider gave this gateway");
    }
    let client_secret = top.secret_text("idp_client_secret");
    let unreachable_grace =
        top.duration("idp_unreachable_grace").map_or(UNREACHABLE_GRACE_DEFAULT, Option::unwrap_or_default);
    let own_scopes = top.list("idp_scopes").filter(|scopes| !scopes.is_empty());
    let own_params = top.pairs("idp_request_params");
    let preset = preset?;
    let mut scopes: Vec<String> = match own_scopes {
        Some(scopes) => scopes.iter().map(|(scope, _)| (*scope).to_owned()).collect(),
        None => preset.scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    };
    if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let request_params = match own_params {
        Some(pairs) => pairs.iter().map(|(name, value, _)| owned(name, value)).collect(),
        None => preset.request_params.iter().map(|(name, value)| owned(name, value)).collect(),
    };
    Some(IdentityProvider {
        issuer: issuer?,
        client_id: client_id?.to_owned(),
        client_secret,
        scopes,
        request_params,
        unreachable_grace,
    })
}

fn issuer(top: &Section<'_>, preset: Option<&Preset>) -> Option<Url> {
    let name = "idp_provider_url";
    if !top.has(name) {
        let preset = preset?;
        if preset.issuer.is_none() {
            top.error(name, "is missing: the issuer of the identity provider, like https://id.corp.example");
        }
        return preset.issuer.and_then(|issuer| Url::parse(issuer).ok());
    }
    let mut url = top.url(name)?;
    let loopback = match url.host() {
        Some(url::Host::Domain(host)) => host == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !loopback {
        top.error(name, "must begin with https:// (http:// is for loopback addresses only)");
        return None;
    }
    if url.query().is_some() {
        top.error(name, "an issuer has no query");
        return None;
    }
    if top.text("idp_provider") == Some("auth0") && !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Some(url)
}
