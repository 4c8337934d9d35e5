//! What was seen of the gateway and of the way to it. Plain data; a text is what the system or a library said.

use std::{net::IpAddr, path::PathBuf, time::Duration};

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The host of `authenticate_service_url`, and its port.
    pub(crate) sign_in_host: String,
    pub(crate) port: u16,
    /// Whether `codec_type` has QUIC.
    pub(crate) speaks_quic: bool,
    /// `use_proxy_protocol`.
    pub(crate) use_proxy_protocol: bool,
    pub(crate) provider: Provider,
    /// The addresses of the sign-in host.
    pub(crate) addresses: Result<Vec<IpAddr>, String>,
    /// Whether one of them is this machine's own.
    pub(crate) is_this_machine: bool,
    /// What answers on `address` of this machine, with the PROXY header where it is expected.
    pub(crate) here: Door,
    /// What answers at the sign-in host, asked as a client asks.
    pub(crate) outside: Door,
    /// QUIC to the sign-in host.
    pub(crate) udp: Result<Duration, String>,
    /// Bytes that a socket of ours gets, to receive and to send.
    pub(crate) buffers: Option<(usize, usize)>,
    pub(crate) store: Store,
    /// The configured certificates.
    pub(crate) certificates: Vec<Certificate>,
    /// `autocert`.
    pub(crate) has_autocert: bool,
    /// Hosts that people would call, and that no configured certificate is for.
    pub(crate) uncovered: Vec<String>,
}

/// The identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provider {
    pub(crate) issuer: String,
    /// Our redirect address, as it must be registered there.
    pub(crate) redirect: String,
    /// Whether its discovery document and keys could be read.
    pub(crate) discovery: Result<(), String>,
    /// What it says of a sign-in that comes back to our redirect address.
    pub(crate) answer: Option<Answer>,
    /// Its clock before ours, in seconds.
    pub(crate) clock_ahead: Option<i64>,
}

/// What a provider says of a sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It shows a page or goes on to one.
    GoesOn,
    /// It does not know the redirect address.
    NoSuchRedirect,
    /// It refuses for another reason.
    Refuses(String),
    /// It could not be asked.
    Silent(String),
}

/// What is behind an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Door {
    /// Nothing takes a connection.
    Closed(String),
    /// Something does, and speaks no TLS with us.
    NoTls(String),
    /// It shows a certificate that is not configured here.
    OtherCertificate,
    /// It shows ours, and does not answer as we do.
    NoAnswer,
    /// It is this gateway.
    Ours,
}

/// Where sessions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Store {
    Memory,
    Folder { path: PathBuf, opened: Result<(), String> },
    Postgres { opened: Result<(), String> },
}

/// A configured certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The first of its names.
    pub(crate) name: String,
    /// Seconds that it holds from now; negative: since then not.
    pub(crate) left: Option<i64>,
    /// Whether it holds already.
    pub(crate) is_begun: bool,
}
