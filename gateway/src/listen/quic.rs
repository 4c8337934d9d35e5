//! QUIC on UDP: HTTP/3 for browsers, and the tunnels of `pomerium-cli`, each stream a `CONNECT`.

mod answer;

use std::sync::Arc;

use pomerium_shared::{
    clock::Now,
    tunnel::{self, ServerConnection},
    udp::datagrams::Datagrams,
};
use rustls_pki_types::CertificateDer;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tracing::Instrument as _;

use self::answer::answer;
use super::{Lifetime, TlsError, TlsKeys, Waits, device_key, reset, tls::ClientKey};
use crate::{
    proxy::{Connection, Proxy, Roaming},
    secret::Secret,
};

/// Above so many connections a new one must prove its address first: a flood from forged ones takes no slots.
const UNPROVEN_MAX: usize = 500;

/// `H3_NO_ERROR` (RFC 9114, 8.1).
const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);

/// `H3_EXCESSIVE_LOAD` (RFC 9114, 8.1).
const H3_EXCESSIVE_LOAD: quinn::VarInt = quinn::VarInt::from_u32(0x107);

/// A connection, and its DATAGRAM frames.
#[derive(Clone)]
struct Quinn {
    connection: quinn::Connection,
    datagrams: Datagrams,
    /// Owns the streams that end with it.
    streams: TaskTracker,
    /// Owns those that can be resumed over another.
    resumable: TaskTracker,
    waits: Waits,
}

/// The UDP door.
#[derive(Debug)]
pub(crate) struct Quic {
    endpoint: quinn::Endpoint,
    keys: TlsKeys,
    proxy: Arc<Proxy>,
    lifetime: Lifetime,
}

/// Why the UDP door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuicDoorError {
    /// The certificates or TLS settings.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The QUIC settings.
    #[error(transparent)]
    Quic(#[from] pomerium_shared::quic::QuicError),
    /// The socket.
    #[error("cannot use the UDP socket")]
    Socket(#[from] std::io::Error),
}

impl Quic {
    /// Takes a bound socket; nothing is accepted before [`Quic::run`]. From the `shared` secret comes what a later process
    /// needs to tell the clients of this one that it is gone.
    pub(crate) fn new(
        socket: std::net::UdpSocket,
        keys: &TlsKeys,
        proxy: Arc<Proxy>,
        lifetime: Lifetime,
        shared: &Secret<[u8; 32]>,
    ) -> Result<Self, QuicDoorError> {
        let config = pomerium_shared::quic::server_config(keys.server_config(&[b"h3"], ClientKey::Welcome)?)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let identity = reset::endpoint_config(shared, &reset::host_name(), socket.local_addr()?);
        let endpoint = quinn::Endpoint::new(identity, Some(config), socket, runtime)?;
        Ok(Self { endpoint, keys: keys.clone(), proxy, lifetime })
    }

    /// Accepts connections until the lifetime drains, and refuses them from then on; the endpoint closes when it is cut.
    pub(crate) async fn run(self) {
        loop {
            let incoming = tokio::select! {
                biased;
                () = self.lifetime.drain.cancelled() => break,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            let open = self.endpoint.open_connections();
            if open >= super::CONNECTIONS_MAX {
                incoming.refuse();
                continue;
            }
            if open >= UNPROVEN_MAX && incoming.may_retry() && !incoming.remote_address_validated() {
                // The client must show that it gets what is sent to its address (RFC 9000, 8.1.2).
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%error, "no Retry");
                }
                continue;
            }
            let (keys, proxy, lifetime) = (self.keys.clone(), self.proxy.clone(), self.lifetime.clone());
            let peer = incoming.remote_address();
            self.lifetime.doors.spawn(
                async move { serve(incoming, keys, proxy, lifetime).await }
                    .instrument(tracing::debug_span!("quic", %peer)),
            );
        }
        self.refuse_until_cut().await;
        self.endpoint.close(0_u32.into(), b"the gateway is stopping");
        self.endpoint.wait_idle().await;
    }

    /// Whoever comes while others finish is to try elsewhere at once, rather than to wait for an answer.
    async fn refuse_until_cut(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.lifetime.cut.cancelled() => return,
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => incoming.refuse(),
                    None => return,
                },
            }
        }
    }
}

