//! What can go wrong for a command, as one closed set. What each costs and says is decided in `exit`.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use pomerium_shared::{destination::Destination, wireguard::PeerNameError};

use crate::{
    cache::CacheError,
    forward::saved::SavedError,
    gateway::{Gateway, GatewayError},
    link::{LinkError, answer::Refusal},
    local_api::socket::SocketError,
    login::LoginError,
    target::TargetError,
    token::TokenError,
    trust::TrustError,
};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection to the gateway.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// No valid session, and none could be made.
    #[error("not signed in to {gateway}")]
    Login {
        /// Where.
        gateway: Gateway,
        /// Why; shared by all streams that waited for the same sign-in.
        source: Arc<LoginError>,
    },
    /// A session is needed, and the caller is a program.
    #[error("not signed in to {url}, and nobody sits here who could")]
    NobodyToAsk {
        /// Where.
        url: String,
    },
    /// The doctor found what is in the way.
    #[error("not all is well")]
    Unwell,
    /// The gateway said no.
    #[error("{what}: {refusal}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The gateway's answer.
        refusal: Box<Refusal>,
    },
    /// The gateway's answer could not be understood.
    #[error("the gateway's answer to {what} could not be read")]
    BadAnswer {
        /// What was asked for.
        what: &'static str,
    },
    /// A local port could not be had.
    #[error("cannot listen on {address} for {wanted_by}")]
    Listen {
        /// The destination that it is for.
        wanted_by: Destination,
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy's local port could not be had.
    #[error("cannot listen on {address}")]
    ListenProxy {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A proxy that others could use.
    #[error("{address} is no loopback address: others could use your access")]
    OpenProxy {
        /// Which.
        address: SocketAddr,
    },
    /// TUN mode does not begin.
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Tun(#[from] crate::tun::TunError),
    /// The person named no gateway and none is remembered.
    #[error("no gateway is named and none was used before")]
    NoGateway,
    /// A route that was asked for does not exist or is not for this person.
    #[error("no TCP route is called {name}; there are: {known}")]
    NoSuchRoute {
        /// As the person wrote it.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A page that was asked for does not exist or is not for this person.
    #[error("no web route is called {name}; there are: {known}")]
    NoSuchPage {
        /// As the person wrote it.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The list of routes has nothing to connect.
    #[error("{gateway} lists no TCP route for you")]
    NoRoutes {
        /// Where.
        gateway: Gateway,
    },
    /// A destination that is none.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A gateway that is none.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// CAs that cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A service account whose token cannot be read.
    #[error("the service account's token cannot be used")]
    ServiceAccount(#[source] TokenError),
    /// A file of a service account that cannot be read.
    #[error("the service account's file cannot be read")]
    ServiceAccountFile(#[source] io::Error),
    /// The environment names two service accounts.
    #[error("both POMERIUM_SERVICE_ACCOUNT and POMERIUM_SERVICE_ACCOUNT_FILE are set")]
    TwoServiceAccounts,
    /// The cache cannot be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// There is no cache folder at all.
    #[error("there is no cache folder: HOME and XDG_CACHE_HOME are not set")]
    NoCache,
    /// A live stream broke.
    #[error("the stream ended: {0}")]
    Stream(pomerium_shared::reason::EndReason),
    /// The daemon's socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The daemon did not answer, or not as a daemon does.
    #[error("the daemon does not answer")]
    Daemon(#[source] io::Error),
    /// The daemon failed, and said how.
    #[error("{message}")]
    Told {
        /// The exit code that it gave.
        exit: u8,
        /// What happened and what to do, in its words.
        message: String,
    },
    /// The daemon has no network device, or none runs.
    #[error("no daemon with a network device runs")]
    NoTunDaemon,
    /// The daemon serves as many gateways as it may.
    #[error("the daemon serves {max} gateways already")]
    TooManyGateways {
        /// How many.
        max: usize,
    },
    /// The file of forwards says something else.
    #[error("{} holds no forwards", path.display())]
    Forwards {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        source: SavedError,
    },
    /// A name that no device can have.
    #[error("the device cannot be called so")]
    PeerName(#[from] PeerNameError),
    /// The file of a WireGuard device cannot be made.
    #[error("{} cannot be written", path.display())]
    PeerFile {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The icon has no place.
    #[cfg(all(target_os = "linux", feature = "tray"))]
    #[error(transparent)]
    Tray {
        /// Why.
        source: crate::tray::PanelError,
    },
    /// The archive could not be written.
    #[error("cannot write {}", path.display())]
    Report {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No WireGuard device of this person is called so.
    #[error("no WireGuard device of yours is called {device}")]
    NoSuchPeer {
        /// As the person wrote it.
        device: String,
    },
    /// Several are.
    #[error("several WireGuard devices of yours are called {device}")]
    SeveralPeers {
        /// As the person wrote it.
        device: String,
    },
    /// There is no folder for settings.
    #[error("there is no folder for settings: HOME and XDG_CONFIG_HOME are not set")]
    NoSettings,
    /// Output or signals of this machine failed.
    #[error("this machine's input or output failed")]
    Local(#[from] io::Error),
}
