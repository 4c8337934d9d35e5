//! The development identity provider: signs in whoever clicks on a name. Not for production: it listens on loopback
//! only, and says on every page what it is.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use maud::{DOCTYPE, html};
use p256::{SecretKey, elliptic_curve::sec1::ToSec1Point as _, pkcs8::DecodePrivateKey as _};
use pomerium_shared::clock::Now;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use url::Url;

/// People who can sign in: name and email.
const PEOPLE: [(&str, &str); 2] = [("alice", "alice@corp.example"), ("bob", "bob@corp.example")];

const CLIENT_ID: &str = "quickstart";
const CLIENT_SECRET: &str = "quickstart-only";
const KEY_ID: &str = "dev";

/// How long a code is good.
const CODE_LIFETIME: Duration = Duration::from_secs(60);

/// How long a token is good.
const TOKEN_SECONDS: i64 = 3600;

/// Codes and tokens kept at a time; beyond it sign-ins are refused.
const ENTRIES_MAX: usize = 1000;

/// Bytes of a posted form at most.
const FORM_LEN_MAX: usize = 16 * 1024;

/// The provider.
#[derive(Debug)]
pub(super) struct DevIdp(Arc<State>);

struct State {
    issuer: String,
    redirect_uri: String,
    signing: EncodingKey,
    jwks: Value,
    codes: Mutex<HashMap<String, Code>>,
    tokens: Mutex<HashMap<String, &'static str>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevIdp").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// What a code stands for.
struct Code {
    person: &'static str,
    nonce: Option<String>,
    challenge: String,
    expires_at: SystemTime,
}

type Answer = Response<Full<Bytes>>;

impl DevIdp {
    /// A provider on this loopback port for the gateway on that one.
    pub(super) fn new(port: u16, gateway_port: u16) -> anyhow::Result<Self> {
        let pem = rcgen::KeyPair::generate()?.serialize_pem();
        let signing = EncodingKey::from_ec_pem(pem.as_bytes())?;
        let point = SecretKey::from_pkcs8_pem(&pem)?.public_key().to_sec1_point(false);
        let [x, y] =
            [&point.as_bytes()[1..33], &point.as_bytes()[33..65]].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let jwk = json!({ "kty": "EC", "use": "sig", "crv": "P-256", "alg": "ES256", "kid": KEY_ID, "x": x, "y": y });
        Ok(Self(Arc::new(State {
            issuer: format!("http://127.0.0.1:{port}"),
            redirect_uri: format!("https://authenticate.localhost:{gateway_port}/oauth2/callback"),
            signing,
            jwks: json!({ "keys": [jwk] }),
            codes: Mutex::default(),
            tokens: Mutex::default(),
        })))
    }

    /// Serves until dropped. Refuses a listener that others than this machine could reach.
    pub(super) async fn serve(self, listener: TcpListener, tracker: TaskTracker) {
        if !listener.local_addr().is_ok_and(|address| address.ip().is_loopback()) {
            return tracing::error!("the development identity provider listens on loopback only");
        }
        while let Ok((stream, _)) = listener.accept().await {
            let state = self.0.clone();
            tracker.spawn(async move {
                let service = service_fn(move |request| {
                    let state = state.clone();
                    async move { Ok::<_, Infallible>(state.answer(request).await) }
                });
                if let Err(error) =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                {
                    tracing::debug!(%error, "a connection to the development identity provider ended");
                }
            });
        }
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let query = parameters(parts.uri.query().unwrap_or_default());
        match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/.well-known/openid-configuration") => as_json(&self.metadata()),
            (&Method::GET, "/jwks") => as_json(&self.jwks),
            (&Method::GET, "/authorize") => self.authorize(&query, Now::read()),
            (&Method::POST, "/token") => match Limited::new(body, FORM_LEN_MAX).collect().await {
                Ok(form) => {
                    let form = String::from_utf8_lossy(&form.to_bytes()).into_owned();
                    self.token(&parameters(&form), authorization, Now::read())
                }
                Err(_) => plain(StatusCode::BAD_REQUEST, "bad form"),
            },
            (&Method::GET, "/userinfo") => self.user_info(authorization),
            (&Method::GET, "/end_session") => self.end_session(&query),
            _ => plain(StatusCode::NOT_FOUND, "development identity provider: no such page"),
        }
    }

    fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "userinfo_endpoint": at("/userinfo"),
            "jwks_uri": at("/jwks"),
            "end_session_endpoint": at("/end_session"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        })
    }

    /// The page with a button a person, or with `person` the way back.
    fn authorize(&self, query: &HashMap<String, String>, now: Now) -> Answer {
        let get = |name: &str| query.get(name).map_or("", String::as_str);
        if get("client_id") != CLIENT_ID || get("redirect_uri") != self.redirect_uri {
            return plain(
                StatusCode::BAD_REQUEST,
                "development identity provider: unknown client or redirect_uri",
            );
        }
        if get("response_type") != "code"
            || get("code_challenge_method") != "S256"
            || get("code_challenge").is_empty()
        {
            return plain(
                StatusCode::BAD_REQUEST,
                "development identity provider: only the code flow with PKCE S256",
            );
        }
        let Some((person, _)) = PEOPLE.into_iter().find(|(name, _)| *name == get("person")) else {
            return choose(query);
        };
        let code = random();
        let entry = Code {
            person,
            nonce: query.get("nonce").cloned(),
            challenge: get("code_challenge").to_owned(),
            expires_at: now.wall + CODE_LIFETIME,
        };
        if let Ok(mut codes) = self.codes.lock() {
            codes.retain(|_, code| code.expires_at > now.wall);
            if codes.len() >= ENTRIES_MAX {
                return plain(StatusCode::TOO_MANY_REQUESTS, "too many sign-ins at a time");
            }
            codes.insert(code.clone(), entry);
        }
        let Ok(mut target) = Url::parse(&self.redirect_uri) else {
            return plain(StatusCode::BAD_REQUEST, "bad redirect_uri");
        };
        target.query_pairs_mut().append_pair("code", &code).append_pair("state", get("state"));
        found(&target)
    }

    fn token(&self, form: &HashMap<String, String>, authorization: Option<&str>, now: Now) -> Answer {
        let get = |name: &str| form.get(name).map_or("", String::as_str);
        let basic = format!("Basic {}", STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}")));
        let has_secret = authorization == Some(basic.as_str())
            || (get("client_id") == CLIENT_ID && get("client_secret") == CLIENT_SECRET);
        if !has_secret {
            return refuse("invalid_client");
        }
        if get("grant_type") != "authorization_code" {
            return refuse("unsupported_grant_type");
        }
        let code = self.codes.lock().ok().and_then(|mut codes| codes.remove(get("code")));
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, get("code_verifier").as_bytes()));
        let is_good = |code: &Code| code.expires_at > now.wall && code.challenge == challenge;
        let Some(code) = code.filter(is_good).filter(|_| get("redirect_uri") == self.redirect_uri) else {
            return refuse("invalid_grant");
        };
        let access_token = random();
        if let Ok(mut tokens) = self.tokens.lock() {
            if tokens.len() >= ENTRIES_MAX {
                tokens.clear();
            }
            tokens.insert(access_token.clone(), code.person);
        }
        let mut claims = claims_of(code.person);
        claims["iss"] = json!(self.issuer);
        claims["aud"] = json!(CLIENT_ID);
        claims["iat"] = json!(now.unix_seconds());
        claims["exp"] = json!(now.unix_seconds() + TOKEN_SECONDS);
        claims["nonce"] = json!(code.nonce);
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) };
        match jsonwebtoken::encode(&header, &claims, &self.signing) {
            Ok(id_token) => as_json(&json!({
                "access_token": access_token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS, "id_token": id_token,
            })),
            Err(_) => refuse("server_error"),
        }
    }

    fn user_info(&self, authorization: Option<&str>) -> Answer {
        let token = authorization.and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
        let person = self.tokens.lock().ok().and_then(|tokens| tokens.get(token).copied());
        person.map_or_else(
            || plain(StatusCode::UNAUTHORIZED, "no such token"),
            |person| as_json(&claims_of(person)),
        )
    }

    fn end_session(&self, query: &HashMap<String, String>) -> Answer {
        let target = query.get("post_logout_redirect_uri").and_then(|uri| Url::parse(uri).ok());
        let ours = Url::parse(&self.redirect_uri).ok();
        match (target, ours) {
            (Some(target), Some(ours)) if target.origin() == ours.origin() => found(&target),
            _ => plain(StatusCode::OK, "development identity provider: signed out"),
        }
    }
}

fn choose(query: &HashMap<String, String>) -> Answer {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; meta name="viewport" content="width=device-width"; title { "Development identity provider" } }
            body {
                p { strong { "Development identity provider, not for production." } " It asks for no password and listens on this machine only." }
                h1 { "Who are you?" }
                form method="get" action="/authorize" {
                    @for (name, value) in query { @if name != "person" { input type="hidden" name=(name) value=(value); } }
                    @for (name, email) in PEOPLE { p { button name="person" value=(name) { (name) " (" (email) ")" } } }
                }
            }
        }
    };
    let mut response = plain(StatusCode::OK, page.into_string());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn refuse(error: &str) -> Answer {
    let mut response = as_json(&json!({ "error": error }));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

fn claims_of(person: &str) -> Value {
    let email = PEOPLE.iter().find(|(name, _)| *name == person).map_or("", |(_, email)| *email);
    json!({ "sub": format!("dev-{person}"), "email": email, "email_verified": true, "name": person, "groups": ["everyone"] })
}

fn parameters(text: &str) -> HashMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn random() -> String {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).expect("the system's random source answers");
    URL_SAFE_NO_PAD.encode(bytes)
}

fn found(to: &Url) -> Answer {
    let mut response = plain(StatusCode::FOUND, "");
    if let Ok(location) = http::HeaderValue::from_str(to.as_str()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

fn as_json(value: &Value) -> Answer {
    let mut response = plain(StatusCode::OK, value.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
