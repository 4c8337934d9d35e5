//! The way to an identity provider and back, with a small provider that answers over loopback.

use std::{
    convert::Infallible,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{authenticate::refresh::Refresher, store::RefreshDue};

/// What the provider says to the next token request, and what it was asked.
#[derive(Default)]
pub(super) struct Script {
    claims: Mutex<Value>,
    refusal: Mutex<Option<&'static str>>,
    /// The answer of the UserInfo; 404 without one.
    user_info: Mutex<Option<(StatusCode, Value)>>,
    withholds_id_token: AtomicBool,
    pub(super) asked: Mutex<Vec<String>>,
    /// The paths of all requests.
    pub(super) paths: Mutex<Vec<String>>,
}

pub(super) struct Idp {
    pub(super) issuer: String,
    pub(super) script: Arc<Script>,
    pub(super) key: Arc<rcgen::KeyPair>,
    _server: JoinSet<()>,
}

impl Idp {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Script::default());
        let key = Arc::new(rcgen::KeyPair::generate().unwrap());
        let mut server = JoinSet::new();
        let (base, shared, signer) = (issuer.clone(), Arc::clone(&script), Arc::clone(&key));
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (base, script, key) = (base.clone(), Arc::clone(&shared), Arc::clone(&signer));
                connections.spawn(async move {
                    let service = service_fn(move |req| {
                        answer(req, base.clone(), Arc::clone(&script), Arc::clone(&key))
                    });
                    _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { issuer, script, key, _server: server }
    }

    /// A token of this issuer.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &key).unwrap()
    }

    pub(super) fn will_say(&self, claims: Value) {
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
    script.paths.lock().unwrap().push(path.clone());
    let body = req.into_body().collect().await.unwrap().to_bytes();
    let mut status = StatusCode::OK;
    let document = match path.as_str() {
        "/.well-known/openid-configuration" => json!({
            "issuer": base, "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": format!("{base}/token"), "jwks_uri": format!("{base}/jwks"),
            "end_session_endpoint": format!("{base}/end"), "userinfo_endpoint": format!("{base}/me"),
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
                let count = script.asked.lock().unwrap().len();
                let mut tokens = json!({"access_token": "at", "token_type": "Bearer", "expires_in": 30,
                    "refresh_token": format!("rt{count}"), "id_token": id_token});
                if script.withholds_id_token.load(Ordering::SeqCst) {
                    tokens.as_object_mut().unwrap().remove("id_token");
                }
                tokens
            }
        }
        "/me" => {
            let (code, said) = script
                .user_info
                .lock()
                .unwrap()
                .clone()
                .unwrap_or_else(|| (StatusCode::NOT_FOUND, json!({})));
            status = code;
            said
        }
        _ => {
            status = StatusCode::NOT_FOUND;
            json!({})
        }
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::new(document.to_string().into())).unwrap())
}

pub(super) fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
}

pub(super) fn claims(idp: &Idp, nonce: &str, now: Now) -> Value {
    json!({"iss": idp.issuer, "aud": "gateway", "sub": "alice", "nonce": nonce, "jti": "chosen-by-the-provider",
        "iat": now.unix_seconds(), "exp": now.unix_seconds() + 300, "email": "alice@example.com", "groups": ["staff"]})
}

pub(super) struct Trip {
    pub(super) idp: Idp,
    pub(super) service: Authenticate,
    pub(super) browser: Browser,
    pub(super) now: Now,
    /// The callback that the provider would send the browser to.
    pub(super) callback: Url,
    pub(super) nonce: String,
}

/// A browser that has just been sent to the provider and types its password there.
pub(super) async fn trip() -> Trip {
    let idp = Idp::start().await;
    let service = Authenticate::new(config(&idp.issuer), Store::in_memory().await.unwrap()).unwrap();
    let (mut browser, now) = (Browser::default(), Now::read());
    let sign_in = browser.begin(&service, &url("https://app.example.com/x"), now.wall);
    let at_provider = location(&browser.get(&service, &sign_in, now.wall).await);
    assert_eq!(parameter(&at_provider, "code_challenge_method"), "S256");
    let (callback, nonce) = callback_of(&at_provider);
    idp.will_say(claims(&idp, &nonce, now));
    Trip { idp, service, browser, now, callback, nonce }
}

