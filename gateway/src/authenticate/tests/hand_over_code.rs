//! The code that a browser carries to a program instead of the token, and what a thief makes of it.

use serde_json::Value;

use super::{super::hand_over_code::CodeChallenge, *};

const LOGIN: &str = "https://app.example.com/.pomerium/api/v1/login";
const TOKEN: &str = "https://app.example.com/.pomerium/api/v1/token";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A program's question where to sign in, with these parameters beside the address of its listener.
async fn ask(service: &Authenticate, more: &[(&str, &str)]) -> Response<Bytes> {
    let mut asked = url(LOGIN);
    asked.query_pairs_mut().append_pair("pomerium_redirect_uri", "http://127.0.0.1:5555/").extend_pairs(more);
    Browser::default().get(service, &asked, at(NOW)).await
}

/// The hand-over to a program that asked for proof, where the person has said yes.
async fn hand_over(service: &Authenticate, browser: &mut Browser) -> Url {
    let asked = ask(service, &[("pomerium_code_challenge", CHALLENGE)]).await;
    assert_eq!(asked.headers()["pomerium-hand-over"], "code");
    let sign_in = url(std::str::from_utf8(asked.body()).unwrap());
    let question = browser.get(service, &sign_in, at(NOW)).await;
    location(&browser.go_on(service, &question, at(NOW)).await)
}

/// The address that the browser calls at the program's listener, and the code in it.
async fn callback(service: &Authenticate, browser: &mut Browser) -> (Url, String) {
    let hand_over = hand_over(service, browser).await;
    let back = location(&browser.get(service, &hand_over, at(NOW)).await);
    let code = back.query_pairs().find(|(name, _)| name == "pomerium_code").unwrap().1.into_owned();
    (back, code)
}

async fn redeem(
    service: &Authenticate,
    at_url: &str,
    code: &str,
    verifier: &str,
    now: u64,
) -> Result<String, String> {
    let fields = [("grant_type", "authorization_code"), ("code", code), ("code_verifier", verifier)];
    let response = Browser::default().post(service, &url(at_url), &fields, None, at(now)).await;
    let said: Value = serde_json::from_slice(response.body()).unwrap();
    let text = |name: &str| said[name].as_str().map(str::to_owned);
    text("access_token").ok_or_else(|| text("error").unwrap())
}

async fn email_of(service: &Authenticate, token: &str) -> Option<String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Pomerium {token}").parse().unwrap());
    let session = service.session_of(&headers, None, Some("app.example.com"), None, at(NOW)).await.unwrap();
    session.map(|session| session.email.clone())
}

#[tokio::test]
async fn a_program_that_asks_for_proof_gets_a_code_and_for_the_code_the_token_once() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let (back, code) = callback(&service, &mut browser).await;
    assert!(!back.as_str().contains("pomerium_jwt"), "{back}");
    assert_eq!(email_of(&service, &code).await, None, "a code is no token");
    let token = redeem(&service, TOKEN, &code, VERIFIER, NOW + 1).await.unwrap();
    assert_eq!(email_of(&service, &token).await.as_deref(), Some("alice@example.com"));
    let again = redeem(&service, TOKEN, &code, VERIFIER, NOW + 2).await;
    assert_eq!(again, Err("invalid_grant".to_owned()), "a code works once");
}

#[tokio::test]
async fn a_stolen_callback_address_gives_no_token_and_is_void_once_it_was_tried() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    for guess in ["", CHALLENGE, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK"] {
        let (_, code) = callback(&service, &mut browser).await;
        let refused = redeem(&service, TOKEN, &code, guess, NOW + 1).await;
        if guess.is_empty() {
            assert_eq!(refused, Err("invalid_request".to_owned()), "no verifier");
            continue;
        }
        assert_eq!(refused, Err("invalid_grant".to_owned()), "{guess}");
        let own = redeem(&service, TOKEN, &code, VERIFIER, NOW + 2).await;
        assert_eq!(own, Err("invalid_grant".to_owned()), "a code that somebody else had is void");
    }
}

