//! A bad network between two machines: the story's own namespace, and another one that is far away.
//!
//! A wire is a TUN device on either side, and a task that carries packets between them as its weather says. The kernel's own
//! means for that (netem, packet filters) are modules that small machines and containers lack.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::{
    process::Command,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tun::AsyncDevice;

use crate::{
    cli::Cli,
    gateway::{Gateway, Options, Route},
    namespace::ip,
};

/// The story's machine, from wherever the far one is connected.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// Octets of a packet at most.
const MTU: &str = "1400";

/// Packets under way in one direction at most; further ones are lost, as in any queue.
const PACKETS_MAX: usize = 2000;

const UDP: u8 = 17;

/// What becomes of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// How long each takes.
    pub delay: Duration,
    /// How many of a hundred are lost.
    pub lost_percent: u8,
    /// How many of a hundred overtake the others, as if there were no delay.
    pub overtaking_percent: u8,
    /// Whether UDP gets through.
    pub udp: bool,
}

impl Weather {
    /// Everything arrives at once.
    pub const FINE: Self = Self { delay: Duration::ZERO, lost_percent: 0, overtaking_percent: 0, udp: true };
    /// Nothing arrives, and nobody says so.
    pub const DEAD: Self = Self { lost_percent: 100, ..Self::FINE };
}

/// The far machine, gone when it is dropped. What the story's machine calls `localhost` it finds at [`NEAR`].
#[derive(Debug)]
pub struct Far {
    name: String,
    files: PathBuf,
}

impl Far {
    /// A machine without any network. One of them, within [`crate::namespace::inside`].
    ///
    /// # Errors
    /// There is no namespace to be had.
    pub async fn new() -> anyhow::Result<Self> {
        let name = format!("pomerium-far-{}", std::process::id());
        let files = Path::new("/etc/netns").join(&name);
        std::fs::create_dir_all(&files)?;
        std::fs::write(files.join("hosts"), format!("{NEAR} localhost authenticate.localhost\n"))?;
        // Its own, as a client with a network device changes it.
        std::fs::write(files.join("resolv.conf"), "# nobody is asked\n")?;
        let far = Self { name, files };
        ip(&["netns", "add", &far.name]).await?;
        far.ip(&["link", "set", "lo", "up"]).await?;
        ip(&["addr", "replace", &format!("{NEAR}/32"), "dev", "lo"]).await?;
        Ok(far)
    }

    /// A command that runs there.
    #[must_use]
    pub fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(words).kill_on_drop(true);
        command
    }

    /// Lays a wire there; nothing goes over it before [`Far::join`].
    ///
    /// # Errors
    /// There is no TUN device to be had.
    pub async fn wire(&self, number: u8) -> anyhow::Result<Wire> {
        let (near, far) = (format!("near{number}"), format!("far{number}"));
        let (near_device, far_device) = (Arc::new(device(&near)?), Arc::new(device(&far)?));
        ip(&["link", "set", &far, "netns", &self.name]).await?;
        ip(&["addr", "add", &format!("10.77.{number}.1/24"), "dev", &near]).await?;
        ip(&["link", "set", &near, "mtu", MTU, "up"]).await?;
        self.ip(&["link", "set", &far, "mtu", MTU]).await?;
        self.ip(&["addr", "add", &format!("10.77.{number}.2/24"), "dev", &far]).await?;
        let weather = watch::Sender::new(Weather::FINE);
        let mut carriers = JoinSet::new();
        carriers.spawn(carry(Arc::clone(&near_device), Arc::clone(&far_device), weather.subscribe(), 1));
        carriers.spawn(carry(far_device, near_device, weather.subscribe(), 2));
        Ok(Wire { number, far, weather, _carriers: carriers })
    }

    /// Lays a cable there and goes online by it: the kernel's own, without weather.
    ///
    /// # Errors
    /// What `ip` says.
    pub async fn cable(&self) -> anyhow::Result<()> {
        let peer = ["peer", "name", "far9", "netns", &self.name];
        ip(&[&["link", "add", "near9", "type", "veth"][..], &peer].concat()).await?;
        ip(&["addr", "add", "10.77.9.1/24", "dev", "near9"]).await?;
        ip(&["link", "set", "near9", "up"]).await?;
        self.ip(&["addr", "add", "10.77.9.2/24", "dev", "far9"]).await?;
        self.ip(&["link", "set", "far9", "up"]).await?;
        self.ip(&["route", "replace", "default", "via", "10.77.9.1"]).await.map(drop)
    }

    /// Goes online by a wire.
    ///
    /// # Errors
    /// What `ip` says.
    pub async fn join(&self, wire: &Wire) -> anyhow::Result<()> {
        self.ip(&["link", "set", &wire.far, "up"]).await?;
        self.ip(&["route", "replace", "default", "via", &format!("10.77.{}.1", wire.number)]).await?;
        Ok(())
    }

    /// Pulls a wire out: its device is down, and its routes are gone.
    ///
    /// # Errors
    /// What `ip` says.
    pub async fn leave(&self, wire: &Wire) -> anyhow::Result<()> {
        self.ip(&["link", "set", &wire.far, "down"]).await.map(drop)
    }

    async fn ip(&self, words: &[&str]) -> anyhow::Result<String> {
        ip(&[&["-n", &self.name], words].concat()).await
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        // What is left of it is told by `ip netns`, and harms nobody.
        let _left = std::process::Command::new("ip").args(["netns", "del", &self.name]).status();
        let _left = std::fs::remove_dir_all(&self.files);
    }
}

