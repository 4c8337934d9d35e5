//! The messages of the local API, and lines of bounded length.

use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::access::Route;

/// The version that both ends speak; a request of another one is refused in words.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a request's line at most.
pub(crate) const REQUEST_LEN_MAX: u64 = 16 * 1024;
/// Bytes of a reply's line at most: a long list of routes has room.
pub(crate) const REPLY_LEN_MAX: u64 = 8 * 1024 * 1024;

/// A request, with the version that it is written in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Versioned {
    /// The version of the API.
    pub(crate) version: u32,
    /// What is asked.
    #[serde(flatten)]
    pub(crate) request: Request,
}

/// What a command asks of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// What there is, and how it fares.
    Status,
    /// The routes that a gateway lists.
    Routes {
        /// Which gateway.
        gateway: String,
    },
    /// Sign in, or renew a session that ends soon.
    Login {
        /// Where.
        gateway: String,
    },
    /// End the session, and forget its token.
    Logout {
        /// Where.
        gateway: String,
    },
    /// A stream to an app: after [`Reply::Open`] the connection carries it, in frames.
    Open {
        /// Through which gateway.
        gateway: String,
        /// `host:port`.
        destination: String,
        /// Whether a gateway that is gone for a moment is waited for.
        #[serde(default)]
        patient: bool,
    },
    /// The list of routes each time that it changes, for as long as the caller stays.
    Follow {
        /// Of which gateway.
        gateway: String,
    },
    /// Read the file of forwards again.
    Reload,
    /// Have the daemon's network device lead to routes, until it is switched off.
    TunOn {
        /// Of which gateway.
        gateway: String,
        /// Names of routes, or their `host:port`; all if there are none.
        #[serde(default)]
        routes: Vec<String>,
        /// Whether this machine asks there for names.
        #[serde(default = "yes")]
        dns: bool,
    },
    /// Take the network device away.
    TunOff,
}

/// What the daemon answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// To [`Request::Status`].
    Status(DaemonStatus),
    /// To [`Request::Routes`], and again and again to [`Request::Follow`].
    Routes {
        /// As the gateway lists them.
        routes: Vec<Route>,
    },
    /// News before the answer: a browser must open this page.
    SignIn {
        /// The page's address, good for one sign-in.
        url: String,
    },
    /// To [`Request::Login`].
    SignedIn {
        /// Who.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        person: Option<String>,
    },
    /// To [`Request::Logout`].
    SignedOut {
        /// Whether there was a token.
        had_one: bool,
        /// Why the session goes on at the gateway until it expires, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        untold: Option<String>,
    },
    /// To [`Request::Open`]: frames follow.
    Open,
    /// To [`Request::Reload`].
    Reloaded {
        /// How many forwards there are now.
        forwards: usize,
    },
    /// To [`Request::TunOn`] and [`Request::TunOff`]: how it is now.
    Tun(TunStatus),
    /// To anything: it was not done.
    Failed {
        /// The exit code of a command that fails so.
        exit: u8,
        /// What happened and what to do.
        message: String,
    },
}

/// What the daemon knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct DaemonStatus {
    /// The version of the program.
    pub(crate) program: String,
    /// Its process.
    pub(crate) pid: u32,
    /// Its network device, if it may have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tun: Option<TunStatus>,
    /// Each gateway that it serves.
    pub(crate) gateways: Vec<GatewayStatus>,
}

/// The daemon's network device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunStatus {
    /// What it is called.
    pub(crate) device: String,
    /// Whose routes it leads to; none: it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
    /// Hosts that have an address there.
    #[serde(default)]
    pub(crate) hosts: usize,
    /// Who asks there for names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked_by: Option<String>,
    /// Connections and flows of datagrams that live.
    #[serde(default)]
    pub(crate) flows: usize,
    /// Packets that were thrown away, by reason.
    #[serde(default)]
    pub(crate) dropped: BTreeMap<String, u64>,
    /// Why it went off, or did not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
}

