//! The way to an identity provider and back, with a small provider that answers over loopback.

use std::{convert::Infallible, sync::Mutex, time::Duration};

use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pomerium_shared::clock::Now;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;

/// What the provider says to the next token request, and what it was asked.
#[derive(Default)]
struct Script {
    claims: Mutex<Value>,
    refusal: Mutex<Option<&'static str>>,
    asked: Mutex<Vec<String>>,
}

struct Idp {
    issuer: String,
    script: Arc<Script>,
    _server: JoinSet<()>,
}

impl Idp {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Script::default());
        let key = Arc::new(rcgen::KeyPair::generate().unwrap());
        let mut server = JoinSet::new();
        let (base, shared) = (issuer.clone(), Arc::clone(&script));
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (base, script, key) = (base.clone(), Arc::clone(&shared), Arc::clone(&key));
                connections.spawn(async move {
                    let service = service_fn(move |req| {
                        answer(req, base.clone(), Arc::clone(&script), Arc::clone(&key))
                    });
                    _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { issuer, script, _server: server }
    }

    fn will_say(&self, claims: Value) {
        *self.script.claims.lock().unwrap() = claims;
    }
}

async fn answer(
    req: Request<Incoming>,
    base: String,
    script: Arc<Script>,
    key: Arc<rcgen::KeyPair>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = req.uri().path().to_owned();
    let body = req.into_body().collect().await.unwrap().to_bytes();
    let mut status = StatusCode::OK;
    let document = match path.as_str() {
        "/.well-known/openid-configuration" => json!({
            "issuer": base, "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": format!("{base}/token"), "jwks_uri": format!("{base}/jwks"),
            "end_session_endpoint": format!("{base}/end"),
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }),
        "/jwks" => {
            let point = key.public_key_raw();
            json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256",
                "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..65])}]})
        }
        "/token" => {
            script.asked.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
            if let Some(refusal) = *script.refusal.lock().unwrap() {
                status = StatusCode::BAD_REQUEST;
                json!({"error": refusal})
            } else {
                let signer = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
                let claims = script.claims.lock().unwrap().clone();
                let id_token =
                    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &signer).unwrap();
                json!({"access_token": "at", "token_type": "Bearer", "expires_in": 30, "refresh_token": "rt",
                    "id_token": id_token})
            }
        }
        _ => {
            status = StatusCode::NOT_FOUND;
            json!({})
        }
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::new(document.to_string().into())).unwrap())
}

fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
}

fn claims(idp: &Idp, nonce: &str, now: Now) -> Value {
    json!({"iss": idp.issuer, "aud": "gateway", "sub": "alice", "nonce": nonce, "jti": "chosen-by-the-provider",
        "iat": now.unix_seconds(), "exp": now.unix_seconds() + 300, "email": "alice@example.com", "groups": ["staff"]})
}

struct Trip {
    idp: Idp,
    service: Authenticate,
    browser: Browser,
    now: Now,
    /// The callback that the provider would send the browser to.
    callback: Url,
    nonce: String,
}

/// A browser that has just been sent to the provider and types its password there.
async fn trip() -> Trip {
    let idp = Idp::start().await;
    let service = Authenticate::new(config(&idp.issuer), Store::in_memory().await.unwrap()).unwrap();
    let (mut browser, now) = (Browser::default(), Now::read());
    let sign_in = browser.begin(&service, &url("https://app.example.com/x"), now.wall);
    let at_provider = location(&browser.get(&service, &sign_in, now.wall).await);
    assert_eq!(parameter(&at_provider, "code_challenge_method"), "S256");
    let mut callback = url("https://authenticate.example.com/oauth2/callback?code=c");
    callback.query_pairs_mut().append_pair("state", &parameter(&at_provider, "state"));
    let nonce = parameter(&at_provider, "nonce");
    idp.will_say(claims(&idp, &nonce, now));
    Trip { idp, service, browser, now, callback, nonce }
}

fn assert_refused(response: &Response<Bytes>) {
    assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{:?}", response.body());
    assert!(!response.headers().contains_key(header::SET_COOKIE));
    assert!(!response.headers().contains_key(header::LOCATION));
}

