//! What was seen of this machine and of the way to a gateway. Plain data; `Err` holds what the system or the library said.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// The gateway, as `https://host:port`.
    pub(crate) gateway: String,
    /// Its host.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// Who writes the list of name servers.
    pub(crate) dns: Dns,
    /// The gateway's addresses, and how long the answer took.
    pub(crate) addresses: Seen<(Vec<SocketAddr>, Duration)>,
    /// Network devices that tunnels make.
    pub(crate) tunnels: Vec<Tunnel>,
    /// The device over which the gateway is reached.
    pub(crate) device: Option<Device>,
    /// TCP: how long a connection took.
    pub(crate) tcp: Seen<Duration>,
    /// The certificate, as far as it is believed.
    pub(crate) certificate: Seen<Certificate>,
    /// The gateway's clock before ours, in seconds.
    pub(crate) clock_ahead: Option<i64>,
    /// Whether what answers is a gateway.
    pub(crate) is_gateway: Option<bool>,
    /// The page of a captive portal that answers in the gateway's place.
    pub(crate) portal: Option<String>,
    /// QUIC: how long a handshake took, and the packet size that came through.
    pub(crate) udp: Seen<Quic>,
    /// The socket buffers that we get.
    pub(crate) buffers: Option<Buffers>,
    /// Variables of the environment that send programs to a proxy: name and value.
    pub(crate) proxies: Vec<(String, String)>,
    /// What `no_proxy` says.
    pub(crate) no_proxy: Option<String>,
    /// The daemon's version, if it runs.
    pub(crate) daemon: Option<String>,
    /// Whether secrets are sealed by the keyring, or in words why not.
    pub(crate) keyring: Seen<()>,
    /// Who is signed in; `None`: nobody.
    pub(crate) person: Option<String>,
}

/// What was tried: not at all, in vain, or with this result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Seen<T> {
    /// Not tried, for what it needs failed before.
    #[default]
    NotTried,
    /// In vain.
    Failed(String),
    /// So.
    Got(T),
}

/// Name resolution on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Dns {
    /// Who writes `/etc/resolv.conf`.
    pub(crate) writer: Writer,
    /// The servers in it.
    pub(crate) servers: Vec<IpAddr>,
}

/// Who writes the list of name servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Writer {
    /// systemd-resolved.
    Resolved,
    /// NetworkManager.
    NetworkManager,
    /// The program resolvconf, or openresolv.
    Resolvconf,
    /// We ourselves, in TUN mode.
    Ours,
    /// A person, or something that leaves no trace.
    #[default]
    Nobody,
    /// There is no list.
    Missing,
}

/// A network device that a tunnel made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tunnel {
    /// Its name.
    pub(crate) name: String,
    /// `wireguard`, `tun` or `tap`.
    pub(crate) kind: &'static str,
}

/// The device to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its name.
    pub(crate) name: String,
    /// Bytes of an IP packet at most.
    pub(crate) mtu: Option<u32>,
}

/// A certificate that was believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Seconds that it holds from now.
    pub(crate) left: Option<i64>,
}

/// A QUIC connection that came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quic {
    /// How long the handshake took.
    pub(crate) took: Duration,
    /// Bytes of UDP payload that came through.
    pub(crate) mtu: u16,
}

/// Bytes of socket buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Buffers {
    /// For receiving, as granted.
    pub(crate) receive: usize,
    /// For sending, as granted.
    pub(crate) send: usize,
}
