//! The development identity provider: signs in whoever clicks on a name. Not for production: it takes a loopback
//! listener and no other, and says on every page and in its log line what it is.
//!
//! Here live its endpoints and the key that it signs with; what it has given out is in [`grants`], what people see in
//! [`pages`].

mod grants;
mod pages;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Body, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::{SecretKey, elliptic_curve::sec1::ToSec1Point as _, pkcs8::DecodePrivateKey as _};
use pomerium_shared::clock::Now;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use self::grants::{Code, Grants, Person};
use super::loopback::LoopbackListener;
use crate::{portal, secret::Secret};

/// The one client that is registered.
pub(super) const CLIENT_ID: &str = "quickstart";

/// Names the key of this start.
const KEY_ID: &str = "development";

/// Seconds for which ID and access tokens are good.
const TOKEN_SECONDS: i64 = 3600;

/// Bytes of a posted form at most.
const FORM_LEN_MAX: usize = 16 * 1024;

/// For a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

type Answer = Response<Full<Bytes>>;
type Parameters = HashMap<String, String>;

/// The provider.
pub(super) struct DevIdp {
    port: u16,
    issuer: String,
    redirect_uri: String,
    client_secret: Secret<String>,
    signing: EncodingKey,
    jwks: Value,
    grants: Mutex<Grants>,
}

