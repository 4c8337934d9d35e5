//! Reads the configuration again when its files change or SIGHUP asks for it; a broken one changes nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Source,
    keys::{self, Secrets},
};
use crate::{config::Settings, listen::TlsKeys, proxy::Proxy, store::Store};

/// Between looks at the files.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Keeps a running gateway in step with its configuration file.
#[derive(Debug)]
pub(crate) struct Reloader {
    source: Source,
    watched: Vec<PathBuf>,
    proxy: Arc<Proxy>,
    tls_keys: TlsKeys,
    store: Store,
    secrets: Secrets,
}

impl Reloader {
    pub(crate) fn new(
        source: Source,
        watched: Vec<PathBuf>,
        proxy: Arc<Proxy>,
        tls_keys: TlsKeys,
        store: Store,
        secrets: Secrets,
    ) -> Self {
        Self { source, watched, proxy, tls_keys, store, secrets }
    }

    /// Reloads for as long as it is polled; never returns.
    pub(crate) async fn run(mut self) {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::warn!(%error, "cannot wait for SIGHUP: the configuration is not reloaded");
                return std::future::pending().await;
            }
        };
        let mut seen = self.stamp();
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(POLL_INTERVAL) => false,
            };
            let stamp = self.stamp();
            if asked || stamp != seen {
                seen = stamp;
                self.reload();
            }
        }
    }

    /// What tells one state of the files from another.
    fn stamp(&self) -> Vec<Option<(SystemTime, u64)>> {
        let of = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        std::iter::once(of(&self.source.file)).chain(self.watched.iter().map(|path| of(path))).collect()
    }

    fn reload(&mut self) {
        let loaded = match self.source.load() {
            Ok(loaded) => loaded,
            Err(errors) => {
                return tracing::error!(%errors, "the configuration was not reloaded: the old one stays");
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "configuration");
        }
        let settings = Arc::new(loaded.settings);
        let live = match keys::live(settings.clone(), &self.secrets, &self.store) {
            Ok(live) => live,
            Err(error) => {
                return tracing::error!(error = %format!("{error:#}"), "the configuration was not reloaded: the old one stays");
            }
        };
        if let Err(error) = self.tls_keys.replace(&settings) {
            return tracing::error!(%error, "the configuration was not reloaded: the old one stays");
        }
        for key in bound_at_start(&self.proxy.settings(), &settings) {
            tracing::warn!(key, "this key takes effect with the next start");
        }
        self.proxy.replace(live);
        self.watched = loaded.files;
        tracing::info!(routes = settings.routes.len(), "configuration reloaded");
    }
}

/// The keys that differ and are of what was opened at the start: sockets, and the store.
fn bound_at_start(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let address = |settings: &Settings| settings.forward_auth.as_ref().map(|door| door.address);
    let wireguard = |settings: &Settings| settings.wireguard.as_ref().map(|door| door.address);
    let networks = |settings: &Settings| settings.wireguard.as_ref().map(|door| door.networks);
    let key = |settings: &Settings| settings.wireguard.as_ref().map(|door| door.private_key.clone());
    [
        ("address", old.address != new.address),
        ("http_redirect_addr", old.http_redirect_addr != new.http_redirect_addr),
        ("use_proxy_protocol", old.use_proxy_protocol != new.use_proxy_protocol),
        ("codec_type", old.codec != new.codec),
        ("services", old.services != new.services),
        ("databroker_storage_type", old.storage != new.storage),
        ("grpc_address", old.grpc != new.grpc),
        ("forward_auth_address", address(old) != address(new)),
        ("wireguard_address", wireguard(old) != wireguard(new)),
        ("wireguard_addresses", networks(old) != networks(new)),
        ("wireguard_private_key", key(old) != key(new)),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}