const fn yes() -> bool {
    true
}

/// How one gateway fares.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct GatewayStatus {
    /// Its address.
    pub(crate) gateway: String,
    /// Whether there is a session that has not ended.
    pub(crate) signed_in: bool,
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) person: Option<String>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<String>,
    /// The page that waits for a sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sign_in_page: Option<String>,
    /// The page of the captive portal that keeps the daemon from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) portal: Option<String>,
    /// What carries streams.
    pub(crate) transport: Transport,
    /// A round trip to the gateway made for this answer; none: it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) round_trip_ms: Option<u64>,
    /// Packets that QUIC sent on this connection.
    #[serde(default)]
    pub(crate) packets_sent: u64,
    /// Those of them that were lost.
    #[serde(default)]
    pub(crate) packets_lost: u64,
    /// What is open by destination.
    #[serde(default)]
    pub(crate) routes: Vec<RouteStatus>,
}

/// What carries streams to a gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// Nothing at the moment.
    #[default]
    None,
    /// One QUIC connection.
    Quic,
    /// TLS over TCP, a connection for each stream.
    Tcp,
}

impl Transport {
    /// The word for it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "not connected",
            Self::Quic => "QUIC",
            Self::Tcp => "TLS over TCP",
        }
    }
}

/// What is open to one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouteStatus {
    /// `host:port`.
    pub(crate) destination: String,
    /// The name of the forward, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Where programs connect, if it is a forward that could be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
    /// Streams that live now.
    pub(crate) streams: u64,
    /// Streams since the daemon began.
    pub(crate) streams_total: u64,
    /// Bytes to the app, also of streams that live.
    pub(crate) bytes_up: u64,
    /// Bytes from the app, also of streams that live.
    pub(crate) bytes_down: u64,
    /// How the last one ended, or why it could not be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_end: Option<String>,
}

/// Reads a line and what it says; `None` at the end of the connection.
///
/// # Errors
/// A line that is longer than `len_max`, is cut off, or says nothing known.
pub(crate) async fn read<T: for<'a> Deserialize<'a>>(
    from: &mut (impl AsyncBufRead + Unpin),
    len_max: u64,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let len = from.take(len_max).read_until(b'\n', &mut line).await?;
    if len == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long or cut off"));
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| {
        // Only the place: what is written there may be anything.
        let place = format!("no message of this API, at byte {} of the line", error.column());
        io::Error::new(io::ErrorKind::InvalidData, place)
    })
}

/// Writes a message as one line.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn request(line: &[u8]) -> io::Result<Option<Versioned>> {
        read(&mut &line[..], REQUEST_LEN_MAX).await
    }

    #[tokio::test]
    async fn requests_stand_in_lines_as_documented() {
        let line = br#"{"version":1,"request":"open","gateway":"https://g.example","destination":"db:5432"}"#;
        let read = request(&[line, &b"\n"[..]].concat()).await.unwrap().unwrap();
        let Request::Open { destination, patient: false, .. } = read.request else { panic!("{read:?}") };
        assert_eq!(destination, "db:5432");
        assert_eq!(request(b"").await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_too_long_cut_off_or_unknown_is_refused() {
        for line in [vec![b' '; 20_000], b"{}\n".to_vec(), br#"{"version":1,"request":"status"}"#.to_vec()] {
            assert!(request(&line).await.is_err());
        }
        assert!(request(b"{\"version\":1,\"request\":\"become-root\"}\n").await.is_err());
    }

    proptest! {
        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _may_be_refused = runtime.block_on(request(&line));
        }

        #[test]
        fn what_is_written_is_read(gateway in ".{0,40}", destination in ".{0,40}", patient: bool) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let request_sent =
                Versioned { version: VERSION, request: Request::Open { gateway, destination, patient } };
            let mut line = Vec::new();
            runtime.block_on(write(&mut line, &request_sent)).unwrap();
            prop_assert_eq!(runtime.block_on(request(&line)).unwrap(), Some(request_sent));
        }
    }
}
