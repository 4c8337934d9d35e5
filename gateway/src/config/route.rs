//! One route, parsed: what it matches, where it leads, and what it changes on the way.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, Method};
use pomerium_shared::destination::Destination;
use regex::Regex;
use rustls_pki_types::CertificateDer;
use url::{Origin, Url};

use super::{Certificate, HeaderTemplate, Upstreams};
use crate::{authorize::Policy, client_authority::ClientAuthority, session::demand::SignInDemand};

/// One entry of `routes` or `policy`.
#[derive(Debug)]
pub struct Route {
    /// Stable over restarts: a hash of what the route matches and where it leads, as hex.
    pub id: String,
    /// `name`, or one made from `from`.
    pub name: String,
    /// `description`.
    pub description: String,
    /// `logo_url`: an image for the portal.
    pub logo_url: Option<Url>,
    /// `from` as written.
    pub from_url: String,
    /// What the route matches.
    pub from: RouteFrom,
    /// Where it leads.
    pub target: Target,
    /// Who may use it: `policy` and the `allowed_*` short forms in one.
    pub policy: Policy,
    /// `upstream_proxy_protocol`: whether a TCP app is told whose connection it is.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `timeout`: `None` means no limit.
    pub timeout: Option<Duration>,
    /// `idle_timeout`: `None` means no limit.
    pub idle_timeout: Option<Duration>,
    /// `allow_websockets`.
    pub allow_websockets: bool,
    /// `pass_identity_headers`, or the global value.
    pub pass_identity_headers: bool,
    /// `set_request_headers`.
    pub set_request_headers: Vec<(HeaderName, HeaderTemplate)>,
    /// `remove_request_headers`.
    pub remove_request_headers: Vec<HeaderName>,
    /// `set_response_headers` over the global ones; they ask for nothing that an answer may not tell.
    pub set_response_headers: Vec<(HeaderName, HeaderTemplate)>,
    /// `remove_response_headers`.
    pub remove_response_headers: Vec<HeaderName>,
    /// `rewrite_response_headers`.
    pub rewrite_response_headers: Vec<HeaderRewrite>,
    /// `show_error_details`: whether a refused person sees the rules' traces.
    pub show_error_details: bool,
    /// `tls_downstream_client_ca`, or the general authority: who issues the certificates of its clients.
    pub client_authority: Option<Arc<ClientAuthority>>,
    /// `sign_in_*`: what the route asks of the sign-in itself.
    pub sign_in: SignInDemand,
    /// `idp_unreachable_grace`, or the general one: how long a session counts here beyond what its provider vouched for.
    pub unreachable_grace: Duration,
}

/// One entry of `rewrite_response_headers`: a prefix of a header's value that is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderRewrite {
    /// `header`.
    pub header: HeaderName,
    /// `prefix`.
    pub prefix: String,
    /// `value`: what stands in its place.
    pub value: String,
}

/// What a route matches.
#[derive(Debug)]
pub enum RouteFrom {
    /// `https://host[:port]`: requests for this host whose path fits.
    Http {
        /// The host, with `*` for any run of characters.
        host: HostPattern,
        /// A port that differs from the scheme's default must match exactly.
        port: Option<u16>,
        /// Which paths.
        path: PathMatch,
        /// Which methods.
        methods: Methods,
    },
    /// `tcp+https://host:port` or `tcp+https://gateway[:port]/host:port[/host:port...]`: `CONNECT` to exactly these.
    Tcp {
        /// The authorities that a `CONNECT` may name.
        destinations: Vec<Destination>,
    },
    /// `udp+https://...`, written as for TCP: CONNECT-UDP (RFC 9298) to exactly these.
    Udp {
        /// The destinations that a request may name.
        destinations: Vec<Destination>,
    },
}

impl RouteFrom {
    /// What a stream or flow may name; nothing for HTTP.
    #[must_use]
    pub fn destinations(&self) -> &[Destination] {
        match self {
            Self::Http { .. } => &[],
            Self::Tcp { destinations } | Self::Udp { destinations } => destinations,
        }
    }
}

/// `methods`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Methods {
    /// Any method.
    Any,
    /// These alone, at least one.
    Only(Vec<Method>),
}

impl Methods {
    /// Whether it is one of these.
    #[must_use]
    pub fn has(&self, method: &Method) -> bool {
        match self {
            Self::Any => true,
            Self::Only(methods) => methods.contains(method),
        }
    }

    /// Whether each method of `other` is one of these.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Only(_), Self::Any) => false,
            (Self::Only(_), Self::Only(methods)) => methods.iter().all(|method| self.has(method)),
        }
    }

    /// One of these, to stand for all: `GET` if it can be.
    #[must_use]
    pub fn sample(&self) -> Method {
        match self {
            Self::Only(methods) if !self.has(&Method::GET) => methods.first().cloned().unwrap_or_default(),
            Self::Any | Self::Only(_) => Method::GET,
        }
    }
}

