//! Dials a gateway by QUIC: all its addresses, a quarter of a second apart, and the first that answers wins (as RFC
//! 8305 does for TCP).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use pomerium_shared::tunnel::{TunnelClient, TunnelError};
use tokio::{
    net::lookup_host,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{LinkError, path, ways::Way};
use crate::gateway::Gateway;

/// How long one address may take to answer, and the resolver as well.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The head start of each address over the next.
pub(super) const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses tried at most.
pub(super) const ADDRESSES_MAX: usize = 16;
/// H3_NO_ERROR (RFC 9114, 8.1).
const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);

/// A connection that was made.
#[derive(Debug)]
pub(super) struct Dialled {
    endpoint: quinn::Endpoint,
    tunnel: TunnelClient,
    doubt: watch::Receiver<bool>,
}

impl Dialled {
    /// A connection, whose path is watched from now on by a task of the tracker.
    async fn new(
        endpoint: quinn::Endpoint,
        connection: quinn::Connection,
        tracker: &TaskTracker,
    ) -> Result<Self, TunnelError> {
        let tunnel = TunnelClient::handshake(connection, tracker).await?;
        let (tell, doubt) = watch::channel(false);
        tracker.spawn(path::keep(endpoint.clone(), tunnel.quic().clone(), tell));
        Ok(Self { endpoint, tunnel, doubt })
    }

    /// Whether it takes new streams.
    pub(super) fn is_open(&self) -> bool {
        self.tunnel.is_open()
    }

    /// Whether the gateway has been silent for too long.
    pub(super) fn is_doubtful(&self) -> bool {
        *self.doubt.borrow()
    }

    pub(super) fn doubt(&self) -> watch::Receiver<bool> {
        self.doubt.clone()
    }

    pub(super) fn way(&self) -> Way {
        Way::Http3(self.tunnel(), self.doubt())
    }

    pub(super) fn tunnel(&self) -> TunnelClient {
        self.tunnel.clone()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.tunnel.quic().remote_address()
    }

    /// Closes it and waits until the peer must have heard.
    pub(super) async fn close(self) {
        self.tunnel.quic().close(NO_ERROR, b"");
        self.endpoint.wait_idle().await;
    }
}

/// The gateway's addresses, asked for anew each time: it may have moved.
pub(super) async fn resolve(gateway: &Gateway) -> Result<Vec<SocketAddr>, LinkError> {
    let failed =
        |source: io::Error| LinkError::Resolve { gateway: gateway.clone(), source: Arc::new(source) };
    let found = timeout(CONNECT_TIMEOUT, lookup_host((gateway.host(), gateway.port())))
        .await
        .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.take(ADDRESSES_MAX) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(addresses)
}

/// Dials all addresses; the error is the one that says most.
pub(super) async fn quic(
    gateway: Gateway,
    config: quinn::ClientConfig,
    tracker: TaskTracker,
) -> Result<Dialled, LinkError> {
    let mut attempts = JoinSet::new();
    let mut delay = Duration::ZERO;
    for address in resolve(&gateway).await? {
        let (gateway, config) = (gateway.clone(), config.clone());
        attempts.spawn(async move {
            sleep(delay).await;
            one(&gateway, config, address).await
        });
        delay += HEAD_START;
    }
    let mut told = LinkError::NoAnswer { gateway: gateway.clone() };
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok((endpoint, connection))) => {
                let dialled = Dialled::new(endpoint, connection, &tracker).await;
                return dialled.map_err(|source| LinkError::Lost {
                    gateway: gateway.clone(),
                    source: Arc::new(source),
                });
            }
            Ok(Err(error)) => {
                // A certificate that is not believed is worth more to the person than a dead address beside it.
                if !matches!(told, LinkError::Untrusted { .. }) {
                    told = error;
                }
            }
            Err(panicked) => tracing::error!(error = %panicked, "dialling failed by our own fault"),
        }
    }
    Err(told)
}

async fn one(
    gateway: &Gateway,
    config: quinn::ClientConfig,
    address: SocketAddr,
) -> Result<(quinn::Endpoint, quinn::Connection), LinkError> {
    let endpoint = pomerium_shared::quic::bind(path::any_for(address))
        .and_then(|socket| {
            let runtime = Arc::new(quinn::TokioRuntime);
            quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)
        })
        .map_err(|source| LinkError::Socket { gateway: gateway.clone(), source: Arc::new(source) })?;
    let connecting = endpoint
        .connect_with(config, address, gateway.host())
        .map_err(|_| LinkError::BadName { gateway: gateway.clone() })?;
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Err(_) => Err(LinkError::NoAnswer { gateway: gateway.clone() }),
        Ok(Err(source)) if is_about_trust(&source) => {
            Err(LinkError::Untrusted { gateway: gateway.clone(), source: Arc::new(source) })
        }
        Ok(Err(source)) => Err(LinkError::Quic { gateway: gateway.clone(), source }),
        Ok(Ok(connection)) => Ok((endpoint, connection)),
    }
}

/// Whether our own verification refused the certificate: then QUIC carries one of TLS's certificate alerts
/// (RFC 9001, 4.8; RFC 8446, 6.2). A signature that is wrong is one: somebody took the name of the authority.
fn is_about_trust(error: &quinn::ConnectionError) -> bool {
    match error {
        quinn::ConnectionError::TransportError(error) => {
            matches!(u64::from(error.code), 0x12a..=0x12e | 0x130 | 0x133 | 0x171)
        }
        _ => false,
    }
}