#[tokio::test]
async fn a_person_signs_in_and_out_at_the_provider() {
    let Trip { idp, service, mut browser, now, callback, .. } = trip().await;
    let hand_over = location(&browser.get(&service, &callback, now.wall).await);
    let app = location(&browser.get(&service, &hand_over, now.wall).await);
    assert_eq!(app.as_str(), "https://app.example.com/x");
    assert!(idp.script.asked.lock().unwrap()[0].contains("code_verifier="));
    let host = Some("app.example.com");
    let session =
        service.session_of(&browser.headers(&app), None, host, None, now.wall).await.unwrap().unwrap();
    assert_eq!((session.user_id.as_str(), session.email.as_str()), ("alice", "alice@example.com"));
    assert_eq!(session.groups, ["staff"]);
    assert_ne!(session.id.as_str(), "chosen-by-the-provider");
    assert!(session.is_valid_at(now.wall + Duration::from_secs(3599)));
    assert!(!session.is_valid_at(now.wall + Duration::from_secs(3600)));

    let before = browser.headers(&app);
    let sign_out =
        location(&browser.get(&service, &url("https://app.example.com/.pomerium/sign_out"), now.wall).await);
    let end = location(&browser.get(&service, &sign_out, now.wall).await);
    assert_eq!(end.path(), "/end");
    assert_eq!(
        parameter(&end, "post_logout_redirect_uri"),
        "https://authenticate.example.com/.pomerium/signed_out"
    );
    assert_eq!(service.session_of(&before, None, host, None, now.wall).await.unwrap(), None);
}

#[tokio::test]
async fn a_state_works_once_and_in_its_own_browser_only() {
    let Trip { idp: _idp, service, mut browser, now, callback, .. } = trip().await;
    assert_refused(&Browser::default().get(&service, &callback, now.wall).await);
    let forged = url("https://authenticate.example.com/oauth2/callback?code=c&state=AAAA");
    assert_refused(&browser.get(&service, &forged, now.wall).await);
    assert_refused(&browser.get(&service, &callback, now.wall + Duration::from_secs(302)).await);
    location(&browser.get(&service, &callback, now.wall).await);
    assert_refused(&browser.get(&service, &callback, now.wall).await);
}

#[tokio::test]
async fn an_id_token_for_another_nonce_client_issuer_or_time_signs_nobody_in() {
    for (claim, wrong) in [
        ("nonce", json!("other")),
        ("aud", json!("other-client")),
        ("iss", json!("https://evil.example")),
        ("exp", json!(1_000)),
    ] {
        let Trip { idp, service, mut browser, now, callback, nonce } = trip().await;
        let mut said = claims(&idp, &nonce, now);
        said[claim] = wrong;
        idp.will_say(said);
        assert_refused(&browser.get(&service, &callback, now.wall).await);
        assert!(service.store.users().await.unwrap().is_empty(), "{claim}");
    }
}

#[tokio::test]
async fn a_refused_refresh_is_told_from_a_provider_in_trouble() {
    let Trip { idp, service, mut browser, now, callback, nonce } = trip().await;
    location(&browser.get(&service, &callback, now.wall).await);
    let due =
        service.store.sessions_due_for_refresh(now.wall + Duration::from_secs(60)).await.unwrap().remove(0);
    let mut said = claims(&idp, &nonce, now);
    said["groups"] = json!([]);
    idp.will_say(said);
    let granted = service.provider.refresh(&due.tokens, now.wall).await.unwrap();
    assert!(granted.identity.groups.is_empty(), "a group that the provider takes away is gone");
    *idp.script.refusal.lock().unwrap() = Some("invalid_grant");
    assert!(matches!(service.provider.refresh(&due.tokens, now.wall).await, Err(ProviderError::Refused(_))));
    *idp.script.refusal.lock().unwrap() = Some("temporarily_unavailable");
    assert!(matches!(
        service.provider.refresh(&due.tokens, now.wall).await,
        Err(ProviderError::Unreachable(_))
    ));
    drop(idp);
    assert!(matches!(
        service.provider.refresh(&due.tokens, now.wall).await,
        Err(ProviderError::Unreachable(_))
    ));
}

