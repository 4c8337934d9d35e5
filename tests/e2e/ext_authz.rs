//! Envoy's authorization protocol, asked with messages from Envoy's published proto files.

use std::{sync::Arc, time::SystemTime};

use http::header;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::json;
use support::{
    app::App,
    authority::Authority,
    envoy::{Answer, Envoy, question},
    form::Form,
    gateway::{Gateway, Route, SHARED_SECRET},
    person::Person,
    port, token,
};

struct Parts {
    _app: App,
    gateway: Gateway,
    port: u16,
}

impl Parts {
    async fn start(more: &str) -> anyhow::Result<Self> {
        let app = App::start().await?;
        let port = port::reserve()?;
        let routes = [Route::web("app.localhost", app.address)];
        let more = format!("grpc_address: 127.0.0.1:{port}\n{more}");
        let gateway = Box::pin(Gateway::start_behind(port::reserve()?, &routes, &more)).await?;
        Ok(Self { _app: app, gateway, port })
    }
}

/// Seconds since 1970 in a minute's time.
fn soon() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 60
}

fn service_token() -> String {
    token::signed(&json!({ "exp": soon() }), &SHARED_SECRET)
}
