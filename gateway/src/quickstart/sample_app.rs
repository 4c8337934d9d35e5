//! An internal web app that shows who it thinks you are, and why it believes that: it verifies the gateway's assertion
//! as a real app should.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use maud::{DOCTYPE, Markup, html};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Map, Value};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{loopback::LoopbackListener, parts::APP_HOST};

/// Where the gateway puts what it vouches for.
const ASSERTION_HEADER: &str = "x-pomerium-jwt-assertion";

/// For a request's head to arrive, and for the gateway's keys.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the gateway's keys at most.
const KEYS_LEN_MAX: usize = 64 * 1024;

/// Serves until `stop`.
pub(super) async fn serve(
    listener: LoopbackListener,
    keys: AssertionKeys,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    let keys = Arc::new(keys);
    while let Some(stream) = stop.run_until_cancelled(listener.accept()).await {
        let keys = keys.clone();
        let serving = async move {
            let service = service_fn(|request: Request<Incoming>| {
                let keys = keys.clone();
                async move {
                    let person = keys.verify(request.headers()).await;
                    Ok::<_, Infallible>(respond(&page(request.uri().path(), request.headers(), &person)))
                }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(TIMEOUT);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection to the sample app ended");
            }
        };
        tracker.spawn(stop.clone().run_until_cancelled_owned(serving));
    }
}

/// The claims of somebody for whom the gateway vouches.
type Claims = Map<String, Value>;

/// Why the app believes nobody.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("the request came without an assertion")]
    Missing,
    #[error("the gateway's keys could not be read")]
    NoKeys,
    #[error("the assertion was not signed by the gateway, is not for this app, or has expired")]
    NotValid,
}

/// The keys that the gateway publishes.
#[derive(Debug)]
pub(super) struct AssertionKeys {
    url: String,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl AssertionKeys {
    /// Keys of the gateway on this port of this machine, which shows a certificate of this authority.
    pub(super) fn new(gateway_port: u16, ca_file: &Path) -> Result<Self, rustls_pki_types::pem::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates([CertificateDer::from_pem_file(ca_file)?]);
        let tls = pomerium_shared::tls::client_config(roots, &[]);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Ok(Self {
            url: format!("https://127.0.0.1:{gateway_port}/.well-known/pomerium/jwks.json"),
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Who the gateway says is asking. The keys are read each time: this app is for looking at, not for load.
    async fn verify(&self, headers: &HeaderMap) -> Result<Claims, Unknown> {
        let token =
            headers.get(ASSERTION_HEADER).and_then(|value| value.to_str().ok()).ok_or(Unknown::Missing)?;
        let keys = tokio::time::timeout(TIMEOUT, self.read()).await.ok().flatten().ok_or(Unknown::NoKeys)?;
        verify(token, &keys).ok_or(Unknown::NotValid)
    }

    async fn read(&self) -> Option<JwkSet> {
        let response = self.client.get(self.url.parse().ok()?).await.ok()?;
        let body = Limited::new(response.into_body(), KEYS_LEN_MAX).collect().await.ok()?;
        serde_json::from_slice(&body.to_bytes()).ok()
    }
}

/// The claims of a token that one of `keys` signed for this app.
fn verify(token: &str, keys: &JwkSet) -> Option<Claims> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    let key = DecodingKey::from_jwk(keys.find(&header.kid?)?).ok()?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[APP_HOST]);
    validation.set_issuer(&[APP_HOST]);
    validation.set_required_spec_claims(&["exp", "aud", "iss"]);
    Some(jsonwebtoken::decode::<Claims>(token, &key, &validation).ok()?.claims)
}

fn page(path: &str, headers: &HeaderMap, person: &Result<Claims, Unknown>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Internal app" }
            }
            body {
                @match person {
                    Ok(claims) => {
                        h1 { "Hello, " (text(claims, "email")) }
                        p { "This app listens on loopback only. The gateway brought you here and vouches for you, and the app has "
                            strong { "verified" } " its signature with the keys at " code { "/.well-known/pomerium/jwks.json" } "." }
                        h2 { "What the gateway says of you" }
                        dl { @for (name, value) in claims { dt { code { (name) } } dd { (shown(value)) } } }
                    }
                    Err(why) => {
                        h1 { "Hello, stranger" }
                        p { "This app does not know who you are: " (why) "." }
                    }
                }
                h2 { "The request as it arrived" }
                p { code { (path) } }
                dl { @for (name, value) in headers { dt { code { (name) } } dd { (String::from_utf8_lossy(value.as_bytes())) } } }
                p { a href="/.pomerium/" { "Your session" } " · " a href="/.pomerium/sign_out" { "Sign out" } }
            }
        }
    }
}

fn text<'a>(claims: &'a Claims, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn respond(page: &Markup) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page.0.clone())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // The page is about one person: no cache may show it to the next.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

#[cfg(test)]
mod tests;
