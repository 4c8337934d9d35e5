//! The secrets of an installation, and a configuration brought to life with them.

use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use pomerium_shared::wireguard::PrivateKey;

use crate::{
    authenticate::{Authenticate, AuthenticateConfig},
    config::{HostPattern, RouteFrom, Settings},
    proxy::Live,
    secret::Secret,
    store::Store,
    wireguard_peer::PeerTerms,
};

/// The secrets that outlive a reload.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    shared: Secret<[u8; 32]>,
    cookie: Secret<[u8; 32]>,
    /// `None` where WireGuard apps cannot come in.
    wireguard: Option<Secret<PrivateKey>>,
}

impl Secrets {
    /// What services prove themselves to each other with, among other things.
    pub(crate) fn shared(&self) -> Secret<[u8; 32]> {
        self.shared.clone()
    }

    /// What the gateway is in WireGuard handshakes; it is the same for as long as the process runs.
    pub(crate) const fn wireguard(&self) -> Option<&Secret<PrivateKey>> {
        self.wireguard.as_ref()
    }
}

/// The configured secrets, or those that the store made once and keeps.
pub(crate) async fn secrets(settings: &Settings, store: &Store) -> anyhow::Result<Secrets> {
    Ok(Secrets {
        shared: configured_or_kept(settings.shared_secret.as_ref(), store, "shared_secret").await?,
        cookie: configured_or_kept(settings.cookie_secret.as_ref(), store, "cookie_secret").await?,
        wireguard: wireguard_key(settings, store).await?,
    })
}

async fn wireguard_key(settings: &Settings, store: &Store) -> anyhow::Result<Option<Secret<PrivateKey>>> {
    let Some(wireguard) = &settings.wireguard else { return Ok(None) };
    if let Some(configured) = &wireguard.private_key {
        return Ok(Some(configured.clone()));
    }
    let kept = configured_or_kept(None, store, "wireguard_private_key").await?;
    Ok(Some(Secret::new(PrivateKey::from_random(*kept.expose()))))
}

async fn configured_or_kept(
    configured: Option<&Secret<[u8; 32]>>,
    store: &Store,
    name: &str,
) -> anyhow::Result<Secret<[u8; 32]>> {
    if let Some(secret) = configured {
        return Ok(secret.clone());
    }
    let kept = store.named_key(name, random_key).await.with_context(|| format!("cannot make {name}"))?;
    let bytes = kept.expose().as_slice().try_into();
    Ok(Secret::new(bytes.with_context(|| format!("the kept {name} is damaged"))?))
}

fn random_key() -> Vec<u8> {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).expect("the system's random source answers");
    key.to_vec()
}

/// Builds the services of a configuration.
pub(crate) fn live(settings: Arc<Settings>, secrets: &Secrets, store: &Store) -> anyhow::Result<Live> {
    let (ours, named) = (settings.clone(), settings.clone());
    let config = AuthenticateConfig {
        authenticate_url: settings.authenticate_url.clone(),
        signout_redirect_url: settings.signout_redirect_url.clone(),
        programmatic_redirect_domains: settings.programmatic_redirect_domains.clone(),
        cookie: settings.cookie.clone(),
        identity_provider: settings.identity_provider.clone(),
        unreachable_grace: settings.longest_unreachable_grace(),
        workload_issuers: settings.workload_issuers.clone(),
        device_proof_life: settings.device_proof_life,
        peer_terms: peer_terms(&settings, secrets),
        look: settings.look.clone(),
        extra_roots: Vec::new(),
        shared_secret: secrets.shared.clone(),
        cookie_secret: secrets.cookie.clone(),
        is_our_host: Arc::new(move |host| is_our_host(&ours, host)),
        is_named_host: Arc::new(move |host| is_named_host(&named, host)),
    };
    let authenticate = Arc::new(Authenticate::new(config, store.clone())?);
    Live::new(settings, secrets.shared.expose(), authenticate)
        .context("the configuration cannot be put to work")
}

/// `None` where WireGuard is off, or was when the process began: then nobody listens.
fn peer_terms(settings: &Settings, secrets: &Secrets) -> Option<PeerTerms> {
    let (wireguard, key) = (settings.wireguard.as_ref()?, secrets.wireguard()?);
    Some(PeerTerms {
        networks: wireguard.networks,
        endpoint: wireguard.endpoint.clone(),
        gateway_public_key: key.expose().public_key(),
        other_dns: wireguard.other_dns.clone(),
        peers_per_user: wireguard.peers_per_user,
        session_grace: wireguard.session_grace,
    })
}

/// Whether people may be sent to `host` with a session: hosts that are named, and those that a wildcard matches.
fn is_our_host(settings: &Settings, host: &str) -> bool {
    let matches = settings.routes.iter().any(|route| match &route.from {
        RouteFrom::Http { host: HostPattern::Wildcard(pattern), .. } => pattern.is_match(host),
        RouteFrom::Http { host: HostPattern::Exact(_), .. }
        | RouteFrom::Tcp { .. }
        | RouteFrom::Udp { .. } => false,
    });
    matches || is_named_host(settings, host)
}

/// Whether the configuration names `host`: the sign-in host, the hosts of HTTP routes, and `localhost` where the gateway
/// itself listens on loopback.
fn is_named_host(settings: &Settings, host: &str) -> bool {
    let is_route = settings.routes.iter().any(|route| match &route.from {
        RouteFrom::Http { host: HostPattern::Exact(name), .. } => name == host,
        RouteFrom::Http { host: HostPattern::Wildcard(_), .. }
        | RouteFrom::Tcp { .. }
        | RouteFrom::Udp { .. } => false,
    });
    is_route
        || settings.authenticate_url.host_str() == Some(host)
        || (host == "localhost" && settings.address.ip().is_loopback())
}
