//! Certificates that the gateway gets and renews by itself, from an authority that speaks ACME (RFC 8555).
//!
//! Here live which hosts need one (`hosts`) and when (`schedule`), the dialogue with the authority (`order`), and what the
//! authority is shown to prove that a host is ours (`challenges`). Which certificate a client gets is for the listeners.

mod challenges;
mod hosts;
mod order;
mod schedule;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pomerium_shared::clock::Now;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::schedule::Schedule;
pub(crate) use self::{
    challenges::{ALPN, Challenges},
    hosts::of as hosts_without_certificate,
};
use crate::{
    config::{Autocert, Certificate, Settings},
    secret::Secret,
    store::{Store, StoreError},
    x509::{CertificateParts, Validity},
};

/// Between two looks at what is due. A reload is seen as fast.
const INTERVAL: Duration = Duration::from_secs(5);

/// For one certificate, with all that the authority takes its time for.
const ORDER_TIMEOUT: Duration = Duration::from_secs(180);

/// No other gateway over the same store asks for the same certificate meanwhile.
const CLAIM: Duration = Duration::from_secs(240);

/// A certificate that was obtained, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    chain_pem: String,
    key_pem: String,
}

/// One that is in use.
#[derive(Debug)]
struct Held {
    certificate: Arc<Certificate>,
    validity: Validity,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AutocertError {
    /// The authority's server.
    #[error("the certificate authority")]
    Acme(#[from] instant_acme::Error),
    /// It wants a proof that this gateway cannot give.
    #[error("the certificate authority offers neither tls-alpn-01 nor http-01 for this host")]
    NoChallenge,
    /// It did not find what it looked for.
    #[error(
        "the certificate authority did not see this gateway at the host ({0:?}): its name must lead here, on port 443 (or 80)"
    )]
    NotProven(instant_acme::OrderStatus),
    /// It took too long.
    #[error("the certificate authority did not finish within 3 minutes")]
    TimedOut,
    /// A key or a certificate could not be made.
    #[error("a key could not be made")]
    Key(#[from] rcgen::Error),
    /// A key could not be used.
    #[error("a key for the proof could not be used")]
    ProofKey(#[source] rustls::Error),
    /// What came is no certificate for the key.
    #[error("the certificate authority sent what is no certificate")]
    Unreadable,
    /// No client for the authority.
    #[error("the authority's roots (autocert_trusted_ca) cannot be used")]
    Roots(#[source] rustls::Error),
    /// The account or the certificate cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps the certificates of all hosts fresh until `cancel`. `current` is asked each time, so that a reload counts; `show` gets
/// all certificates whenever one has changed.
pub(crate) async fn run(
    current: impl Fn() -> Arc<Settings>,
    store: Store,
    challenges: Arc<Challenges>,
    show: impl Fn(&[Arc<Certificate>]),
    cancel: CancellationToken,
) {
    let mut keeper = Keeper { store, challenges, held: BTreeMap::new(), schedule: Schedule::default() };
    let mut turn = tokio::time::interval(INTERVAL);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // An order that is dropped half-way leaves nothing behind but an order at the authority, which lapses.
        let changed = tokio::select! {
            () = cancel.cancelled() => return,
            changed = async { turn.tick().await; keeper.look(&current(), Now::read()).await } => changed,
        };
        if changed {
            let all: Vec<_> = keeper.held.values().map(|held| held.certificate.clone()).collect();
            show(&all);
        }
    }
}

/// What is held, and what was tried.
struct Keeper {
    store: Store,
    challenges: Arc<Challenges>,
    /// By host.
    held: BTreeMap<String, Held>,
    schedule: Schedule,
}

impl Keeper {
    /// Loads what was kept for new hosts, and gets one certificate that is due; whether what is held has changed.
    async fn look(&mut self, settings: &Settings, now: Now) -> bool {
        let Some(autocert) = &settings.autocert else {
            return !std::mem::take(&mut self.held).is_empty();
        };
        let hosts = hosts::of(settings);
        let before = self.held.len();
        self.held.retain(|host, _| hosts.contains(host));
        let mut has_changed = self.held.len() != before;
        for host in &hosts {
            if !self.held.contains_key(host)
                && let Some(held) = self.load(host).await
            {
                self.held.insert(host.clone(), held);
                has_changed = true;
            }
        }
        let validity = |host: &String| self.held.get(host).map(|held| held.validity);
        let wanted: BTreeMap<&str, _> = hosts.iter().map(|host| (host.as_str(), validity(host))).collect();
        let Some(host) = self.schedule.due(&wanted, now).map(str::to_owned) else { return has_changed };
        if let Some(held) = self.renew(autocert, settings, &host, now).await {
            self.held.insert(host, held);
            has_changed = true;
        }
        has_changed
    }

    /// Gets a certificate, says in the log how it went, and remembers it.
    async fn renew(
        &mut self,
        autocert: &Autocert,
        settings: &Settings,
        host: &str,
        now: Now,
    ) -> Option<Held> {
        match self.store.claim_once(&format!("certificate:{host}"), now.wall + CLAIM, now.wall).await {
            Ok(true) => {}
            Ok(false) => {
                // Another gateway is at it; what it gets is kept for all.
                self.schedule.wait(host, CLAIM, now);
                return None;
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "certificates cannot be renewed");
                return None;
            }
        }
        // Both kinds in turn. The authority comes to port 443 and 80: where we do not listen on 443 ourselves, 80 is the surer.
        let turn = self.schedule.failures(host) + u32::from(settings.address.port() != 443);
        let by_http =
            settings.http_redirect_addr.is_some_and(|address| address.port() == 80) && turn % 2 == 1;
        tracing::info!(host, "asking for a certificate");
        let order = order::obtain(&self.store, autocert, &self.challenges, host, by_http);
        let obtained = tokio::time::timeout(ORDER_TIMEOUT, order).await.map_err(|_| AutocertError::TimedOut);
        let held = match obtained.and_then(|result| result) {
            Ok(kept) => self.keep(host, &kept).await,
            Err(error) => Err(error),
        };
        match held {
            Ok(held) => {
                self.schedule.succeeded(host);
                tracing::info!(host, until = held.validity.not_after, "a certificate was obtained");
                Some(held)
            }
            Err(error) => {
                let again = self.schedule.failed(host, now);
                tracing::error!(
                    host,
                    error = &error as &dyn std::error::Error,
                    "again-seconds" = again.as_secs(),
                    "no certificate was obtained"
                );
                None
            }
        }
    }

    async fn keep(&self, host: &str, kept: &Kept) -> Result<Held, AutocertError> {
        let held = held(kept).ok_or(AutocertError::Unreadable)?;
        let text = Secret::new(serde_json::to_vec(kept).map_err(StoreError::Malformed)?);
        self.store.keep_secret(&name_of(host), text.expose()).await?;
        Ok(held)
    }

    /// What was kept of a host; damaged rows are as good as none.
    async fn load(&self, host: &str) -> Option<Held> {
        match self.store.kept_secret(&name_of(host)).await {
            Ok(kept) => held(&serde_json::from_slice(kept?.expose()).ok()?),
            Err(error) => {
                tracing::error!(
                    host,
                    error = &error as &dyn std::error::Error,
                    "a kept certificate cannot be read"
                );
                None
            }
        }
    }
}

fn name_of(host: &str) -> String {
    format!("certificate {host}")
}

/// Reads what was kept; `None` if it is no chain with a key.
fn held(kept: &Kept) -> Option<Held> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(kept.chain_pem.as_bytes()).collect::<Result<_, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(kept.key_pem.as_bytes()).ok()?;
    let validity = CertificateParts::of(chain.first()?)?.validity()?;
    Some(Held { certificate: Arc::new(Certificate { chain, key, staple: None }), validity })
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