/// Where the provider sends the browser back, and the nonce that its ID token must carry.
pub(super) fn callback_of(at_provider: &Url) -> (Url, String) {
    let mut callback = url("https://authenticate.example.com/oauth2/callback?code=c");
    callback.query_pairs_mut().append_pair("state", &parameter(at_provider, "state"));
    (callback, parameter(at_provider, "nonce"))
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
    // Too late: nobody is signed in, but the app is opened anew, by a browser that began it and by no other.
    let late = now.wall + Duration::from_secs(302);
    let anew = browser.get(&service, &callback, late).await;
    assert_eq!(location(&anew).as_str(), "https://app.example.com/x");
    assert!(!anew.headers().contains_key(header::SET_COOKIE));
    assert_refused(&Browser::default().get(&service, &callback, late).await);

    location(&browser.get(&service, &callback, now.wall).await);
    // The back button: nothing is redeemed again, and who has signed in with it goes on.
    let again = browser.get(&service, &callback, now.wall).await;
    assert_eq!(location(&again).path(), "/.pomerium/callback/");
    assert!(!again.headers().contains_key(header::SET_COOKIE));
    let sign_in_cookie = ("authenticate.example.com".to_owned(), "_pomerium_authenticate".to_owned());
    browser.cookies.remove(&sign_in_cookie);
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

/// Somebody who has signed in, and what the refresh loop sees of them.
struct SignedIn {
    idp: Idp,
    service: Authenticate,
    now: Now,
    refresher: Refresher,
    due: RefreshDue,
}

impl SignedIn {
    async fn new(grace: Duration) -> Self {
        let Trip { idp, mut service, mut browser, now, callback, nonce: _ } = trip().await;
        service.config.unreachable_grace = grace;
        location(&browser.get(&service, &callback, now.wall).await);
        let before = now.wall + Duration::from_secs(60);
        let due = service.store.sessions_due_for_refresh(&service.idp_id, before).await.unwrap().remove(0);
        let refresher = Refresher::new(&service);
        Self { idp, service, now, refresher, due }
    }

    /// A round of refreshing, this long after the sign-in.
    async fn round(&mut self, seconds: u64) {
        let later = Duration::from_secs(seconds);
        let now = Now { monotonic: self.now.monotonic + later, wall: self.now.wall + later };
        self.refresher.round(|| now, &CancellationToken::new()).await.unwrap();
    }

    async fn session(&self) -> Option<Session> {
        self.service.store.session(&self.due.session.id).await.unwrap().map(Arc::unwrap_or_clone)
    }

    fn will_refuse(&self, error: Option<&'static str>) {
        *self.idp.script.refusal.lock().unwrap() = error;
    }

    fn refreshes(&self) -> usize {
        let asked = self.idp.script.asked.lock().unwrap();
        asked.iter().filter(|form| form.contains("grant_type=refresh_token")).count()
    }
}

const GRACE: Duration = Duration::from_secs(900);

#[tokio::test]
async fn a_no_is_told_from_a_provider_in_trouble() {
    let it = SignedIn::new(GRACE).await;
    let refresh = async || it.service.provider.refresh(&it.due.tokens, it.now.wall).await;
    for no in ["invalid_grant", "invalid_client", "access_denied", "login_required"] {
        it.will_refuse(Some(no));
        assert!(matches!(refresh().await, Err(ProviderError::Refused(_))), "{no}");
    }
    for trouble in ["temporarily_unavailable", "server_error", "slow_down", "invented"] {
        it.will_refuse(Some(trouble));
        assert!(matches!(refresh().await, Err(ProviderError::Unreachable(_))), "{trouble}");
    }
    drop(it.idp);
    let gone = it.service.provider.refresh(&it.due.tokens, it.now.wall).await;
    assert!(matches!(gone, Err(ProviderError::Unreachable(_))));
}

#[tokio::test]
async fn a_refresh_replaces_claims_and_a_dropped_group_is_gone() {
    let mut it = SignedIn::new(GRACE).await;
    assert_eq!(it.session().await.unwrap().groups, ["staff"]);
    let mut said = claims(&it.idp, "n", it.now);
    said.as_object_mut().unwrap().remove("groups");
    it.idp.will_say(said);
    it.round(1).await;
    let session = it.session().await.unwrap();
    assert!(session.groups.is_empty() && !session.claims.contains_key("groups"), "{:?}", session.claims);
}

#[tokio::test]
async fn without_a_new_id_token_the_user_info_replaces_claims_and_without_both_nothing_changes() {
    let mut it = SignedIn::new(GRACE).await;
    it.idp.script.withholds_id_token.store(true, Ordering::SeqCst);
    it.round(1).await;
    assert_eq!(it.session().await.unwrap().groups, ["staff"], "nothing was said of the person");
    let said = (StatusCode::OK, json!({"sub": "alice", "email": "alice@example.com"}));
    *it.idp.script.user_info.lock().unwrap() = Some(said);
    it.round(40).await;
    let session = it.session().await.unwrap();
    assert_eq!((session.groups.len(), session.email.as_str()), (0, "alice@example.com"));
}

#[tokio::test]
async fn a_silent_provider_is_asked_ever_less_often_and_a_no_ends_the_session() {
    let mut it = SignedIn::new(GRACE).await;
    it.will_refuse(Some("temporarily_unavailable"));
    it.round(1).await;
    it.round(2).await;
    assert_eq!(it.refreshes(), 1, "the second round waits");
    assert!(it.session().await.is_some());
    it.will_refuse(Some("invalid_grant"));
    it.round(602).await;
    assert_eq!(it.session().await, None);
}

#[tokio::test]
async fn a_session_outlives_a_silent_provider_by_the_grace_and_no_longer() {
    // The access token ends 30 seconds after the sign-in.
    for (grace, kept_until) in [(GRACE, 929), (Duration::ZERO, 29)] {
        let mut it = SignedIn::new(grace).await;
        it.will_refuse(Some("server_error"));
        it.round(1).await;
        it.round(kept_until).await;
        assert!(it.session().await.is_some(), "{grace:?}");
        it.round(kept_until + 2).await;
        assert_eq!(it.session().await, None, "{grace:?}");
    }
}

#[tokio::test]
async fn new_tokens_are_kept_when_the_user_info_fails_after_them() {
    let mut it = SignedIn::new(GRACE).await;
    *it.idp.script.user_info.lock().unwrap() = Some((StatusCode::BAD_GATEWAY, json!({})));
    it.round(1).await;
    let session = it.session().await.unwrap();
    assert_eq!(session.groups, ["staff"], "nothing new is known of the person");
    let tokens = it.service.store.tokens(&session.id).await.unwrap().unwrap();
    assert_eq!(tokens.refresh, Some(Secret::new("rt2".into())), "the first one is used up");
    *it.idp.script.user_info.lock().unwrap() = None;
    it.round(601).await;
    assert!(it.idp.script.asked.lock().unwrap().last().unwrap().contains("refresh_token=rt2"));
    assert!(it.session().await.is_some());
}

#[tokio::test]
async fn a_refresh_that_names_somebody_else_ends_the_session() {
    let mut it = SignedIn::new(GRACE).await;
    let mut said = claims(&it.idp, "n", it.now);
    said["sub"] = json!("bob");
    it.idp.will_say(said);
    it.round(1).await;
    assert_eq!(it.session().await, None);
}

#[tokio::test]
async fn the_tokens_of_another_provider_are_not_sent_to_this_one() {
    let mut it = SignedIn::new(GRACE).await;
    let mut other = config(&it.idp.issuer);
    other.identity_provider.client_id = "another".into();
    let other = Authenticate::new(other, it.service.store.clone()).unwrap();
    it.refresher = Refresher::new(&other);
    it.round(1).await;
    assert_eq!(it.refreshes(), 0);
}

/// A program with this key signs in, with the browser's help; gives what it says from then on.
async fn bound_sign_in(
    idp: &Idp,
    service: &Authenticate,
    browser: &mut Browser,
    key: &Thumbprint,
    now: Now,
) -> HeaderMap {
    let asked = url(&format!(
        "https://app.example.com/.pomerium/api/v1/login?pomerium_redirect_uri=http://127.0.0.1:9/&pomerium_device_key={key}"
    ));
    let headers = HeaderMap::new();
    let req = AuthRequest {
        method: &Method::GET,
        url: &asked,
        headers: &headers,
        form: Bytes::new(),
        key: Some(key),
    };
    let answer = service.handle_route_host(req, now.wall).await.unwrap();
    let sign_in = url(std::str::from_utf8(answer.body()).unwrap());

    let cookies = browser.cookies.len();
    let at_provider = location(&browser.get(service, &sign_in, now.wall).await);
    assert!(at_provider.as_str().starts_with(&idp.issuer), "the browser's session does not stand in");
    idp.will_say(claims(idp, &parameter(&at_provider, "nonce"), now));
    let mut back = url("https://authenticate.example.com/oauth2/callback?code=c");
    back.query_pairs_mut().append_pair("state", &parameter(&at_provider, "state"));
    let response = browser.get(service, &back, now.wall).await;
    assert!(!response.headers().contains_key(header::SET_COOKIE));
    let landed = location(&browser.get(service, &location(&response), now.wall).await);
    assert_eq!((landed.port(), browser.cookies.len()), (Some(9), cookies));

    let mut headers = HeaderMap::new();
    let token = parameter(&landed, "pomerium_jwt");
    headers.insert(header::AUTHORIZATION, format!("Pomerium {token}").parse().unwrap());
    headers
}

#[tokio::test]
async fn a_bound_sign_in_is_a_session_of_its_own_and_leaves_the_browsers_alone() {
    let Trip { idp, service, mut browser, now, callback, .. } = trip().await;
    location(&browser.get(&service, &callback, now.wall).await);
    let key = Thumbprint::of(b"the client's certificate");
    let headers = bound_sign_in(&idp, &service, &mut browser, &key, now).await;
    let host = Some("app.example.com");
    let session = service.session_of(&headers, None, host, Some(&key), now.wall).await.unwrap().unwrap();
    assert_eq!(session.bound_to, Some(key.clone()));
    assert!(service.store.device_of(&session, at(NOW)).await.unwrap().is_some());
    for other in [None, Some(&Thumbprint::of(b"another certificate"))] {
        let resolved = service.resolve(&headers, None, host, other, now.wall).await.unwrap();
        assert_eq!(resolved, Resolved::Invalid(CredentialSource::Pomerium, InvalidCredential::OtherDevice));
    }
}

#[tokio::test]
async fn a_bound_session_is_renewed_under_its_own_id_by_its_own_key_alone() {
    let Trip { idp, service, mut browser, now, .. } = trip().await;
    let key = Thumbprint::of(b"the client's certificate");
    let other = Thumbprint::of(b"another certificate");
    let later = Now { wall: now.wall + Duration::from_secs(60), ..now };
    let host = Some("app.example.com");
    let mut sessions = Vec::new();
    for (key, at) in [(&key, now), (&key, later), (&other, later)] {
        let headers = bound_sign_in(&idp, &service, &mut browser, key, at).await;
        sessions.push(service.session_of(&headers, None, host, Some(key), at.wall).await.unwrap().unwrap());
    }
    let [first, renewed, elsewhere] = sessions.try_into().unwrap();
    assert_eq!(renewed.id, first.id);
    assert!(renewed.issued_at > first.issued_at && renewed.expires_at > first.expires_at);
    assert_ne!(elsewhere.id, first.id, "another machine's session is another one");

    service.store.end_session(&first.id).await.unwrap();
    let headers = bound_sign_in(&idp, &service, &mut browser, &key, later).await;
    let anew = service.session_of(&headers, None, host, Some(&key), later.wall).await.unwrap().unwrap();
    assert_ne!(anew.id, first.id, "what was ended does not come back");
}
