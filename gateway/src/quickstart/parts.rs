//! What stands behind and beside the quickstart's gateway: an app, a TCP service, the development identity provider.

use std::{convert::Infallible, net::Ipv4Addr};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use maud::{DOCTYPE, html};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::dev_idp::DevIdp;

/// The loopback ports of the parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) identity_provider: u16,
    pub(super) app: u16,
    pub(super) service: u16,
}

/// Starts the parts on loopback ports of the system's choice.
pub(super) async fn start(
    gateway_port: u16,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Ports> {
    let (idp_listener, identity_provider) = bind().await?;
    let (app_listener, app) = bind().await?;
    let (service_listener, service) = bind().await?;
    let idp = DevIdp::new(identity_provider, gateway_port)?;
    tracker.spawn(stop.clone().run_until_cancelled_owned(idp.serve(idp_listener, tracker.clone())));
    tracker.spawn(stop.clone().run_until_cancelled_owned(serve_app(app_listener, tracker.clone())));
    tracker.spawn(stop.clone().run_until_cancelled_owned(serve_hello(service_listener, tracker.clone())));
    Ok(Ports { identity_provider, app, service })
}

async fn bind() -> anyhow::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen on loopback")?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// An internal web app that shows who it thinks you are.
async fn serve_app(listener: TcpListener, tracker: TaskTracker) {
    while let Ok((stream, _)) = listener.accept().await {
        tracker.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, Infallible>(app_page(request.headers()))
            });
            if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "the sample app's connection ended");
            }
        });
    }
}

fn app_page(headers: &HeaderMap) -> Response<Full<Bytes>> {
    let claims = headers
        .get("x-pomerium-jwt-assertion")
        .and_then(|value| value.to_str().ok())
        .and_then(|token| token.split('.').nth(1))
        .and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok())
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .unwrap_or_default();
    let email = claims.get("email").and_then(|v| v.as_str()).unwrap_or("nobody");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; meta name="viewport" content="width=device-width"; title { "Internal app" } }
            body {
                h1 { "Hello, " (email) }
                p { "This app listens on loopback only; the gateway brought you here and vouches for you. "
                    "A real app verifies the assertion with the keys at " code { "/.well-known/pomerium/jwks.json" } "; this one only shows it." }
                h2 { "The assertion's claims" }
                pre { (serde_json::to_string_pretty(&claims).unwrap_or_default()) }
                p { a href="/.pomerium/" { "Your session" } " · " a href="/.pomerium/sign_out" { "Sign out" } }
            }
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(page.into_string())));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// A TCP service that greets and repeats.
async fn serve_hello(listener: TcpListener, tracker: TaskTracker) {
    while let Ok((stream, _)) = listener.accept().await {
        tracker.spawn(async move {
            if let Err(error) = hello(stream).await {
                tracing::debug!(%error, "the hello service's connection ended");
            }
        });
    }
}

async fn hello(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"Hello from behind the gateway. What you type comes back.\n").await?;
    let mut buffer = [0; 4096];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..len]).await?;
    }
}
