use std::time::Duration;

use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};

use super::{grants::CODE_LIFETIME, *};

const REDIRECT_URI: &str = "https://authenticate.localhost:8443/oauth2/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// Of [`VERIFIER`] (RFC 7636, appendix B).
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn provider() -> DevIdp {
    DevIdp::new(4000, REDIRECT_URI.to_owned(), Secret::new("right".to_owned())).unwrap()
}

fn now() -> Now {
    Now::read()
}

fn later(now: Now, by: Duration) -> Now {
    Now { monotonic: now.monotonic + by, wall: now.wall + by }
}

fn pairs(changes: &[(&str, &str)], base: &[(&str, &str)]) -> Parameters {
    base.iter().chain(changes).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn authorize(idp: &DevIdp, changes: &[(&str, &str)]) -> Answer {
    let query = pairs(
        changes,
        &[
            ("response_type", "code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", REDIRECT_URI),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("state", "a state"),
            ("nonce", "a nonce"),
        ],
    );
    idp.authorize(&query, now())
}

fn location(answer: &Answer) -> Url {
    answer.headers()[header::LOCATION].to_str().unwrap().parse().unwrap()
}

fn code(idp: &DevIdp) -> String {
    let answer = authorize(idp, &[("person", "alice")]);
    parameters(location(&answer).query().unwrap())["code"].clone()
}

fn redeem(idp: &DevIdp, code: &str, changes: &[(&str, &str)], at: Now) -> Answer {
    let form = pairs(
        changes,
        &[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
            ("client_id", CLIENT_ID),
            ("client_secret", "right"),
        ],
    );
    idp.token(&form, &HeaderMap::new(), at)
}

async fn document(answer: Answer) -> Value {
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

async fn page(answer: Answer) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_click_on_alice_ends_in_tokens_that_say_so() {
    let idp = provider();
    let answer = authorize(&idp, &[("person", "alice")]);
    let back = location(&answer);
    assert!(back.as_str().starts_with(REDIRECT_URI));
    let back = parameters(back.query().unwrap());
    assert_eq!(back["state"], "a state");

    let tokens = document(redeem(&idp, &back["code"], &[], now())).await;
    let keys: JwkSet = serde_json::from_value(idp.jwks.clone()).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[CLIENT_ID]);
    validation.set_issuer(&["http://127.0.0.1:4000"]);
    let key = DecodingKey::from_jwk(keys.find(KEY_ID).unwrap()).unwrap();
    let claims = jsonwebtoken::decode::<Value>(tokens["id_token"].as_str().unwrap(), &key, &validation)
        .unwrap()
        .claims;
    assert_eq!(
        (claims["email"].as_str(), claims["nonce"].as_str()),
        (Some("alice@corp.example"), Some("a nonce"))
    );

    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    headers.insert(header::AUTHORIZATION, bearer.parse().unwrap());
    assert_eq!(document(idp.user_info(&headers, now())).await["sub"], claims["sub"]);
    let expired = idp.user_info(&headers, later(now(), Duration::from_secs(3700)));
    assert_eq!(expired.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nobody_is_signed_in_without_a_click_and_the_page_says_what_it_is() {
    let answer = authorize(&provider(), &[("person", "mallory"), ("state", "\"><script>")]);
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(
        answer.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap()
            .contains("frame-ancestors 'none'")
    );
    let page = page(answer).await;
    assert!(
        page.contains(pages::MARK)
            && page.contains("alice@corp.example")
            && page.contains("bob@corp.example")
    );
    assert!(!page.contains("<script"), "{page}");
}

#[test]
fn a_foreign_redirect_uri_gets_nothing() {
    let idp = provider();
    for foreign in [
        "https://evil.example/oauth2/callback",
        &format!("{REDIRECT_URI}/../x"),
        &format!("{REDIRECT_URI}?a=b"),
        "",
    ] {
        let answer = authorize(&idp, &[("redirect_uri", foreign), ("person", "alice")]);
        assert_eq!(
            (answer.status(), answer.headers().get(header::LOCATION)),
            (StatusCode::BAD_REQUEST, None),
            "{foreign}"
        );
    }
    let code = code(&idp);
    let answer = redeem(&idp, &code, &[("redirect_uri", "https://evil.example/")], now());
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[test]
fn a_sign_in_without_pkce_s256_is_refused() {
    let idp = provider();
    for change in [("code_challenge", ""), ("code_challenge_method", "plain"), ("response_type", "token")] {
        assert_eq!(
            authorize(&idp, &[change, ("person", "alice")]).status(),
            StatusCode::BAD_REQUEST,
            "{change:?}"
        );
    }
}

#[tokio::test]
async fn a_wrong_verifier_uses_the_code_up() {
    let idp = provider();
    let code = code(&idp);
    let answer = redeem(&idp, &code, &[("code_verifier", "wrong")], now());
    assert_eq!(document(answer).await["error"], "invalid_grant");
    assert_eq!(redeem(&idp, &code, &[], now()).status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_code_is_good_once_and_for_a_minute() {
    let idp = provider();
    let used = code(&idp);
    assert_eq!(redeem(&idp, &used, &[], now()).status(), StatusCode::OK);
    assert_eq!(document(redeem(&idp, &used, &[], now())).await["error"], "invalid_grant");
    let old = code(&idp);
    let answer = redeem(&idp, &old, &[], later(now(), CODE_LIFETIME));
    assert_eq!(document(answer).await["error"], "invalid_grant");
}

#[test]
fn a_wrong_client_secret_is_refused_and_leaves_the_code_alone() {
    let idp = provider();
    let code = code(&idp);
    assert_eq!(redeem(&idp, &code, &[("client_secret", "wrong")], now()).status(), StatusCode::UNAUTHORIZED);
    let mut headers = HeaderMap::new();
    headers.insert(
        header::AUTHORIZATION,
        format!("Basic {}", STANDARD.encode("quickstart:wrong")).parse().unwrap(),
    );
    let form = pairs(
        &[],
        &[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ],
    );
    assert_eq!(idp.token(&form, &headers, now()).status(), StatusCode::UNAUTHORIZED);
    headers.insert(
        header::AUTHORIZATION,
        format!("Basic {}", STANDARD.encode("quickstart:right")).parse().unwrap(),
    );
    assert_eq!(idp.token(&form, &headers, now()).status(), StatusCode::OK);
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_brings_another() {
    let idp = provider();
    let tokens = document(redeem(&idp, &code(&idp), &[], now())).await;
    let refresh = |token: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        redeem(&idp, "", &form, now())
    };
    let first = tokens["refresh_token"].as_str().unwrap();
    let second = document(refresh(first)).await;
    assert_eq!(document(refresh(first)).await["error"], "invalid_grant");
    assert_eq!(refresh(second["refresh_token"].as_str().unwrap()).status(), StatusCode::OK);
}

#[test]
fn sign_ins_that_nobody_finishes_do_not_pile_up() {
    let idp = provider();
    for _ in 0..grants::ENTRIES_MAX {
        assert_eq!(authorize(&idp, &[("person", "bob")]).status(), StatusCode::FOUND);
    }
    assert_eq!(authorize(&idp, &[("person", "bob")]).status(), StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn signing_out_leads_back_to_the_gateway_only() {
    let idp = provider();
    let end = |uri: &str| idp.end_session(&pairs(&[("post_logout_redirect_uri", uri)], &[]));
    let ours = "https://authenticate.localhost:8443/.pomerium/signed_out";
    assert_eq!(location(&end(ours)).as_str(), ours);
    for foreign in [
        "https://evil.example/",
        "https://authenticate.localhost:8444/",
        "http://authenticate.localhost:8443/",
    ] {
        assert_eq!(end(foreign).status(), StatusCode::BAD_REQUEST, "{foreign}");
    }
}

#[tokio::test]
async fn a_name_that_was_pointed_at_loopback_is_not_served() {
    let idp = provider();
    for (host, status) in
        [("127.0.0.1:4000", StatusCode::OK), ("rebound.evil.example:4000", StatusCode::MISDIRECTED_REQUEST)]
    {
        let request =
            Request::get("/jwks").header(header::HOST, host).body(Full::<Bytes>::default()).unwrap();
        assert_eq!(idp.answer(request, now()).await.status(), status, "{host}");
    }
}