/// A host name, possibly with wildcards; compared in lower case.
#[derive(Debug, Clone)]
pub enum HostPattern {
    /// Exactly this host.
    Exact(String),
    /// `*` in the name stands for any run of characters, dots included; anchored at both ends.
    Wildcard(Regex),
}

impl HostPattern {
    /// The host, where it is just one.
    #[must_use]
    pub fn as_exact(&self) -> Option<&str> {
        match self {
            Self::Exact(host) => Some(host),
            Self::Wildcard(_) => None,
        }
    }
}

/// `prefix`, `path` or `regex`.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// Any path.
    Any,
    /// A plain string prefix: `/foo` also matches `/foobar`.
    Prefix(String),
    /// Exactly this path.
    Exact(String),
    /// The whole path matches.
    Regex(Regex),
}

/// Where a route leads.
#[derive(Debug)]
pub enum Target {
    /// `to: http(s)://...`.
    Http(Box<HttpTarget>),
    /// `to: tcp://host:port`.
    Tcp(Destination),
    /// `to: udp://host:port`.
    Udp(Destination),
    /// `redirect`.
    Redirect(Redirect),
    /// `response`: a fixed answer.
    Response {
        /// The status.
        status: http::StatusCode,
        /// The body, sent as text.
        body: String,
    },
}

/// An HTTP app behind the gateway.
#[derive(Debug)]
pub struct HttpTarget {
    /// `to`: where it runs, once or more often, and how it is known to be well.
    pub upstreams: Upstreams,
    /// How the path is rewritten.
    pub rewrite: PathRewrite,
    /// Which `Host` the app sees.
    pub host: UpstreamHost,
    /// How an `https` app is trusted.
    pub tls: UpstreamTls,
    /// How large a request may be.
    pub request_limits: RequestLimits,
    /// `websocket_origins`: whose pages may open WebSockets here, beside the app's own.
    pub websocket_origins: Vec<Origin>,
}

/// How large a request to an app may be; `None` means as large as the listener lets it be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestLimits {
    /// `max_request_header_bytes`: octets of all names and values.
    pub header: Option<usize>,
    /// `max_request_body_bytes`.
    pub body: Option<u64>,
}

/// `upstream_proxy_protocol`: which version of the PROXY protocol a TCP app is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// `v1`: a line of text.
    V1,
    /// `v2`: binary.
    V2,
}

/// How the path changes on its way to the app.
#[derive(Debug)]
pub enum PathRewrite {
    /// Not at all.
    Keep,
    /// `prefix_rewrite`: the matched prefix is replaced.
    Prefix(String),
    /// `regex_rewrite_pattern` and `regex_rewrite_substitution` (`\1` refers to a group).
    Regex {
        /// What is replaced, everywhere in the path.
        pattern: Regex,
        /// By what.
        substitution: String,
    },
}

/// Which `Host` header the app sees.
#[derive(Debug, Clone)]
pub enum UpstreamHost {
    /// The host of `to`.
    Target,
    /// `preserve_host_header`: what the browser sent.
    Preserve,
    /// `host_rewrite`: this one.
    Literal(String),
    /// `host_rewrite_header`: the value of this request header.
    FromHeader(HeaderName),
    /// `host_path_regex_rewrite_pattern` and `..._substitution`, over the path that the browser asked for.
    FromPath {
        /// What is replaced.
        pattern: Regex,
        /// By what.
        substitution: String,
    },
}

/// How an `https` app is trusted.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTls {
    /// `tls_skip_verify`: trust anything (warned about at load).
    pub skip_verify: bool,
    /// `tls_upstream_server_name` or `tls_server_name`: the name to expect in its certificate.
    pub server_name: Option<String>,
    /// `tls_custom_ca`: these roots instead of the system's.
    pub custom_roots: Option<Vec<CertificateDer<'static>>>,
    /// `tls_client_cert` and `tls_client_key`: what the gateway shows to the app.
    pub client_certificate: Option<Arc<Certificate>>,
}

/// `redirect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `scheme_redirect`, or `https` by `https_redirect`.
    pub scheme: Option<String>,
    /// `host_redirect`.
    pub host: Option<String>,
    /// `port_redirect`.
    pub port: Option<u16>,
    /// `path_redirect` or `prefix_rewrite`.
    pub path: RedirectPath,
    /// `response_code`: 301 unless set.
    pub status: http::StatusCode,
    /// `strip_query`.
    pub strip_query: bool,
}

/// How a redirect changes the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPath {
    /// Not at all.
    Keep,
    /// `path_redirect`: this path.
    Replace(String),
    /// `prefix_rewrite`: the matched prefix is replaced.
    Prefix(String),
}
