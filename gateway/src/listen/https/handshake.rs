//! The TLS handshake: what a client is asked for, and with which settings.

use std::{io, sync::Arc};

use arc_swap::ArcSwapOption;
use pomerium_shared::clock::Now;
use rustls::{ServerConfig, server::Acceptor};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::super::{TlsError, TlsKeys, client_certificate::Asked, device_key, tls::ClientKey};

/// The TLS settings: which of them a connection gets is decided by its first message.
pub(super) struct Tls {
    pub(super) keys: TlsKeys,
    alpn: &'static [&'static [u8]],
    /// For browsers and strangers, where no authority stands for clients' certificates.
    plain: Arc<ServerConfig>,
    /// For clients that say that they have a device key.
    asking: Arc<ServerConfig>,
    /// For browsers and strangers, where one does: made anew when others do.
    naming: ArcSwapOption<Naming>,
}

/// Settings that name the authorities from which a certificate is asked for.
struct Naming {
    asked: Arc<Asked>,
    config: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new(keys: &TlsKeys, alpn: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        Ok(Self {
            keys: keys.clone(),
            alpn,
            plain: Arc::new(keys.server_config(alpn, ClientKey::NotAsked)?),
            asking: Arc::new(keys.server_config(alpn, ClientKey::Welcome)?),
            naming: ArcSwapOption::empty(),
        })
    }

    /// `None` for a certificate authority that has seen what it asked for (RFC 8737).
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        if let Some(config) = self.keys.proof(&start.client_hello()) {
            start.into_stream(config.map_err(io::Error::other)?).await?;
            return Ok(None);
        }
        let has_key = device_key::is_offered(start.client_hello().alpn());
        let config = self.config(has_key).map_err(io::Error::other)?;
        let tls = start.into_stream(config).await?;
        // A resumed session brings the certificate of the one before, which was looked at in other times.
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        if self.keys.asked().admits(chain, Now::read().wall) {
            Ok(Some(tls))
        } else {
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the client's certificate is not valid any more",
            ))
        }
    }

    fn config(&self, has_key: bool) -> Result<Arc<ServerConfig>, TlsError> {
        let asked = self.keys.asked();
        if has_key {
            return Ok(self.asking.clone());
        } else if !asked.is_for_everybody() {
            return Ok(self.plain.clone());
        }
        if let Some(naming) = &*self.naming.load()
            && Arc::ptr_eq(&naming.asked, &asked)
        {
            return Ok(naming.config.clone());
        }
        let config = Arc::new(self.keys.server_config(self.alpn, ClientKey::From(asked.hints()))?);
        self.naming.store(Some(Arc::new(Naming { asked, config: config.clone() })));
        Ok(config)
    }
}