#[tokio::test]
async fn a_code_is_worth_nothing_late_changed_or_at_another_host() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let invalid = Err("invalid_grant".to_owned());
    let (_, code) = callback(&service, &mut browser).await;
    assert_eq!(redeem(&service, TOKEN, &code, VERIFIER, NOW + 60).await, invalid, "too late");
    let changed = format!("A{}", &code[1..]);
    assert_eq!(redeem(&service, TOKEN, &changed, VERIFIER, NOW + 1).await, invalid, "changed");
    assert_eq!(redeem(&service, TOKEN, &"A".repeat(9000), VERIFIER, NOW + 1).await, invalid, "too long");
    let elsewhere = "https://other.example.com/.pomerium/api/v1/token";
    assert_eq!(redeem(&service, elsewhere, &code, VERIFIER, NOW + 1).await, invalid, "another host");
    let (_, code) = callback(&service, &mut browser).await;
    service.store.end_session(&SessionId::new("s1")).await.unwrap();
    assert_eq!(redeem(&service, TOKEN, &code, VERIFIER, NOW + 1).await, invalid, "signed out meanwhile");
}

#[tokio::test]
async fn nobody_on_the_way_can_have_the_token_itself_sent_instead() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let asked = ask(&service, &[("pomerium_code_challenge", CHALLENGE)]).await;
    let sign_in = std::str::from_utf8(asked.body()).unwrap().to_owned();
    let hand_over = hand_over(&service, &mut browser).await;
    let parameter = format!("pomerium_code_challenge={CHALLENGE}");
    for (signed, other) in [
        (sign_in.as_str(), ""),
        (hand_over.as_str(), ""),
        (hand_over.as_str(), "pomerium_code_challenge=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ] {
        assert!(signed.contains(&parameter), "{signed}");
        let forged = url(&signed.replace(&parameter, other));
        let response = browser.get(&service, &forged, at(NOW)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{forged}");
        assert!(!response.headers().contains_key(header::LOCATION));
    }
    location(&browser.get(&service, &hand_over, at(NOW)).await);
}

#[tokio::test]
async fn what_is_no_challenge_is_refused_rather_than_passed_over() {
    let service = service().await;
    for challenge in ["", "x", VERIFIER.get(1..).unwrap(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c%"] {
        let response = ask(&service, &[("pomerium_code_challenge", challenge)]).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{challenge}");
    }
    let old = ask(&service, &[]).await;
    assert!(old.status() == StatusCode::OK && !old.headers().contains_key("pomerium-hand-over"));
}

#[tokio::test]
async fn a_code_for_a_bound_session_is_given_for_its_key_alone() {
    let service = service().await;
    let own = Thumbprint::from_text("own");
    signed_in(&service).await;
    let alices = service.store.session(&SessionId::new("s1")).await.unwrap().unwrap();
    let session = Session { id: SessionId::new("s2"), bound_to: Some(own.clone()), ..(*alices).clone() };
    let tokens = ProviderTokens {
        access: Secret::new("a".into()),
        refresh: None,
        id_token: Secret::new("i".into()),
        access_expires_at: None,
    };
    service.store.put_session(&session, &tokens).await.unwrap();
    let handle = service.handle_key.mint(&session, &["app.example.com".to_owned()], at(NOW)).unwrap();
    for (key, is_given) in [(None, false), (Some(Thumbprint::from_text("other")), false), (Some(own), true)] {
        let challenge = CodeChallenge::of_parameter(Some(CHALLENGE)).unwrap().unwrap();
        let code = service.code_for(&handle, challenge, at(NOW)).unwrap();
        let form = format!("grant_type=authorization_code&code={code}&code_verifier={VERIFIER}");
        let (url, headers) = (url(TOKEN), HeaderMap::new());
        let req = AuthRequest {
            method: &Method::POST,
            url: &url,
            headers: &headers,
            form: form.into(),
            key: key.as_ref(),
        };
        let response = service.handle_route_host(req, at(NOW)).await.unwrap();
        assert_eq!(response.status() == StatusCode::OK, is_given, "{key:?}");
    }
}