/// A link between the two machines.
#[derive(Debug)]
pub struct Wire {
    number: u8,
    far: String,
    weather: watch::Sender<Weather>,
    _carriers: JoinSet<()>,
}

impl Wire {
    /// Changes the weather, in both directions.
    pub fn weather(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

/// A gateway for the far machine, and a client that has signed in, by asking for `destination`: the browser is on this machine.
///
/// # Errors
/// The gateway does not start, or nobody has signed in.
pub async fn signed_in(routes: &[Route], destination: &str) -> anyhow::Result<(Gateway, Cli)> {
    let options = Options { ip: "0.0.0.0", ..Options::default() };
    let gateway = Gateway::start_with(routes, &options).await?;
    let mut cli = Cli::new(&gateway, "alice")?;
    // Elsewhere than on loopback, `localhost` is not the gateway's.
    cli.speak_to(&gateway, "authenticate.localhost");
    let mut signing_in = cli.command(&["tcp", destination, "--listen", "-"])?;
    let output = signing_in.stdin(Stdio::null()).output().await?;
    ensure!(cli.sign_ins() == 1, "{}\n{}", String::from_utf8_lossy(&output.stderr), cli.trouble());
    Ok((gateway, cli))
}

fn device(name: &str) -> anyhow::Result<AsyncDevice> {
    let mut wanted = tun::Configuration::default();
    wanted.tun_name(name);
    wanted.platform_config(|linux| _ = linux.ensure_root_privileges(false));
    tun::create_as_async(&wanted).with_context(|| format!("no TUN device {name}"))
}

async fn carry(
    from: Arc<AsyncDevice>,
    to: Arc<AsyncDevice>,
    weather: watch::Receiver<Weather>,
    mut chance: u64,
) {
    let mut under_way: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
    let mut count = 0_u64;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let next = under_way.first_key_value().map(|((due, _), _)| *due);
        tokio::select! {
            biased;
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Some((_, packet)) = under_way.pop_first() {
                    // A device that is down takes nothing.
                    let _lost = to.send(&packet).await;
                }
            }
            read = from.recv(&mut buffer) => {
                let Ok(len) = read else {
                    // It is down; a wire that is pulled out is looked at now and then.
                    sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let packet = buffer[..len].to_vec();
                let Some(delay) = fate(&packet, *weather.borrow(), &mut chance) else { continue };
                if under_way.len() < PACKETS_MAX {
                    count += 1;
                    under_way.insert((Instant::now() + delay, count), packet);
                }
            }
        }
    }
}

/// How long a packet takes; `None`: it is lost.
fn fate(packet: &[u8], weather: Weather, chance: &mut u64) -> Option<Duration> {
    let is_udp = packet.get(9) == Some(&UDP);
    if (is_udp && !weather.udp) || percent(chance) < weather.lost_percent {
        return None;
    }
    let overtakes = percent(chance) < weather.overtaking_percent;
    Some(if overtakes { Duration::ZERO } else { weather.delay })
}

/// A number below a hundred; the same ones in each run (Marsaglia's xorshift).
fn percent(chance: &mut u64) -> u8 {
    *chance ^= *chance << 13;
    *chance ^= *chance >> 7;
    *chance ^= *chance << 17;
    u8::try_from(*chance % 100).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weather_does_what_it_says() {
        let mut chance = 1;
        let (mut udp, mut tcp) = (vec![0; 20], vec![0; 20]);
        (udp[9], tcp[9]) = (UDP, 6);
        assert_eq!(fate(&udp, Weather::FINE, &mut chance), Some(Duration::ZERO));
        assert_eq!(fate(&tcp, Weather::DEAD, &mut chance), None);
        let no_udp = Weather { udp: false, ..Weather::FINE };
        assert_eq!(fate(&udp, no_udp, &mut chance), None);
        assert_eq!(fate(&tcp, no_udp, &mut chance), Some(Duration::ZERO));
        let bad = Weather { lost_percent: 5, ..Weather::FINE };
        let lost = (0..10_000).filter(|_| fate(&udp, bad, &mut chance).is_none()).count();
        assert!((400..600).contains(&lost), "{lost}");
    }
}
