//! The identity provider: presets by name, and what the file says over them.

mod presets;
#[cfg(test)]
mod tests;
mod workloads;

use std::time::Duration;

use url::Url;

use self::presets::{PRESETS, Preset, REFUSED, preset};
pub(super) use self::workloads::workload_issuers;
use super::{IdentityProvider, ProviderQuirks, section::Section};
use crate::{
    secret::Secret,
    session::{
        demand::{Prompt, SignInDemand, is_acr},
        expiry::TimeOfDay,
    },
};

/// `idp_unreachable_grace`, at the top or of a route.
pub(super) fn unreachable_grace(section: &Section<'_>) -> Option<Duration> {
    section.duration("idp_unreachable_grace").map(Option::unwrap_or_default)
}

/// Long enough for a restart of the provider, short enough that somebody who was dismissed meanwhile is out soon.
pub(super) const UNREACHABLE_GRACE_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// Characters of `scim_token` at least: what 24 random bytes are in Base64.
const SCIM_TOKEN_LEN_MIN: usize = 32;

/// Reads `scim_token`: whoever has it says who is in which group.
pub(super) fn scim_token(top: &Section<'_>) -> Option<Secret<String>> {
    let token = top.secret_text("scim_token")?;
    let text = token.expose();
    if text.len() >= SCIM_TOKEN_LEN_MIN && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Some(token);
    }
    let key = if top.has("scim_token") { "scim_token" } else { "scim_token_file" };
    top.error(
        key,
        "expected at least 32 random characters without spaces: make them with `head -c32 /dev/urandom | base64`",
    );
    None
}

/// Reads `idp_*`.
pub(super) fn provider(top: &Section<'_>) -> Option<IdentityProvider> {
    let preset = named_preset(top);
    let issuer = issuer(top, preset);
    let client_id = top.filled("idp_client_id");
    if client_id.is_none() && !top.has("idp_client_id") {
        top.error("idp_client_id", "is missing: the id that the provider gave this gateway");
    }
    let client_secret = top.secret_text("idp_client_secret");
    let unreachable_grace = unreachable_grace(top).unwrap_or(UNREACHABLE_GRACE_DEFAULT);
    let own_scopes = top.list("idp_scopes").filter(|scopes| !scopes.is_empty());
    let own_params = top.pairs("idp_request_params");
    let preset = preset?;
    let issuer = issuer?;
    let mut scopes: Vec<String> = match own_scopes {
        Some(scopes) => scopes.iter().map(|(scope, _)| (*scope).to_owned()).collect(),
        None => default_scopes(preset, &issuer).map(str::to_owned).collect(),
    };
    if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let request_params = match own_params {
        Some(pairs) => pairs.iter().map(|(name, value, _)| owned(name, value)).collect(),
        None => preset.request_params.iter().map(|(name, value)| owned(name, value)).collect(),
    };
    let has_many_tenants = preset.name == "azure" && is_shared_by_tenants(&issuer);
    if has_many_tenants {
        top.warn(
            "idp_provider_url",
            "people of any tenant may sign in, and an address counts as their email only where the tenant sends the \
             claim xms_edov: name your own tenant, like https://login.microsoftonline.com/<tenant id>/v2.0",
        );
    }
    Some(IdentityProvider {
        issuer,
        client_id: client_id?.to_owned(),
        client_secret,
        scopes,
        request_params,
        unreachable_grace,
        quirks: ProviderQuirks { has_many_tenants, ..preset.quirks },
    })
}

fn named_preset(top: &Section<'_>) -> Option<&'static Preset> {
    let Some(name) = top.filled("idp_provider") else {
        top.error("idp_provider", "is missing: oidc fits every OpenID Connect provider");
        return None;
    };
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        top.error("idp_provider", *why);
        return None;
    }
    let preset = preset(name);
    if preset.is_none() {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        top.error("idp_provider", format!("unknown provider; expected one of {}", names.join(", ")));
    }
    preset
}

/// OneLogin's newer endpoint does not know `offline_access`.
fn default_scopes(preset: &'static Preset, issuer: &Url) -> impl Iterator<Item = &'static str> {
    let is_newer_onelogin =
        preset.name == "onelogin" && issuer.path().trim_end_matches('/').ends_with("/oidc/2");
    preset.scopes.iter().copied().filter(move |scope| !(is_newer_onelogin && *scope == "offline_access"))
}

/// Whether this is one of the issuers of Azure that stand for many tenants.
fn is_shared_by_tenants(issuer: &Url) -> bool {
    let tenant = issuer.path_segments().and_then(|mut segments| segments.next());
    matches!(tenant, Some("common" | "organizations" | "consumers"))
}

/// Reads `session_expires_at`.
pub(super) fn session_expires_at(top: &Section<'_>) -> Option<TimeOfDay> {
    let name = "session_expires_at";
    match top.filled(name)?.parse() {
        Ok(time) => Some(time),
        Err(error) => {
            top.error(name, error.to_string());
            None
        }
    }
}

/// Reads a route's `sign_in_*`.
pub(super) fn sign_in_demand(section: &Section<'_>) -> SignInDemand {
    let name = "sign_in_max_age";
    // Nobody types a password and is sent back in less.
    const MAX_AGE_MIN: Duration = Duration::from_secs(60);
    let max_age = section.duration(name).map(Option::unwrap_or_default);
    if max_age.is_some_and(|max_age| max_age < MAX_AGE_MIN) {
        section.error(name, "must be at least 1m: signing in takes that long");
    }
    let mut acr_values = Vec::new();
    for (value, at) in section.list("sign_in_acr_values").unwrap_or_default() {
        if is_acr(value) {
            acr_values.push(value.to_owned());
        } else {
            section.error_at(at, "sign_in_acr_values", "expected a name without spaces and quotes");
        }
    }
    SignInDemand {
        prompt: section.one_of("sign_in_prompt", &Prompt::ALL),
        max_age_seconds: max_age.map(|max_age| max_age.as_secs()),
        acr_values,
    }
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
    let mut url = issuer_url(top, name)?;
    if top.text("idp_provider") == Some("auth0") && !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Some(url)
}

/// The URL of an issuer: `https`, or `http` on this machine, without a query.
fn issuer_url(section: &Section<'_>, name: &str) -> Option<Url> {
    let url = section.url(name)?;
    let loopback = match url.host() {
        Some(url::Host::Domain(host)) => host == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !loopback {
        section.error(name, "must begin with https:// (http:// is for loopback addresses only)");
        return None;
    }
    if url.query().is_some() {
        section.error(name, "an issuer has no query");
        return None;
    }
    Some(url)
}
