//! Has systemd-resolved ask for our hosts at the device, and for nothing else (org.freedesktop.resolve1).
//!
//! What it is told belongs to the device and goes with it: nothing is left behind, however we end.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::time::timeout;
use zbus::{Connection, Proxy, fdo::DBusProxy, zvariant::DynamicType};

use super::{device, plan::RESOLVER, resolver};

const NAME: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";

/// Where it keeps the lists that `/etc/resolv.conf` may be a link to.
const FOLDER: &str = "/run/systemd/resolve";
/// Where it answers programs (systemd-resolved.service(8)).
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];
/// How long bus and service may take together.
const LIMIT: Duration = Duration::from_secs(5);

const AF_INET: i32 = 2;

/// What it did not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolvedError {
    /// It said no, or the bus did.
    #[error(transparent)]
    Bus(#[from] zbus::Error),
    /// Neither yes nor no.
    #[error("no answer within {LIMIT:?}")]
    Silent,
    /// The device's number is not known.
    #[error("the device is not there")]
    NoDevice(#[source] io::Error),
}

/// The service, told of our device.
#[derive(Debug)]
pub(crate) struct Resolved {
    manager: Proxy<'static>,
    device: i32,
    /// Each host, and whether it is for routing questions alone, not for completing names.
    domains: Vec<(String, bool)>,
}

impl Resolved {
    /// Tells it of the device and the hosts behind it; `None`: programs do not ask it, or it does not run.
    pub(crate) async fn begin(hosts: Vec<String>) -> Result<Option<Self>, ResolvedError> {
        let file = Path::new(resolver::FILE);
        let text = fs::read_to_string(file).unwrap_or_default();
        if !is_asked(&text, &fs::canonicalize(file).unwrap_or_default()) {
            return Ok(None);
        }
        within(async {
            let Some(manager) = manager().await else { return Ok(None) };
            let index = format!("/sys/class/net/{}/ifindex", device::NAME);
            let index = fs::read_to_string(index).map_err(ResolvedError::NoDevice)?;
            let device = index.trim().parse().map_err(io::Error::other).map_err(ResolvedError::NoDevice)?;
            let resolved = Self { manager, device, domains: domains(hosts) };
            resolved.tell().await?;
            Ok(Some(resolved))
        })
        .await
    }

    /// Tells it of other hosts.
    pub(crate) async fn change(&mut self, hosts: Vec<String>) -> Result<(), ResolvedError> {
        // Also for when it has been started anew.
        self.domains = domains(hosts);
        within(self.call("SetLinkDomains", &(self.device, &self.domains))).await
    }

    /// Tells it again when it has been started anew; never returns.
    pub(crate) async fn keep(&self) {
        let Ok(mut owners) = self.manager.receive_owner_changed().await else {
            return std::future::pending().await;
        };
        while let Some(owner) = owners.next().await {
            if owner.is_none() {
                continue;
            }
            if let Err(error) = within(self.tell()).await {
                tracing::warn!(%error, "systemd-resolved was started anew, and does not take our name server");
            }
        }
        std::future::pending().await
    }

    /// Has it forget the device.
    pub(crate) async fn end(self) {
        if let Err(error) = within(self.call("RevertLink", &(self.device,))).await {
            // It forgets the device anyway as soon as that is gone.
            tracing::debug!(%error, "systemd-resolved does not forget the device yet");
        }
    }

    async fn tell(&self) -> Result<(), ResolvedError> {
        let device = self.device;
        // Our answers carry no signatures, and go no further than this machine.
        self.call("SetLinkDNSSEC", &(device, "no")).await?;
        self.call("SetLinkDNSOverTLS", &(device, "no")).await?;
        self.call("SetLinkDefaultRoute", &(device, false)).await?;
        self.call("SetLinkDomains", &(device, &self.domains)).await?;
        let server = (AF_INET, RESOLVER.octets().to_vec());
        self.call("SetLinkDNS", &(device, vec![server])).await
    }

    async fn call<B: serde::Serialize + DynamicType + Sync>(
        &self,
        method: &str,
        body: &B,
    ) -> Result<(), ResolvedError> {
        Ok(self.manager.call::<_, _, ()>(method, body).await?)
    }
}

fn domains(hosts: Vec<String>) -> Vec<(String, bool)> {
    hosts.into_iter().map(|host| (host, true)).collect()
}

/// The service, if it runs: it is not started for us.
async fn manager() -> Option<Proxy<'static>> {
    let bus = Connection::system().await.ok()?;
    let name = NAME.try_into().ok()?;
    let runs = DBusProxy::new(&bus).await.ok()?.name_has_owner(name).await.ok()?;
    if runs { Proxy::new(&bus, NAME, PATH, MANAGER).await.ok() } else { None }
}

async fn within<T>(work: impl Future<Output = Result<T, ResolvedError>>) -> Result<T, ResolvedError> {
    timeout(LIMIT, work).await.unwrap_or(Err(ResolvedError::Silent))
}

/// Whether programs ask the service: the list of name servers is its own, or names nobody else.
fn is_asked(text: &str, at: &Path) -> bool {
    let mut servers = resolver::servers(text).peekable();
    at.starts_with(FOLDER) || (servers.peek().is_some() && servers.all(|server| STUBS.contains(&server)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_where_the_list_names_it_and_nobody_else() {
        let plain = Path::new(resolver::FILE);
        for (text, at, is) in [
            ("nameserver 127.0.0.53\noptions edns0\n", plain, true),
            ("nameserver 127.0.0.53\nnameserver 192.0.2.1\n", plain, false),
            ("nameserver 192.0.2.1\n", plain, false),
            ("# nobody\n", plain, false),
            ("nameserver 192.0.2.1\n", Path::new("/run/systemd/resolve/resolv.conf"), true),
            ("nameserver 192.0.2.1\n", Path::new("/run/NetworkManager/resolv.conf"), false),
        ] {
            assert_eq!(is_asked(text, at), is, "{text} at {}", at.display());
        }
    }
}