async fn serve(incoming: quinn::Incoming, keys: TlsKeys, proxy: Arc<Proxy>, lifetime: Lifetime) {
    let waited_for = lifetime.tracker.token();
    let peer = incoming.remote_address().ip();
    // Who has not proven their address may bear somebody else's, who must not lose places by it.
    let is_proven = incoming.remote_address_validated();
    let mut place = is_proven.then(|| proxy.place(peer)).flatten();
    if is_proven && place.is_none() {
        incoming.refuse();
        return tracing::debug!("QUIC connection refused: too many from there");
    }
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return tracing::debug!(%error, "QUIC connection refused"),
    };
    let quic = match tokio::time::timeout(lifetime.waits.handshake, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "QUIC handshake failed"),
        Err(_) => return tracing::debug!("QUIC handshake timed out"),
    };
    place = place.or_else(|| proxy.place(peer));
    if place.is_none() {
        quic.close(H3_EXCESSIVE_LOAD, b"too many connections from this address");
        return tracing::debug!("QUIC connection refused: too many from there");
    }
    let chain = certificates(&quic);
    // A resumed session brings the certificate of the one before, which was looked at in other times.
    if !keys.asked().admits(&chain, Now::read().wall) {
        quic.close(NO_ERROR, b"the client's certificate is not valid any more");
        return tracing::debug!("QUIC connection refused: the client's certificate is not valid any more");
    }
    let facts = Connection {
        peer: quic.remote_address(),
        server_name: server_name(&quic),
        protocol: "h3",
        proven: device_key::proven(Some(&chain)),
        roaming: Some(roaming(&quic)),
    };
    tracing::info!(peer = %facts.peer, "quic connection opened");
    let mut connection =
        match tokio::time::timeout(lifetime.waits.handshake, tunnel::accept(quic.clone())).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::debug!(%error, "HTTP/3 did not begin"),
            // A client that grants no room for our settings.
            Err(_) => return tracing::debug!("HTTP/3 did not begin in time"),
        };
    let (streams, resumable) = (TaskTracker::new(), TaskTracker::new());
    let datagrams = Datagrams::new(quic.clone());
    let waits = lifetime.waits;
    let carrier = Quinn { connection: quic.clone(), datagrams, streams, resumable, waits };
    let accepting = accept_streams(&mut connection, &carrier, &facts, &proxy, &lifetime, waited_for);
    tokio::select! {
        () = accepting => {}
        // Ends with the connection.
        () = carrier.datagrams.run() => {}
    }
    // No error: the gateway has said goodbye, or the client is gone already.
    quic.close(NO_ERROR, b"");
    for streams in [carrier.streams, carrier.resumable] {
        streams.close();
        streams.wait().await;
    }
    tracing::info!(peer = %facts.peer, "quic connection closed");
}

/// The server name of the TLS handshake.
fn server_name(quic: &quinn::Connection) -> Option<String> {
    let data = quic.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    data.server_name.map(|name| name.to_ascii_lowercase())
}

/// Follows the client from address to address.
fn roaming(quic: &quinn::Connection) -> Roaming {
    let quic = quic.clone();
    Roaming(Arc::new(move || quic.remote_address()))
}

/// What the client showed in the handshake.
fn certificates(quic: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let chain = quic.peer_identity().and_then(|identity| identity.downcast::<Vec<_>>().ok());
    chain.map(|chain| *chain).unwrap_or_default()
}

/// Takes requests until the connection ends. When the gateway drains it says goodbye (GOAWAY), and this returns with
/// the last stream. Those that can be resumed are no reason to wait for the connection.
async fn accept_streams(
    connection: &mut ServerConnection,
    quic: &Quinn,
    facts: &Connection,
    proxy: &Arc<Proxy>,
    lifetime: &Lifetime,
    waited_for: TaskTrackerToken,
) {
    let Quinn { streams, resumable, .. } = quic;
    let (mut said_goodbye, mut waited_for) = (false, Some(waited_for));
    loop {
        let accepted = tokio::select! {
            biased;
            () = lifetime.cut.cancelled() => return,
            () = lifetime.drain.cancelled(), if !said_goodbye => {
                said_goodbye = true;
                if let Err(error) = connection.shutdown(0).await {
                    tracing::debug!(%error, "no GOAWAY");
                }
                streams.close();
                continue;
            }
            // A closed tracker takes tasks as before, and ends its wait when it holds none.
            () = streams.wait(), if waited_for.is_some() => {
                waited_for = None;
                resumable.close();
                continue;
            }
            () = resumable.wait(), if waited_for.is_none() => return,
            accepted = connection.accept() => accepted,
        };
        let coming = match accepted {
            Ok(Some(coming)) => coming,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "QUIC connection ended"),
        };
        // The address may have changed since the handshake: connections migrate.
        let facts = Connection { peer: quic.connection.remote_address(), ..facts.clone() };
        let (proxy, quic) = (proxy.clone(), quic.clone());
        streams.spawn(async move {
            match tokio::time::timeout(quic.waits.header, tunnel::request(coming)).await {
                Ok(Ok((request, stream))) => answer(request, stream, &quic, &facts, &proxy).await,
                Ok(Err(error)) => tracing::debug!(%error, "a malformed HTTP/3 request"),
                Err(_) => tracing::debug!("an HTTP/3 request did not come in time"),
            }
        });
    }
}
