//! Programs: service accounts, workloads and devices without a browser.

use pomerium_shared::clock::Now;
use serde_json::{Value, json};

use super::{idp::Idp, *};
use crate::{config::WorkloadIssuer, store::ServiceAccount};

const TOKEN: &str = "https://app.example.com/.pomerium/api/v1/token";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

fn said(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

fn error(response: &Response<Bytes>) -> String {
    assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{:?}", response.body());
    said(response)["error"].as_str().unwrap().to_owned()
}

fn bearing(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Pomerium {token}")).unwrap());
    headers
}

async fn session_by(
    service: &Authenticate,
    token: &str,
    host: &str,
    now: SystemTime,
) -> Option<Arc<Session>> {
    service.session_of(&bearing(token), None, Some(host), None, now).await.unwrap()
}

#[tokio::test]
async fn a_service_account_is_let_in_on_each_host_until_it_is_revoked() {
    let service = service().await;
    let account = ServiceAccount::new("ci", vec!["deploy".into()], at(NOW + 100), at(NOW));
    assert!(service.store.add_service_account(&account).await.unwrap());
    let token = service.program_token(&account.session(), &[], at(NOW)).unwrap();
    for host in ["app.example.com", "other.example.com"] {
        let session = session_by(&service, token.expose(), host, at(NOW)).await.unwrap();
        assert_eq!(
            (session.user_id.as_str(), session.groups.as_slice()),
            ("service-account/ci", ["deploy".to_owned()].as_slice())
        );
    }
    assert_eq!(session_by(&service, token.expose(), "app.example.com", at(NOW + 100)).await, None);
    service.store.revoke_service_account("ci", at(NOW)).await.unwrap();
    assert_eq!(session_by(&service, token.expose(), "app.example.com", at(NOW)).await, None);
}

#[tokio::test]
async fn a_service_account_is_nobody_at_the_sign_in_host() {
    let service = service().await;
    let account = ServiceAccount::new("ci", vec![], at(NOW + 100), at(NOW));
    assert!(service.store.add_service_account(&account).await.unwrap());
    let token = service.program_token(&account.session(), &[], at(NOW)).unwrap();
    let mut browser = Browser::default();
    let place = ("authenticate.example.com".to_owned(), "_pomerium_authenticate".to_owned());
    browser.cookies.insert(place, token.expose().clone());
    let device = url("https://authenticate.example.com/.pomerium/device");
    let response = browser.get(&service, &device, at(NOW)).await;
    assert_eq!(location(&response).path(), "/.pomerium/sign_in", "it cannot sign devices in");
    let sign_in = browser.begin(&service, &url("https://app.example.com/"), at(NOW));
    let response = browser.get(&service, &sign_in, at(NOW)).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "it is sent to the provider, which is not there");
}

#[tokio::test]
async fn a_token_whose_account_never_was_is_worthless() {
    let service = service().await;
    let account = ServiceAccount::new("ghost", vec![], at(NOW + 100), at(NOW));
    let token = service.program_token(&account.session(), &[], at(NOW)).unwrap();
    assert_eq!(session_by(&service, token.expose(), "app.example.com", at(NOW)).await, None);
}

#[tokio::test]
async fn nobody_is_somebody_by_a_header_of_their_own() {
    let service = service().await;
    signed_in(&service).await;
    for (name, value) in [
        ("x-pomerium-claim-email", "alice@example.com"),
        ("x-pomerium-claim-sub", "alice"),
        ("x-pomerium-jwt-assertion", "e30.e30."),
        ("x-forwarded-user", "alice"),
        ("x-forwarded-email", "alice@example.com"),
        ("x-pomerium-authorization", "s1"),
        ("authorization", "Pomerium s1"),
        ("authorization", "Bearer Pomerium-s1"),
        ("remote-user", "alice"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::HeaderName::from_static(name), HeaderValue::from_static(value));
        for host in [None, Some("app.example.com")] {
            let session =
                service.session_of(&headers, Some("pomerium_session=s1"), host, None, at(NOW)).await;
            assert_eq!(session.unwrap(), None, "{name}: {value}");
        }
    }
}

/// A gateway that takes the tokens of one issuer of workloads.
struct Workloads {
    issuer: Idp,
    service: Authenticate,
    now: Now,
}

