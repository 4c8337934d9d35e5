//! The one connection to a gateway that everything shares, made again when it is lost.
//!
//! HTTP/3 over QUIC, watched in [`path`]; where UDP does not get through, HTTP/1.1 over TLS with a connection for each request
//! ([`http1`]). [`ways`] finds one of them; which it is now and when to dial again is decided in [`mod@line`], what an answer means in
//! [`answer`]. Who the person is and what they may do is not known here.

pub(crate) mod answer;
pub(crate) mod backoff;
mod dial;
mod http1;
pub(crate) mod line;
pub(crate) mod path;
pub(crate) mod portal;
mod streamed;
mod ways;

use std::{future::pending, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header::CONTENT_TYPE};
use pomerium_shared::{
    destination::Destination,
    quic::QuicError,
    tls::DEVICE_KEY_MARK,
    tunnel::{Connected, TunnelClient, TunnelError},
    udp::Carriage,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::TaskTracker;

pub(crate) use self::streamed::Streamed;
use self::{
    http1::Http1,
    line::Wanted,
    ways::{Way, Ways},
};
use crate::{device::key::DeviceKey, gateway::Gateway, trust::Trust};

/// Bytes of an answer's body at most: a long list of routes has room.
const BODY_LEN_MAX: usize = 4 * 1024 * 1024;
/// How long an ordinary request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the gateway may take to reach the app and answer a `CONNECT`.
const CONNECT_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a request may come to a gateway that is just stopping.
const GOODBYES_MAX: usize = 3;

/// Why the gateway was not reached.
/// It can be told to all who waited for the same attempt.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LinkError {
    /// Its name has no address.
    #[error("the name of {gateway} cannot be resolved")]
    Resolve {
        /// Which gateway.
        gateway: Gateway,
        /// What the resolver said.
        source: Arc<io::Error>,
    },
    /// No address took a TCP connection.
    #[error("{gateway} cannot be reached")]
    Tcp {
        /// Which gateway.
        gateway: Gateway,
        /// What the last address said.
        source: Arc<io::Error>,
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
        source: Arc<io::Error>,
    },
    /// A captive portal holds the network.
    #[error("this network wants you to sign in first: open {page} in the browser")]
    Portal {
        /// Its page, or any that leads there.
        page: String,
        /// What became of the attempt.
        source: Arc<Self>,
    },
    /// The certificate is not believed.
    #[error("the certificate of {gateway} is not trusted")]
    Untrusted {
        /// Which gateway.
        gateway: Gateway,
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
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
    Settings(#[source] Arc<QuicError>),
    /// The connection broke under the request.
    #[error("the connection to {gateway} was lost")]
    Lost {
        /// Which gateway.
        gateway: Gateway,
        /// How.
        source: Arc<TunnelError>,
    },
    /// HTTP/1.1 broke under the request.
    #[error("the connection to {gateway} was lost")]
    LostHttp1 {
        /// Which gateway.
        gateway: Gateway,
        /// How.
        source: Arc<hyper::Error>,
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

    /// Whether it was the way to the gateway that failed, rather than the request.
    const fn is_of_the_way(&self) -> bool {
        matches!(
            self,
            Self::Resolve { .. } | Self::Tcp { .. } | Self::NoAnswer { .. } | Self::Untrusted { .. }
        )
    }

    /// Whether a captive portal may be what is in the way: somebody else answers, or nobody.
    const fn may_be_portal(&self) -> bool {
        matches!(
            self,
            Self::Tcp { .. }
                | Self::Quic { .. }
                | Self::NoAnswer { .. }
                | Self::Untrusted { .. }
                | Self::Lost { .. }
        )
    }

    /// Whether UDP may be what is in the way.
    const fn may_be_udp(&self) -> bool {
        matches!(self, Self::Quic { .. } | Self::NoAnswer { .. } | Self::Socket { .. })
    }
}

/// A gateway, and at most one connection to it.
pub(crate) struct Link {
    gateway: Gateway,
    ways: Ways,
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
        let quic = pomerium_shared::quic::client_config(tls(&[b"h3"]))
            .map_err(|error| LinkError::Settings(Arc::new(error)))?;
        let over_tcp: &[&[u8]] = if key.is_some() { &[b"http/1.1", DEVICE_KEY_MARK] } else { &[b"http/1.1"] };
        let http1 = Http1::new(gateway.clone(), Arc::new(tls(over_tcp)), tracker.clone());
        let ways = Ways::new(gateway.clone(), quic, http1, tracker);
        Ok(Self { gateway, ways })
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
    ) -> Result<(Connected, Ground), LinkError> {
        let asked = self.ask(
            true,
            |tunnel, doubt| {
                let headers = headers.clone();
                async move {
                    let ground = Ground::Quic { connection: tunnel.quic().stable_id(), doubt };
                    Ok((tunnel.connect(destination, headers).await?, ground))
                }
            },
            || {
                let headers = headers.clone();
                async move { Ok((self.ways.http1().connect(destination, headers).await?, Ground::Tcp)) }
            },
        );
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
        let gateway = &self.gateway.authority();
        let asked = self.ask(
            true,
            |tunnel, _| {
                let headers = headers.clone();
                async move { tunnel.connect_udp(gateway, destination, headers).await }
            },
            || self.ways.http1().connect_udp(destination, headers.clone()),
        );
        timeout(CONNECT_ANSWER_TIMEOUT, asked).await.map_err(|_| self.no_answer())?
    }

    /// Asks over what there is. A gateway that has said goodbye without looking at the request is asked again elsewhere, and
    /// so is one that went silent meanwhile, if the request `may_repeat`.
    async fn ask<T, Q, H>(
        &self,
        may_repeat: bool,
        over_quic: impl Fn(TunnelClient, watch::Receiver<bool>) -> Q,
        over_tcp: impl Fn() -> H,
    ) -> Result<T, LinkError>
    where
        Q: Future<Output = Result<T, TunnelError>>,
        H: Future<Output = Result<T, LinkError>>,
    {
        let mut goodbyes = 0;
        loop {
            let (tunnel, mut doubt) = match Box::pin(self.ways.now(Wanted::ByWaiting)).await? {
                Way::Http3(tunnel, doubt) => (tunnel, doubt),
                Way::Http1 => {
                    return match Box::pin(over_tcp()).await {
                        Err(error) if error.is_of_the_way() => Err(self.ways.http1_failed(error).await),
                        answer => answer,
                    };
                }
            };
            tokio::select! {
                biased;
                answer = Box::pin(over_quic(tunnel, doubt.clone())) => match answer {
                    Err(error) if error.was_not_taken() && goodbyes < GOODBYES_MAX => goodbyes += 1,
                    answer => return answer.map_err(|source| self.lost(source)),
                },
                Ok(_) = doubt.wait_for(|is_doubtful| *is_doubtful), if may_repeat => {}
            }
        }
    }

    /// Waits until the gateway is not heard here any more, and finds the way that new streams take then; says whether it is
    /// another one. Where a goodbye sends those elsewhere, the old ones stay. A TCP connection does not follow a machine that
    /// moves.
    ///
    /// # Cancellation
    /// Cancel-safe.
    pub(crate) async fn way_from(&self, ground: &mut Ground) -> Result<bool, LinkError> {
        let Ground::Quic { connection, doubt } = ground else {
            self.ways.moved().await;
            return Ok(true);
        };
        if doubt.wait_for(|is_doubtful| *is_doubtful).await.is_err() {
            // The connection is gone, and its streams know.
            return pending().await;
        }
        let is_same = match Box::pin(self.ways.now(Wanted::ByWaiting)).await? {
            Way::Http3(tunnel, _) => tunnel.quic().stable_id() == *connection,
            Way::Http1 => false,
        };
        // It may have been heard meanwhile.
        Ok(!is_same && *doubt.borrow())
    }

    /// `GET`s a path (with query) of the gateway's own.
    pub(crate) async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response<Bytes>, LinkError> {
        self.request(Method::GET, path, headers, Bytes::new()).await
    }

    /// `GET`s a path of the gateway's own, and leaves the answer to be read as it comes.
    pub(crate) async fn get_streamed(
        &self,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Response<Streamed>, LinkError> {
        let asked = async {
            let uri = format!("{}{path}", self.gateway);
            let mut request = Request::get(uri).body(()).map_err(|error| self.lost(error.into()))?;
            *request.headers_mut() = headers;
            let over_quic = |tunnel: TunnelClient, _| {
                let request = request.clone();
                async move {
                    let response = tunnel.streamed(request).await?;
                    Ok(response.map(|body| Streamed::Http3(Box::new(body))))
                }
            };
            let over_tcp = || async {
                let request = request.clone().map(|()| Bytes::new());
                let response = self.ways.http1().answered(request).await?;
                Ok(response.map(|body| Streamed::Http1(Box::new(body))))
            };
            self.ask(true, over_quic, over_tcp).await
        };
        timeout(REQUEST_TIMEOUT, asked).await.map_err(|_| self.no_answer())?
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
            let may_repeat = request.method() == Method::GET;
            self.ask(
                may_repeat,
                |tunnel, _| {
                    let request = request.clone();
                    async move { tunnel.request(request, BODY_LEN_MAX).await }
                },
                || self.ways.http1().request(request.clone(), BODY_LEN_MAX),
            )
            .await
        };
        timeout(REQUEST_TIMEOUT, asked).await.map_err(|_| self.no_answer())?
    }

    /// Dials if there is no connection, so that it can be watched until it ends; over HTTP/1.1 there is nothing to watch. Waits
    /// before each attempt for as long as the last ones call for, so that it may be called again at once.
    ///
    /// # Cancellation
    /// Cancel-safe.
    pub(crate) async fn hold(&self) -> Result<Held, LinkError> {
        Ok(match Box::pin(self.ways.now(Wanted::ForLater)).await? {
            Way::Http3(tunnel, _) => Held::Connection(tunnel),
            Way::Http1 => Held::EachByItself,
        })
    }

    /// Whether anything has been asked over it, and nobody closed it since.
    pub(crate) fn is_used(&self) -> bool {
        self.ways.is_used()
    }

    /// What carries streams now: with QUIC's own figures, where it does.
    pub(crate) fn carried_by(&self) -> CarriedBy {
        self.ways.carried_by()
    }

    /// The page of the captive portal that the last attempt met.
    pub(crate) fn portal(&self) -> Option<String> {
        self.ways.portal()
    }

    /// Says goodbye to the gateway, so that it need not wait for a time-out.
    pub(crate) async fn close(&self) {
        self.ways.close().await;
    }

    fn lost(&self, source: TunnelError) -> LinkError {
        match source {
            TunnelError::BodyTooLong { .. } => LinkError::TooLong { gateway: self.gateway.clone() },
            source => LinkError::Lost { gateway: self.gateway.clone(), source: Arc::new(source) },
        }
    }

    /// Nothing came back that could be used.
    pub(crate) fn no_answer(&self) -> LinkError {
        let silence = LinkError::NoAnswer { gateway: self.gateway.clone() };
        match self.ways.portal() {
            // Whoever was told to wait less than an attempt takes hears of it all the same.
            Some(page) => LinkError::Portal { page, source: Arc::new(silence) },
            None => silence,
        }
    }
}

/// What a stream stands on.
#[derive(Debug)]
pub(crate) enum Ground {
    /// A QUIC connection, and whether the gateway's silence puts it in doubt.
    Quic {
        /// Which.
        connection: usize,
        /// As of now.
        doubt: watch::Receiver<bool>,
    },
    /// A TCP connection of its own.
    Tcp,
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
