//! Keeps what issuers say of the gateway's certificates fresh (OCSP, RFC 6960), where they name somebody to ask.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use http::{Request, StatusCode, header};
use pomerium_shared::clock::Now;
use rustls_pki_types::CertificateDer;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{TlsKeys, shown::Shown};
use crate::{
    https_client::{HttpsClient, SendError},
    ocsp::{self, OcspError, Staple},
};

/// Between looks.
const INTERVAL: Duration = Duration::from_secs(10);
/// The first wait after a failure; doubles with each further one.
const BACK_OFF_MIN: Duration = Duration::from_secs(60);
/// The longest wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(6 * 3600);

/// Why there is no staple.
#[derive(Debug, thiserror::Error)]
enum StapleError {
    #[error("the responder cannot be asked")]
    Url(#[from] http::Error),
    #[error("the responder does not answer")]
    Send(#[from] SendError),
    #[error("the responder answered {0}")]
    Status(StatusCode),
    #[error("what the responder answered cannot be shown")]
    Answer(#[from] OcspError),
    #[error("what the responder answered does not hold now")]
    Stale,
}

/// Failures in a row, and until when nobody is asked, by certificate.
type Waits = HashMap<CertificateDer<'static>, (u32, Instant)>;

/// Asks for as long as the gateway takes connections. Nothing waits for an answer: without one, certificates are shown alone.
pub(crate) async fn run(keys: TlsKeys, cancel: CancellationToken) {
    let client = match HttpsClient::new(&[]) {
        Ok(client) => client,
        Err(error) => return tracing::error!(%error, "nobody can be asked about certificates (OCSP)"),
    };
    let (mut waits, mut turn) = (Waits::new(), tokio::time::interval(INTERVAL));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = async { turn.tick().await; look(&keys, &client, &mut waits).await } => {}
        }
    }
}

async fn look(keys: &TlsKeys, client: &HttpsClient, waits: &mut Waits) {
    let all = keys.all();
    waits.retain(|leaf, _| all.iter().any(|shown| shown.chain().first() == Some(leaf)));
    for shown in all {
        let now = Now::read();
        if shown.is_over(now.wall) {
            tracing::warn!("what an issuer said of a certificate (OCSP) holds no longer: it is shown alone");
        }
        let (Some((url, question)), Some(leaf)) = (shown.question(now.wall), shown.chain().first()) else {
            continue;
        };
        if waits.get(leaf).is_some_and(|(_, until)| now.monotonic < *until) {
            continue;
        }
        match ask(client, &url, question, &shown).await {
            Ok(staple) => {
                shown.staple(&staple);
                waits.remove(leaf);
                tracing::info!(
                    responder = url,
                    until = staple.validity.not_after,
                    "the issuer stands by a certificate"
                );
            }
            Err(error) => {
                let failures = waits.get(leaf).map_or(0, |(failures, _)| *failures);
                let pause = BACK_OFF_MIN.saturating_mul(1 << failures.min(16)).min(BACK_OFF_MAX);
                waits.insert(leaf.clone(), (failures.saturating_add(1), now.monotonic + pause));
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    responder = url,
                    error,
                    "again-seconds" = pause.as_secs(),
                    "nothing to show beside a certificate (OCSP)"
                );
            }
        }
    }
}

async fn ask(
    client: &HttpsClient,
    url: &str,
    question: Vec<u8>,
    shown: &Shown,
) -> Result<Staple, StapleError> {
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/ocsp-request")
        .header(header::ACCEPT, "application/ocsp-response")
        .body(question)?;
    let answer = client.send_in_the_open(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(StapleError::Status(answer.status()));
    }
    let staple = ocsp::read(answer.body(), shown.chain())?;
    let now = Now::read().wall.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    if staple.validity.contains(now.as_secs()) { Ok(staple) } else { Err(StapleError::Stale) }
}