impl Workloads {
    async fn new() -> Self {
        let issuer = Idp::start().await;
        let mut config = config(&issuer.issuer);
        config.workload_issuers = vec![WorkloadIssuer {
            name: "ci".into(),
            issuer: url(&issuer.issuer),
            audiences: vec!["workloads".into()],
            claims: vec![("repository".into(), vec!["corp/app".into()])],
            groups: vec!["pipelines".into()],
            expire: Duration::from_secs(600),
        }];
        let service = Authenticate::new(config, Store::in_memory().await.unwrap()).unwrap();
        Self { issuer, service, now: Now::read() }
    }

    fn claims(&self) -> Value {
        let now = self.now.unix_seconds();
        json!({"iss": self.issuer.issuer, "aud": "workloads", "sub": "job", "exp": now + 3600, "iat": now,
            "repository": "corp/app", "email": "alice@example.com"})
    }

    async fn exchange(&self, token: &str) -> Response<Bytes> {
        let fields = [("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", JWT)];
        Browser::default().post(&self.service, &url(TOKEN), &fields, None, self.now.wall).await
    }
}

#[tokio::test]
async fn a_workload_trades_its_token_for_a_short_session_on_one_host() {
    let it = Workloads::new().await;
    let token = it.issuer.sign(&it.claims());
    let answer = said(&it.exchange(&token).await);
    assert_eq!((answer["token_type"].as_str(), answer["expires_in"].as_u64()), (Some("Pomerium"), Some(600)));
    let ours = answer["access_token"].as_str().unwrap();
    let session = session_by(&it.service, ours, "app.example.com", it.now.wall).await.unwrap();
    assert_eq!((session.user_id.as_str(), session.email.as_str()), ("workload/ci/job", ""));
    assert_eq!(session.groups, ["pipelines"]);
    assert_eq!(session_by(&it.service, ours, "other.example.com", it.now.wall).await, None);
    let later = it.now.wall + Duration::from_secs(600);
    assert_eq!(session_by(&it.service, ours, "app.example.com", later).await, None);
    let again = said(&it.exchange(&token).await)["access_token"].as_str().unwrap().to_owned();
    let again = session_by(&it.service, &again, "app.example.com", it.now.wall).await.unwrap();
    assert_eq!(again.id, session.id, "the same token is the same session");
    // A reload that no longer names the issuer takes the session away.
    let without = Authenticate::new(config(&it.issuer.issuer), it.service.store.clone()).unwrap();
    assert_eq!(session_by(&without, ours, "app.example.com", it.now.wall).await, None);
}