/// Why there is no provider.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevIdpError {
    /// No key was made.
    #[error("no key could be made")]
    Key(#[from] rcgen::Error),
    /// The key that was made is no key for signing tokens.
    #[error("the key cannot sign tokens")]
    Signing(#[from] jsonwebtoken::errors::Error),
    /// The key that was made has no public half.
    #[error("the key has no public half")]
    Public(#[from] p256::pkcs8::Error),
}

impl DevIdp {
    /// A provider on this loopback port, for one client that is sent back to exactly `redirect_uri`.
    pub(super) fn new(
        port: u16,
        redirect_uri: String,
        client_secret: Secret<String>,
    ) -> Result<Self, DevIdpError> {
        let pem = rcgen::KeyPair::generate()?.serialize_pem();
        let point = SecretKey::from_pkcs8_pem(&pem)?.public_key().to_sec1_point(false);
        let [x, y] =
            [&point.as_bytes()[1..33], &point.as_bytes()[33..65]].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let jwk = json!({ "kty": "EC", "use": "sig", "crv": "P-256", "alg": "ES256", "kid": KEY_ID, "x": x, "y": y });
        Ok(Self {
            port,
            issuer: format!("http://127.0.0.1:{port}"),
            redirect_uri,
            client_secret,
            signing: EncodingKey::from_ec_pem(pem.as_bytes())?,
            jwks: json!({ "keys": [jwk] }),
            grants: Mutex::default(),
        })
    }

    /// Serves until `stop`.
    pub(super) async fn serve(
        self,
        listener: LoopbackListener,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) {
        tracing::warn!(issuer = self.issuer, "development identity provider, not for production, is up");
        let this = Arc::new(self);
        while let Some(stream) = stop.run_until_cancelled(listener.accept()).await {
            let this = this.clone();
            let serving = async move {
                let service = service_fn(|request| {
                    let this = this.clone();
                    async move { Ok::<_, Infallible>(this.answer(request, Now::read()).await) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(%error, "a connection to the development identity provider ended");
                }
            };
            tracker.spawn(stop.clone().run_until_cancelled_owned(serving));
        }
    }

    async fn answer<B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>>(
        &self,
        request: Request<B>,
        now: Now,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        if !self.is_addressed(&parts) {
            return pages::refused(StatusCode::MISDIRECTED_REQUEST, "This address is not mine.");
        }
        let query = parameters(parts.uri.query().unwrap_or_default());
        match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/.well-known/openid-configuration") => as_json(StatusCode::OK, &self.metadata()),
            (&Method::GET, "/jwks") => as_json(StatusCode::OK, &self.jwks),
            (&Method::GET, "/style.css") => pages::with_type("text/css; charset=utf-8", portal::look::BASE),
            (&Method::GET, "/authorize") => self.authorize(&query, now),
            (&Method::POST, "/token") => match Limited::new(body, FORM_LEN_MAX).collect().await {
                Ok(form) => {
                    self.token(&parameters(&String::from_utf8_lossy(&form.to_bytes())), &parts.headers, now)
                }
                Err(_) => refuse("invalid_request"),
            },
            (&Method::GET, "/userinfo") => self.user_info(&parts.headers, now),
            (&Method::GET, "/end_session") => self.end_session(&query),
            _ => pages::refused(StatusCode::NOT_FOUND, "There is no such page."),
        }
    }

    /// Whether the request names this provider as its host: a page whose name was pointed at loopback does not.
    fn is_addressed(&self, parts: &request::Parts) -> bool {
        let host = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        host == format!("127.0.0.1:{}", self.port)
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
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "scopes_supported": ["openid", "profile", "email", "groups", "offline_access"],
            "claims_supported": ["sub", "email", "email_verified", "name", "groups"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        })
    }

    /// The page with a button a person, or, once one was chosen, the way back (RFC 6749, 4.1.1).
    fn authorize(&self, query: &Parameters, now: Now) -> Answer {
        // Nobody is sent to an address that was not registered, not even with an error.
        if value(query, "client_id") != CLIENT_ID || value(query, "redirect_uri") != self.redirect_uri {
            return pages::refused(
                StatusCode::BAD_REQUEST,
                "The client or its redirect_uri is not registered here.",
            );
        }
        let challenge = value(query, "code_challenge");
        let has_challenge = value(query, "code_challenge_method") == "S256" && !challenge.is_empty();
        if value(query, "response_type") != "code" || !has_challenge {
            return pages::refused(
                StatusCode::BAD_REQUEST,
                "Only the code flow with PKCE S256 is spoken here.",
            );
        }
        let Some(person) = Person::named(value(query, "person")) else {
            return pages::choose(query);
        };
        let code = Code { person, nonce: query.get("nonce").cloned(), challenge: challenge.to_owned() };
        let Some(code) = self.grants().issue_code(code, now.wall) else {
            return pages::refused(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many sign-ins are under way; try again in a minute.",
            );
        };
        self.back(&self.redirect_uri, &[("code", &code), ("state", value(query, "state"))])
    }

    fn token(&self, form: &Parameters, headers: &HeaderMap, now: Now) -> Answer {
        if !self.is_client(form, headers) {
            return as_json(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" }));
        }
        let (person, nonce) = match value(form, "grant_type") {
            "authorization_code" if value(form, "redirect_uri") == self.redirect_uri => {
                match self.grants().redeem_code(value(form, "code"), value(form, "code_verifier"), now.wall) {
                    Some(code) => (code.person, code.nonce),
                    None => return refuse("invalid_grant"),
                }
            }
            "authorization_code" => return refuse("invalid_grant"),
            "refresh_token" => match self.grants().redeem_refresh(value(form, "refresh_token"), now.wall) {
                Some(person) => (person, None),
                None => return refuse("invalid_grant"),
            },
            _ => return refuse("unsupported_grant_type"),
        };
        let Ok(id_token) = self.id_token(person, nonce.as_deref(), now) else {
            return as_json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": "server_error" }));
        };
        let Some((access_token, refresh_token)) = self.grants().issue_tokens(person, now.wall) else {
            return as_json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "temporarily_unavailable" }));
        };
        as_json(
            StatusCode::OK,
            &json!({
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_in": TOKEN_SECONDS,
                "refresh_token": refresh_token,
                "id_token": id_token,
            }),
        )
    }

    /// Whether the caller knows the client's secret: `client_secret_basic` or `client_secret_post`.
    fn is_client(&self, form: &Parameters, headers: &HeaderMap) -> bool {
        let secret = self.client_secret.expose();
        let is_equal = |ours: &str, theirs: &str| bool::from(ours.as_bytes().ct_eq(theirs.as_bytes()));
        match headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default()) {
            Some(basic) => {
                is_equal(&format!("Basic {}", STANDARD.encode(format!("{CLIENT_ID}:{secret}"))), basic)
            }
            None => value(form, "client_id") == CLIENT_ID && is_equal(secret, value(form, "client_secret")),
        }
    }

    fn id_token(
        &self,
        person: Person,
        nonce: Option<&str>,
        now: Now,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let mut claims = person.claims();
        claims["iss"] = json!(self.issuer);
        claims["aud"] = json!(CLIENT_ID);
        claims["iat"] = json!(now.unix_seconds());
        claims["exp"] = json!(now.unix_seconds() + TOKEN_SECONDS);
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.signing)
    }

    fn user_info(&self, headers: &HeaderMap, now: Now) -> Answer {
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
        match self.grants().person_of(token, now.wall) {
            Some(person) => as_json(StatusCode::OK, &person.claims()),
            None => as_json(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_token" })),
        }
    }

    /// Back to the gateway, never to another site (OpenID Connect RP-Initiated Logout 1.0, 3).
    fn end_session(&self, query: &Parameters) -> Answer {
        let after = query.get("post_logout_redirect_uri").and_then(|uri| Url::parse(uri).ok());
        let ours = Url::parse(&self.redirect_uri).ok();
        match (after, ours) {
            (Some(after), Some(ours)) if after.origin() == ours.origin() => match query.get("state") {
                Some(state) => self.back(after.as_str(), &[("state", state)]),
                None => self.back(after.as_str(), &[]),
            },
            (Some(_), _) => pages::refused(
                StatusCode::BAD_REQUEST,
                "The post_logout_redirect_uri is not registered here.",
            ),
            (None, _) => pages::signed_out(),
        }
    }

    fn back(&self, to: &str, pairs: &[(&str, &str)]) -> Answer {
        let location = Url::parse(to).ok().and_then(|mut url| {
            if !pairs.is_empty() {
                url.query_pairs_mut().extend_pairs(pairs);
            }
            HeaderValue::from_str(url.as_str()).ok()
        });
        let Some(location) = location else {
            return pages::refused(StatusCode::BAD_REQUEST, "There is no way back.");
        };
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert(header::LOCATION, location);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        // What a panic left behind is whole: each change is one call on a map.
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 32 random bytes as text.
pub(super) fn random() -> String {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).expect("the system's random source answers");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The parameters of a query or form; of a name that comes twice, the last.
fn parameters(text: &str) -> Parameters {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn value<'a>(of: &'a Parameters, name: &str) -> &'a str {
    of.get(name).map_or("", String::as_str)
}

/// An error of the token endpoint (RFC 6749, 5.2).
fn refuse(error: &str) -> Answer {
    as_json(StatusCode::BAD_REQUEST, &json!({ "error": error }))
}

fn as_json(status: StatusCode, document: &Value) -> Answer {
    let mut response = pages::with_type("application/json", document.to_string());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
