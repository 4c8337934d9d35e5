//! The identity providers that are known by name, as one table.

use crate::config::{ProviderQuirks, SignOutPage};

/// What a provider's name stands for.
#[derive(Debug)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    /// `None`: each installation has its own.
    pub(super) issuer: Option<&'static str>,
    pub(super) scopes: &'static [&'static str],
    /// `idp_request_params` replaces these.
    pub(super) request_params: &'static [(&'static str, &'static str)],
    pub(super) quirks: ProviderQuirks,
}

const BASIC: &[&str] = &["openid", "profile", "email"];
const OFFLINE: &[&str] = &["openid", "profile", "email", "offline_access"];

/// A provider that does all by the book.
const PLAIN: ProviderQuirks = ProviderQuirks {
    groups_claim: "groups",
    answers_by_form: false,
    has_many_tenants: false,
    sign_out: SignOutPage::Discovered,
};

const fn plain(name: &'static str) -> Preset {
    Preset { name, issuer: None, scopes: OFFLINE, request_params: &[], quirks: PLAIN }
}

pub(super) const PRESETS: &[Preset] = &[
    Preset {
        issuer: Some("https://appleid.apple.com"),
        scopes: &["openid", "name", "email"],
        // Apple refuses these scopes otherwise.
        request_params: &[("response_mode", "form_post")],
        quirks: ProviderQuirks { answers_by_form: true, ..PLAIN },
        ..plain("apple")
    },
    Preset { quirks: ProviderQuirks { sign_out: SignOutPage::Auth0, ..PLAIN }, ..plain("auth0") },
    Preset {
        issuer: Some("https://login.microsoftonline.com/common/v2.0"),
        request_params: &[("prompt", "select_account")],
        ..plain("azure")
    },
    Preset {
        scopes: BASIC,
        quirks: ProviderQuirks { groups_claim: "cognito:groups", sign_out: SignOutPage::Cognito, ..PLAIN },
        ..plain("cognito")
    },
    Preset { issuer: Some("https://gitlab.com"), scopes: BASIC, ..plain("gitlab") },
    Preset {
        issuer: Some("https://accounts.google.com"),
        scopes: BASIC,
        // Without these Google sends no refresh token, and never asks which account.
        request_params: &[("prompt", "select_account consent"), ("access_type", "offline")],
        ..plain("google")
    },
    plain("oidc"),
    plain("okta"),
    Preset {
        issuer: Some("https://openid-connect.onelogin.com/oidc"),
        scopes: &["openid", "profile", "email", "groups", "offline_access"],
        ..plain("onelogin")
    },
    plain("ping"),
];

/// Providers that are known and cannot work here, and what to do instead.
pub(super) const REFUSED: &[(&str, &str)] = &[
    (
        "github",
        "GitHub signs people in by plain OAuth 2.0 without an ID token; put an OpenID Connect provider such as Dex or \
         Keycloak before it, and write oidc",
    ),
    (
        "hosted",
        "a hosted sign-in service is not built into this gateway; write oidc and your provider's issuer",
    ),
];

/// The preset of this name.
pub(super) fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