#[tokio::test]
async fn a_workloads_token_must_be_for_us_from_its_issuer_and_meet_the_conditions() {
    let it = Workloads::new().await;
    let now = it.now.unix_seconds();
    for (name, value) in [
        // That of people who sign in: the audience differs on each path.
        ("aud", json!("gateway")),
        ("iss", json!("https://evil.example")),
        ("exp", json!(now - 61)),
        ("exp", json!(null)),
        ("nbf", json!(now + 3600)),
        ("repository", json!("evil/app")),
        ("sub", json!("")),
    ] {
        let mut claims = it.claims();
        claims[name] = value.clone();
        assert_eq!(error(&it.exchange(&it.issuer.sign(&claims)).await), "invalid_grant", "{name}: {value}");
    }
    let impostor = Idp::start().await;
    assert_eq!(error(&it.exchange(&impostor.sign(&it.claims())).await), "invalid_grant");
    assert_eq!(error(&it.exchange("a.b.c").await), "invalid_grant");
    assert!(it.service.store.users().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_token_cannot_make_the_gateway_fetch_from_anywhere() {
    let it = Workloads::new().await;
    let target = Idp::start().await;
    let mut claims = it.claims();
    claims["iss"] = json!(target.issuer);
    assert_eq!(error(&it.exchange(&target.sign(&claims)).await), "invalid_grant");
    assert!(
        target.script.paths.lock().unwrap().is_empty(),
        "nothing is asked of an issuer that is not configured"
    );
}

#[tokio::test]
async fn malformed_token_requests_are_told_why() {
    let it = Workloads::new().await;
    let token = it.issuer.sign(&it.claims());
    let all = [("grant_type", EXCHANGE), ("subject_token", token.as_str()), ("subject_token_type", JWT)];
    let twice = [all[0], all[1], all[2], all[1]];
    let elsewhere = [all[0], all[1], all[2], ("audience", "evil.example")];
    for (fields, expected) in [
        (&all[1..], "invalid_request"),
        (&all[..2], "invalid_request"),
        (&twice[..], "invalid_request"),
        (&elsewhere[..], "invalid_target"),
        (&[("grant_type", "password")][..], "unsupported_grant_type"),
    ] {
        let response = Browser::default().post(&it.service, &url(TOKEN), fields, None, it.now.wall).await;
        assert_eq!(error(&response), expected, "{fields:?}");
    }
    let foreign = url("https://evil.example/.pomerium/api/v1/token");
    let response = Browser::default().post(&it.service, &foreign, &all, None, it.now.wall).await;
    assert_eq!(error(&response), "invalid_request");
}

/// A device that has asked for a code.
async fn device_code(service: &Authenticate) -> Value {
    let begin = url("https://app.example.com/.pomerium/api/v1/device_authorization");
    said(&Browser::default().post(service, &begin, &[], None, at(NOW)).await)
}

async fn poll(service: &Authenticate, code: &Value, seconds: u64) -> Response<Bytes> {
    let fields = [("grant_type", DEVICE), ("device_code", code["device_code"].as_str().unwrap())];
    Browser::default().post(service, &url(TOKEN), &fields, None, at(NOW + seconds)).await
}

#[tokio::test]
async fn a_device_gets_the_session_of_whoever_confirms_its_code_once() {
    let service = service().await;
    let mut alice = signed_in(&service).await;
    let code = device_code(&service).await;
    assert_eq!(error(&poll(&service, &code, 0).await), "authorization_pending");
    assert_eq!(error(&poll(&service, &code, 1).await), "slow_down");
    let page = url(code["verification_uri_complete"].as_str().unwrap());
    assert_eq!(page.host_str(), Some("authenticate.example.com"));
    let stranger = Browser::default().get(&service, &page, at(NOW)).await;
    assert_eq!(location(&stranger).path(), "/.pomerium/sign_in", "a person signs in first");
    let shown = alice.get(&service, &page, at(NOW)).await;
    let user_code = code["user_code"].as_str().unwrap();
    assert!(std::str::from_utf8(shown.body()).unwrap().contains(user_code));
    assert!(!std::str::from_utf8(shown.body()).unwrap().contains(code["device_code"].as_str().unwrap()));

    let yes = [("user_code", user_code), ("answer", "yes")];
    let forged = alice.post(&service, &page, &yes, Some("https://evil.example"), at(NOW)).await;
    assert_eq!(forged.status(), StatusCode::BAD_REQUEST, "another site's page cannot say yes");
    let nobody = Browser::default().post(&service, &page, &yes, None, at(NOW)).await;
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(error(&poll(&service, &code, 60).await), "authorization_pending");

    assert_eq!(alice.post(&service, &page, &yes, None, at(NOW + 61)).await.status(), StatusCode::OK);
    let answer = said(&poll(&service, &code, 90).await);
    let token = answer["access_token"].as_str().unwrap();
    let session = session_by(&service, token, "app.example.com", at(NOW + 90)).await.unwrap();
    assert_eq!(session.email, "alice@example.com");
    assert_eq!(session_by(&service, token, "other.example.com", at(NOW + 90)).await, None);
    assert_eq!(error(&poll(&service, &code, 120).await), "expired_token", "a code works once");
}

#[tokio::test]
async fn a_no_and_a_sign_out_give_the_device_nothing() {
    let service = service().await;
    let mut alice = signed_in(&service).await;
    for (answer, signs_out) in [("no", false), ("yes", true)] {
        let code = device_code(&service).await;
        let page = url(code["verification_uri"].as_str().unwrap());
        let fields = [("user_code", code["user_code"].as_str().unwrap()), ("answer", answer)];
        assert_eq!(alice.post(&service, &page, &fields, None, at(NOW)).await.status(), StatusCode::OK);
        if signs_out {
            service.store.end_session(&SessionId::new("s1")).await.unwrap();
        }
        assert_eq!(error(&poll(&service, &code, 30).await), "access_denied");
        assert_eq!(error(&poll(&service, &code, 60).await), "expired_token");
    }
}

#[tokio::test]
async fn codes_cannot_be_guessed_at_leisure() {
    let service = service().await;
    let mut alice = signed_in(&service).await;
    let page = url("https://authenticate.example.com/.pomerium/device");
    let mut statuses = Vec::new();
    for _ in 0..11 {
        let fields = [("user_code", "BCDF-GHJK"), ("answer", "yes")];
        statuses.push(alice.post(&service, &page, &fields, None, at(NOW)).await.status());
    }
    assert!(statuses[..10].iter().all(|status| *status == StatusCode::BAD_REQUEST));
    assert_eq!(statuses[10], StatusCode::TOO_MANY_REQUESTS);
}
