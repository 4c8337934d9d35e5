use std::{cell::RefCell, collections::BTreeSet, path::Path};

use super::*;
use crate::{
    config::{Severity, SignOutPage, section::Reading},
    yaml,
};

/// What a file with this text says, and what was said of it.
fn read(text: &str) -> (Option<IdentityProvider>, Vec<String>) {
    let reading = Reading {
        file: "f",
        base_dir: Path::new("/nowhere"),
        env: &|_| None,
        from_environment: BTreeSet::new(),
        files: RefCell::new(Vec::new()),
        said: RefCell::new(Vec::new()),
    };
    let root = yaml::parse(text).unwrap();
    let provider = Section::of(&reading, String::new(), &root).and_then(|top| provider(&top));
    let said = reading.said.into_inner();
    let failed = said.iter().any(|said| said.severity == Severity::Error);
    (provider.filter(|_| !failed), said.into_iter().map(|said| said.message).collect())
}

/// The provider of this name, with its own issuer where it has none.
fn named(name: &str) -> IdentityProvider {
    let issuer = preset(name).unwrap().issuer.unwrap_or("https://id.example/tenant");
    let text = format!("idp_provider: {name}\nidp_provider_url: {issuer}\nidp_client_id: c\n");
    read(&text).0.unwrap()
}

fn scopes(provider: &IdentityProvider) -> String {
    provider.scopes.join(" ")
}

const OFFLINE: &str = "openid profile email offline_access";

#[test]
fn apple_posts_its_answer() {
    let apple = named("apple");
    assert_eq!(apple.issuer.as_str(), "https://appleid.apple.com/");
    assert_eq!(scopes(&apple), "openid name email");
    assert_eq!(apple.request_params, [("response_mode".to_owned(), "form_post".to_owned())]);
    assert!(apple.quirks.answers_by_form);
}

#[test]
fn auth0_has_a_closing_slash_and_a_sign_out_page_of_its_own() {
    let auth0 = named("auth0");
    assert_eq!(auth0.issuer.as_str(), "https://id.example/tenant/");
    assert_eq!((scopes(&auth0).as_str(), auth0.quirks.sign_out), (OFFLINE, SignOutPage::Auth0));
}

#[test]
fn azure_asks_which_account_and_its_shared_issuers_are_warned_about() {
    let (azure, said) = read("idp_provider: azure\nidp_client_id: c\n");
    let azure = azure.unwrap();
    assert_eq!(azure.issuer.as_str(), "https://login.microsoftonline.com/common/v2.0");
    assert_eq!(scopes(&azure), OFFLINE);
    assert_eq!(azure.request_params, [("prompt".to_owned(), "select_account".to_owned())]);
    assert!(azure.quirks.has_many_tenants && said[0].contains("any tenant"), "{said:?}");
    let own = "idp_provider: azure\nidp_client_id: c\n\
               idp_provider_url: https://login.microsoftonline.com/6a1b2c3d-0000-4000-8000-000000000000/v2.0\n";
    let (own, said) = read(own);
    assert!(!own.unwrap().quirks.has_many_tenants && said.is_empty(), "{said:?}");
}

#[test]
fn cognito_has_its_own_claim_for_groups() {
    let cognito = named("cognito");
    assert_eq!(cognito.quirks.groups_claim, "cognito:groups");
    assert_eq!(
        (scopes(&cognito).as_str(), cognito.quirks.sign_out),
        ("openid profile email", SignOutPage::Cognito)
    );
}

#[test]
fn gitlab_is_at_gitlab_com_unless_said_otherwise() {
    let (gitlab, _) = read("idp_provider: gitlab\nidp_client_id: c\n");
    assert_eq!(gitlab.unwrap().issuer.as_str(), "https://gitlab.com/");
    let (own, _) =
        read("idp_provider: gitlab\nidp_client_id: c\nidp_provider_url: https://git.corp.example\n");
    assert_eq!(own.unwrap().issuer.as_str(), "https://git.corp.example/");
}

#[test]
fn google_is_asked_for_a_refresh_token() {
    let google = named("google");
    assert_eq!(google.issuer.as_str(), "https://accounts.google.com/");
    assert_eq!(scopes(&google), "openid profile email");
    assert!(google.request_params.contains(&("access_type".to_owned(), "offline".to_owned())));
    let own = "idp_provider: google\nidp_client_id: c\nidp_request_params: {prompt: login}\n";
    assert_eq!(read(own).0.unwrap().request_params, [("prompt".to_owned(), "login".to_owned())]);
}

#[test]
fn onelogins_newer_endpoint_knows_no_offline_access() {
    assert_eq!(scopes(&named("onelogin")), "openid profile email groups offline_access");
    let newer =
        "idp_provider: onelogin\nidp_client_id: c\nidp_provider_url: https://corp.onelogin.com/oidc/2\n";
    assert_eq!(scopes(&read(newer).0.unwrap()), "openid profile email groups");
}

#[test]
fn oidc_okta_and_ping_need_their_issuer_and_go_by_the_book() {
    for name in ["oidc", "okta", "ping"] {
        let provider = named(name);
        assert_eq!(scopes(&provider), OFFLINE, "{name}");
        assert_eq!(provider.quirks.groups_claim, "groups", "{name}");
        assert!(provider.request_params.is_empty(), "{name}");
        let (none, said) = read(&format!("idp_provider: {name}\nidp_client_id: c\n"));
        assert!(none.is_none() && said[0].contains("is missing"), "{name}: {said:?}");
    }
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    for (name, hint) in
        [("github", "Dex or Keycloak"), ("hosted", "write oidc"), ("acme", "expected one of apple")]
    {
        let (none, said) = read(&format!("idp_provider: {name}\nidp_client_id: c\n"));
        assert!(none.is_none() && said.iter().any(|said| said.contains(hint)), "{name}: {said:?}");
    }
}

#[test]
fn every_preset_is_tested_by_name() {
    let tests = include_str!("tests.rs");
    for preset in PRESETS {
        let name = preset.name;
        assert!(
            tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("idp_provider: {name}\\n")),
            "{name}"
        );
    }
}

#[test]
fn the_grace_is_a_duration_and_zero_is_none() {
    let with = |value: &str| {
        let text = format!("idp_provider: google\nidp_client_id: c\nidp_unreachable_grace: {value}\n");
        read(&text).0.map(|provider| provider.unreachable_grace)
    };
    assert_eq!(named("google").unreachable_grace, UNREACHABLE_GRACE_DEFAULT);
    assert_eq!(with("0"), Some(Duration::ZERO));
    assert_eq!(with("2h"), Some(Duration::from_secs(7200)));
    assert_eq!(with("soon"), None);
}
