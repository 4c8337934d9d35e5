//! The one connection to a gateway that everything shares, made again when it is lost.
//!
//! HTTP/3 over QUIC; where UDP does not get through, HTTP/1.1 over TLS with a connection for each request
//! ([`http1`]). What an answer means is decided in [`answer`], when to dial again in [`backoff`]; who the person is
//! and what they may do is not known here.

pub(crate) mod answer;
pub(crate) mod backoff;
mod dial;
mod http1;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header::CONTENT_TYPE};
use pomerium_shared::{
    clock::Now,
    destination::Destination,
    quic::QuicError,
    tls::DEVICE_KEY_MARK,
    tunnel::{Connected, TunnelClient, TunnelError},
    udp::Carriage,
};
use tokio::{sync::Mutex, time::timeout};
use tokio_util::task::TaskTracker;

use self::{dial::Dialled, http1::Http1};
use crate::{device::key::DeviceKey, gateway::Gateway, trust::Trust};

/// Bytes of an answer's body at most: a long list of routes has room.
const BODY_LEN_MAX: usize = 4 * 1024 * 1024;
/// How long an ordinary request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the gateway may take to reach the app and answer a `CONNECT`.
const CONNECT_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long HTTP/1.1 serves before UDP is tried again.
const UDP_AGAIN_AFTER: Duration = Duration::from_secs(120);
/// How long closing may take until the gateway has heard of it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the gateway was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// Its name has no address.
    #[error("the name of {gateway} cannot be resolved")]
    Resolve {
        /// Which gateway.
        gateway: Gateway,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address took a TCP connection.
    #[error("{gateway} cannot be reached")]
    Tcp {
        /// Which gateway.
        gateway: Gateway,
        /// What the last address said.
        source: io::Error,
    },
    /// No address took a QUIC connection.
    #[error("{gateway} cannot be reached by QUIC")]
    Quic {
        /// Which gateway.
        gateway: Gateway,
        /// What the last address said.
        source: quinn::ConnectionError,
    },
    /// A local socket could not be made.
    #[error("no socket to reach {gateway}")]
    Socket {
        /// Which gateway.
        gateway: Gateway,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate is not believed.
    #[error("the certificate of {gateway} is not trusted")]
    Untrusted {
        /// Which gateway.
        gateway: Gateway,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing came back in time.
    #[error("{gateway} does not answer")]
    NoAnswer {
        /// Which gateway.
        gateway: Gateway,
    },
    /// The host of the gateway cannot stand in a certificate.
    #[error("{gateway} has no host name that TLS could verify")]
    BadName {
        /// Which gateway.
        gateway: Gateway,
    },
    /// The TLS settings do not fit QUIC.
    #[error("QUIC cannot be set up")]
    Settings(#[from] QuicError),
    /// The connection broke under the request.
    #[error("the connection to {gateway} was lost")]
    Lost {
        /// Which gateway.
        gateway: Gateway,
        /// How.
        source: TunnelError,
    },
    /// HTTP/1.1 broke under the request.
    #[error("the connection to {gateway} was lost")]
    LostHttp1 {
        /// Which gateway.
        gateway: Gateway,
        /// How.
        source: hyper::Error,
    },
    /// The answer is longer than any gateway's.
    #[error("the answer of {gateway} is too long")]
    TooLong {
        /// Which gateway.
        gateway: Gateway,
    },
}

impl LinkError {
    /// Whether the same attempt may succeed later without anyone changing a setting.
    pub(crate) const fn may_pass(&self) -> bool {
        !matches!(
            self,
            Self::Untrusted { .. } | Self::BadName { .. } | Self::Settings(_) | Self::TooLong { .. }
        )
    }

    /// Whether UDP may be what is in the way.
    const fn may_be_udp(&self) -> bool {
        matches!(self, Self::Quic { .. } | Self::NoAnswer { .. } | Self::Socket { .. })
    }
}

/// How the gateway is spoken to at the moment.
enum Carrier {
    /// Not yet.
    None,
    /// One HTTP/3 connection.
    Http3(Dialled),
    /// UDP does not get through: HTTP/1.1 until this moment.
    Http1 { until: std::time::Instant },
}

/// What one use of the link goes over.
enum Way {
    Http3(TunnelClient),
    Http1,
}

/// A gateway, and at most one connection to it.
pub(crate) struct Link {
    gateway: Gateway,
    quic: quinn::ClientConfig,
    http1: Http1,
    tracker: TaskTracker,
    carrier: Mutex<Carrier>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

impl Link {
    /// A link that dials when it is first used. Tasks of its connections live in the tracker.
    ///
    /// With a device key, the gateway is told on TCP that it may ask for it; on QUIC it always asks.
    pub(crate) fn new(
        gateway: Gateway,
        trust: &Trust,
        key: Option<&DeviceKey>,
        tracker: TaskTracker,
    ) -> Result<Self, LinkError> {
        let tls = |alpn: &[&[u8]]| {
            let config = trust.apply(pomerium_shared::tls::client_config(trust.roots(), alpn));
            match key {
                Some(key) => key.apply(config),
                None => config,
            }
        };
        let quic = pomerium_shared::quic::client_config(tls(&[b"h3"]))?;
        let over_tcp: &[&[u8]] = if key.is_some() { &[b"http/1.1", DEVICE_KEY_MARK] } else { &[b"http/1.1"] };
        let http1 = Http1::new(gateway.clone(), Arc::new(tls(over_tcp)), tracker.clone());
        Ok(Self { gateway, quic, http1, tracker, carrier: Mutex::new(Carrier::None) })
    }

    /// Where it leads.
    pub(crate) const fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Asks for a stream to an app.
    ///
    /// # Cancellation
    /// Cancel-safe: a dropped request is cancelled.
    pub(crate) async fn connect(
        &self,
        destination: &Destination,
        headers: HeaderMap,
    ) -> Result<Connected, LinkError> {
        let asked = async {
            match self.way().await? {
                Way::Http3(tunnel) => {
                    tunnel.connect(destination, headers).await.map_err(|source| self.lost(source))
                }
                Way::Http1 => self.http1.connect(destination, headers).await,
            }
        };
        timeout(CONNECT_ANSWER_TIMEOUT, asked).await.map_err(|_| self.no_answer())?
    }

    /// Asks for a flow of datagrams to an app.
    ///
    /// # Cancellation
    /// Cancel-safe: a dropped request is cancelled.
    pub(crate) async fn connect_udp(
        &self,
        destination: &Destination,
        headers: HeaderMap,
    ) -> Result<Connected<Carriage>, LinkError> {
        let asked = async {
            match self.way().await? {
                Way::Http3(tunnel) => {
                    let gateway = self.gateway.authority();
                    let asked = tunnel.connect_udp(&gateway, destination, headers);
                    asked.await.map_err(|source| self.lost(source))
                }
                Way::Http1 => self.http1.connect_udp(destination, headers).await,
            }
        };
        timeout(CONNECT_ANSWER_TIMEOUT, asked).await.map_err(|_| self.no_answer())?
    }

    /// `GET`s a path (with query) of the gateway's own.
    pub(crate) async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response<Bytes>, LinkError> {
        self.request(Method::GET, path, headers, Bytes::new()).await
    }

    /// `POST`s a document to a path of the gateway's own.
    pub(crate) async fn post(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, LinkError> {
        self.request(Method::POST, path, headers, body).await
    }

    /// `PUT`s a document to a path of the gateway's own.
    pub(crate) async fn put(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, LinkError> {
        self.request(Method::PUT, path, headers, body).await
    }

    /// `DELETE`s what is at a path of the gateway's own.
    pub(crate) async fn delete(&self, path: &str, headers: HeaderMap) -> Result<Response<Bytes>, LinkError> {
        self.request(Method::DELETE, path, headers, Bytes::new()).await
    }

    /// `POST`s a form to a path of the gateway's own.
    pub(crate) async fn post_form(&self, path: &str, form: String) -> Result<Response<Bytes>, LinkError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.post(path, headers, form.into()).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, LinkError> {
        let asked = async {
            let uri = format!("{}{path}", self.gateway);
            let mut request = Request::builder()
                .method(method)
                .uri(uri)
                .body(body)
                .map_err(|error| self.lost(error.into()))?;
            *request.headers_mut() = headers;
            match self.way().await? {
                Way::Http3(tunnel) => {
                    tunnel.request(request, BODY_LEN_MAX).await.map_err(|source| self.lost(source))
                }
                Way::Http1 => self.http1.request(request, BODY_LEN_MAX).await,
            }
        };
        timeout(REQUEST_TIMEOUT, asked).await.map_err(|_| self.no_answer())?
    }

    /// Dials if there is no connection, and waits until there is none any more; at once over HTTP/1.1.
    ///
    /// # Cancellation
    /// Cancel-safe.
    pub(crate) async fn hold(&self) -> Result<Held, LinkError> {
        Ok(match self.way().await? {
            Way::Http3(tunnel) => Held::Connection(tunnel),
            Way::Http1 => Held::EachByItself,
        })
    }

    /// Whether anything has been asked over it, and nobody closed it since.
    pub(crate) fn is_used(&self) -> bool {
        self.carrier.try_lock().is_ok_and(|carrier| !matches!(*carrier, Carrier::None))
    }

    /// What carries streams now: with QUIC's own figures, where it does.
    pub(crate) async fn carried_by(&self) -> CarriedBy {
        match &*self.carrier.lock().await {
            Carrier::Http3(dialled) if dialled.is_open() => {
                CarriedBy::Quic(Box::new(dialled.tunnel().quic().stats()))
            }
            Carrier::Http1 { .. } => CarriedBy::Tcp,
            Carrier::Http3(_) | Carrier::None => CarriedBy::Nothing,
        }
    }

    /// Says goodbye to the gateway, so that it need not wait for a time-out.
    pub(crate) async fn close(&self) {
        let carrier = std::mem::replace(&mut *self.carrier.lock().await, Carrier::None);
        if let Carrier::Http3(dialled) = carrier {
            let _late_is_harmless = timeout(CLOSE_TIMEOUT, dialled.close()).await;
        }
    }

    /// The connection to use now: the lock makes one dial serve all who wait.
    async fn way(&self) -> Result<Way, LinkError> {
        let mut carrier = self.carrier.lock().await;
        match &*carrier {
            Carrier::Http3(dialled) if dialled.is_open() => return Ok(Way::Http3(dialled.tunnel())),
            Carrier::Http1 { until } if Now::read().monotonic < *until => return Ok(Way::Http1),
            _ if !self.gateway.tls() => return Ok(Way::Http1),
            _ => {}
        }
        match dial::quic(&self.gateway, &self.quic, &self.tracker).await {
            Ok(dialled) => {
                tracing::debug!(address = %dialled.address(), "connected by QUIC");
                let way = Way::Http3(dialled.tunnel());
                *carrier = Carrier::Http3(dialled);
                Ok(way)
            }
            Err(error) if error.may_be_udp() => {
                // Whoever cannot be reached by TCP either is told of both at once: the TCP error is the plainer one.
                self.http1.probe().await?;
                tracing::info!("UDP does not get through: using TLS over TCP");
                *carrier = Carrier::Http1 { until: Now::read().monotonic + UDP_AGAIN_AFTER };
                Ok(Way::Http1)
            }
            Err(error) => Err(error),
        }
    }

    fn lost(&self, source: TunnelError) -> LinkError {
        match source {
            TunnelError::BodyTooLong { .. } => LinkError::TooLong { gateway: self.gateway.clone() },
            source => LinkError::Lost { gateway: self.gateway.clone(), source },
        }
    }

    fn no_answer(&self) -> LinkError {
        LinkError::NoAnswer { gateway: self.gateway.clone() }
    }
}

/// What a link consists of at the moment.
#[derive(Debug)]
pub(crate) enum CarriedBy {
    /// Nothing: the next request dials.
    Nothing,
    /// One QUIC connection.
    Quic(Box<quinn::ConnectionStats>),
    /// A TLS connection for each stream.
    Tcp,
}

/// A link that is up.
#[derive(Debug)]
pub(crate) enum Held {
    /// One connection, which can be watched.
    Connection(TunnelClient),
    /// A connection for each stream: nothing to watch.
    EachByItself,
}