#[tokio::test]
async fn a_session_that_the_provider_gives_up_ends_and_one_that_it_cannot_be_asked_about_stays() {
    let Trip { idp, service, mut browser, now, callback, nonce: _ } = trip().await;
    location(&browser.get(&service, &callback, now.wall).await);
    let due =
        service.store.sessions_due_for_refresh(now.wall + Duration::from_secs(60)).await.unwrap().remove(0);
    let mut waits = std::collections::HashMap::new();
    *idp.script.refusal.lock().unwrap() = Some("temporarily_unavailable");
    for _ in 0..2 {
        refresh::refresh_due(&service.store, &service.provider, &mut waits, now).await.unwrap();
    }
    assert!(service.store.session(&due.session.id).await.unwrap().is_some());
    let refreshes =
        || idp.script.asked.lock().unwrap().iter().filter(|form| form.contains("refresh_token")).count();
    assert_eq!(refreshes(), 1, "the second round waits");
    *idp.script.refusal.lock().unwrap() = Some("invalid_grant");
    let later = Now { monotonic: now.monotonic + Duration::from_secs(601), ..now };
    refresh::refresh_due(&service.store, &service.provider, &mut waits, later).await.unwrap();
    assert_eq!(service.store.session(&due.session.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_refresh_that_names_somebody_else_ends_the_session() {
    let Trip { idp, service, mut browser, now, callback, nonce } = trip().await;
    location(&browser.get(&service, &callback, now.wall).await);
    let due =
        service.store.sessions_due_for_refresh(now.wall + Duration::from_secs(60)).await.unwrap().remove(0);
    let mut said = claims(&idp, &nonce, now);
    said["sub"] = json!("bob");
    idp.will_say(said);
    refresh::refresh_due(&service.store, &service.provider, &mut Default::default(), now).await.unwrap();
    assert_eq!(service.store.session(&due.session.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_bound_sign_in_is_a_session_of_its_own_and_leaves_the_browsers_alone() {
    let Trip { idp, service, mut browser, now, callback, .. } = trip().await;
    location(&browser.get(&service, &callback, now.wall).await);
    let key = Thumbprint::of(b"the client's certificate");
    let asked = url(&format!(
        "https://app.example.com/.pomerium/api/v1/login?pomerium_redirect_uri=http://127.0.0.1:9/&pomerium_device_key={key}"
    ));
    let headers = HeaderMap::new();
    let req = AuthRequest {
        method: &Method::GET,
        url: &asked,
        headers: &headers,
        form: Bytes::new(),
        key: Some(&key),
    };
    let answer = service.handle_route_host(req, now.wall).await.unwrap();
    let sign_in = url(std::str::from_utf8(answer.body()).unwrap());

    let cookies = browser.cookies.len();
    let at_provider = location(&browser.get(&service, &sign_in, now.wall).await);
    assert!(at_provider.as_str().starts_with(&idp.issuer), "the browser's session does not stand in");
    idp.will_say(claims(&idp, &parameter(&at_provider, "nonce"), now));
    let mut back = url("https://authenticate.example.com/oauth2/callback?code=c");
    back.query_pairs_mut().append_pair("state", &parameter(&at_provider, "state"));
    let response = browser.get(&service, &back, now.wall).await;
    assert!(!response.headers().contains_key(header::SET_COOKIE));
    let landed = location(&browser.get(&service, &location(&response), now.wall).await);
    assert_eq!((landed.port(), browser.cookies.len()), (Some(9), cookies));

    let mut headers = HeaderMap::new();
    let token = parameter(&landed, "pomerium_jwt");
    headers.insert(header::AUTHORIZATION, format!("Pomerium {token}").parse().unwrap());
    let host = Some("app.example.com");
    let session = service.session_of(&headers, None, host, Some(&key), now.wall).await.unwrap().unwrap();
    assert_eq!(session.bound_to, Some(key.clone()));
    assert!(service.store.device_of(&session).await.unwrap().is_some());
    for other in [None, Some(&Thumbprint::of(b"another certificate"))] {
        let resolved = service.resolve(&headers, None, host, other, now.wall).await.unwrap();
        assert_eq!(resolved, Resolved::Invalid(CredentialSource::Pomerium, InvalidCredential::OtherDevice));
    }
}
