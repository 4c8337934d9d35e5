//! What the facts mean, and what to do. Pure.

use std::time::Duration;

use pomerium_shared::finding::{Finding, Grade};

use super::facts::{Buffers, Facts, Seen, Writer};

/// An answer of a name server that people begin to notice.
const SLOW_DNS: Duration = Duration::from_millis(500);
/// A clock that is wrong by so much makes tokens and certificates look as if they were not yet or no longer good.
const SKEW_WEAK_SECS: i64 = 30;
const SKEW_BAD_SECS: i64 = 300;
const DAY_SECS: i64 = 24 * 60 * 60;
/// A certificate that ends sooner should have been renewed.
const CERTIFICATE_LEFT_SECS: i64 = 7 * DAY_SECS;
/// QUIC's smallest packet (RFC 9000, 14): with less of UDP payload it does not work at all.
const QUIC_MTU_MIN: u16 = 1200;
/// QUIC's smallest packet and the headers of IPv6 and UDP.
const DEVICE_MTU_MIN: u32 = 1280;
/// What fills a fast line: below it a quick sender overruns the socket.
const BUFFER_LEN: usize = 2 * 1024 * 1024;

/// What each fact means, in the order in which one is needed for the next.
pub(crate) fn check(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![dns(facts), name(facts)];
    all.extend(tunnels(facts));
    all.extend(facts.portal.as_deref().map(portal));
    all.extend([tcp(facts), certificate(facts)]);
    all.extend(speaks(facts));
    all.extend(clock(facts));
    all.extend([udp(facts), mtu(facts)]);
    all.extend(facts.buffers.map(buffers));
    all.extend([proxies(facts), daemon(facts), keyring(facts), session(facts)]);
    all
}

fn dns(facts: &Facts) -> Finding {
    const ABOUT: &str = "name servers";
    let servers: Vec<String> = facts.dns.servers.iter().map(ToString::to_string).collect();
    let servers = if servers.is_empty() { "none".to_owned() } else { servers.join(", ") };
    let by = match facts.dns.writer {
        Writer::Resolved => "systemd-resolved",
        Writer::NetworkManager => "NetworkManager",
        Writer::Resolvconf => "resolvconf",
        Writer::Nobody => "no program that says so",
        Writer::Ours => {
            return Finding::of(
                Grade::Weak,
                ABOUT,
                format!("{servers}; /etc/resolv.conf is changed by pomerium-cli connect --tun"),
                "If that does not run any more: pomerium-cli repair",
            );
        }
        Writer::Missing => {
            return Finding::of(
                Grade::Bad,
                ABOUT,
                "there is no /etc/resolv.conf",
                "Turn on your network's name servers: with systemd, systemctl enable --now systemd-resolved",
            );
        }
    };
    if facts.dns.servers.is_empty() {
        let to_do = "Connect to a network, or write a line \"nameserver ADDRESS\" into /etc/resolv.conf.";
        return Finding::of(Grade::Bad, ABOUT, "/etc/resolv.conf names none", to_do);
    }
    Finding::good(ABOUT, format!("{servers}; /etc/resolv.conf is written by {by}"))
}

fn name(facts: &Facts) -> Finding {
    const ABOUT: &str = "name";
    let host = &facts.host;
    match &facts.addresses {
        Seen::NotTried => {
            Finding::of(Grade::Weak, ABOUT, "not looked up", "Name a gateway: pomerium-cli doctor URL")
        }
        Seen::Failed(why) => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("{host} has no address: {why}"),
            format!(
                "Check the spelling; ask another name server: nslookup {host} 1.1.1.1. If only your company's knows it, connect to that network."
            ),
        ),
        Seen::Got((addresses, took)) => {
            let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            let says = format!("{host} is {} ({} ms)", shown.join(", "), took.as_millis());
            if *took > SLOW_DNS {
                let to_do = "The name server is slow: try another one, or a cache such as systemd-resolved.";
                return Finding::of(Grade::Weak, ABOUT, says, to_do);
            }
            Finding::good(ABOUT, says)
        }
    }
}

fn tunnels(facts: &Facts) -> Vec<Finding> {
    const ABOUT: &str = "other VPN";
    let on_the_way = facts
        .device
        .as_ref()
        .and_then(|device| facts.tunnels.iter().find(|tunnel| tunnel.name == device.name));
    if let Some(tunnel) = on_the_way {
        let says =
            format!("{} is reached through {} ({}), another tunnel", facts.host, tunnel.name, tunnel.kind);
        let to_do =
            "It works, but slower, and ends when that tunnel does: except the gateway from it, if you can.";
        return vec![Finding::of(Grade::Weak, ABOUT, says, to_do)];
    }
    let names: Vec<String> =
        facts.tunnels.iter().map(|tunnel| format!("{} ({})", tunnel.name, tunnel.kind)).collect();
    vec![match names.as_slice() {
        [] => Finding::good(ABOUT, "none"),
        names => Finding::good(ABOUT, format!("{}, not on the way to the gateway", names.join(", "))),
    }]
}

fn portal(page: &str) -> Finding {
    let says = "this network wants you to sign in first: it answers in the gateway's place";
    let to_do = format!("Open {page} in the browser, a page of the network, and look again.");
    Finding::of(Grade::Bad, "captive portal", says, to_do)
}

fn tcp(facts: &Facts) -> Finding {
    const ABOUT: &str = "TCP";
    match &facts.tcp {
        Seen::NotTried => Finding::not_tried(ABOUT),
        Seen::Failed(why) => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("port {} cannot be reached: {why}", facts.port),
            "Check the port; the gateway may be down. If it works from elsewhere, this network blocks it: ask who runs it.",
        ),
        Seen::Got(took) => {
            Finding::good(ABOUT, format!("port {} answers ({} ms)", facts.port, took.as_millis()))
        }
    }
}

fn certificate(facts: &Facts) -> Finding {
    const ABOUT: &str = "certificate";
    match &facts.certificate {
        Seen::NotTried => Finding::not_tried(ABOUT),
        Seen::Failed(why) => Finding::of(
            Grade::Bad,
            ABOUT,
            why.clone(),
            "Your own CA? Name it: --alternate-ca-path ca.pem. Expired? Tell your administrator. Neither? Somebody may be in between: do not go on.",
        ),
        Seen::Got(certificate) => match certificate.left {
            Some(left) if left < CERTIFICATE_LEFT_SECS => Finding::of(
                Grade::Weak,
                ABOUT,
                format!("believed, but it ends in {}", span(left)),
                "Tell your administrator that it was not renewed.",
            ),
            Some(left) => Finding::good(ABOUT, format!("believed, for {} more", span(left))),
            None => Finding::good(ABOUT, "believed"),
        },
    }
}

fn speaks(facts: &Facts) -> Option<Finding> {
    const ABOUT: &str = "gateway";
    Some(if facts.is_gateway? {
        Finding::good(ABOUT, "answers as a gateway does")
    } else {
        Finding::of(
            Grade::Bad,
            ABOUT,
            format!("what answers at {} is no gateway", facts.gateway),
            "Check the address. In a hotel or a train: open any page in the browser and sign in to the Wi-Fi first.",
        )
    })
}

fn clock(facts: &Facts) -> Option<Finding> {
    const ABOUT: &str = "clock";
    let ahead = facts.clock_ahead?;
    let says = match ahead {
        0 => "as the gateway's".to_owned(),
        _ if ahead > 0 => format!("{} behind the gateway's", span(ahead)),
        _ => format!("{} ahead of the gateway's", span(-ahead)),
    };
    let grade = match ahead.abs() {
        off if off >= SKEW_BAD_SECS => Grade::Bad,
        off if off >= SKEW_WEAK_SECS => Grade::Weak,
        _ => return Some(Finding::good(ABOUT, says)),
    };
    Some(Finding::of(
        grade,
        ABOUT,
        says,
        "Let the network set it: timedatectl set-ntp true. If it is right, the gateway's is wrong: tell your administrator.",
    ))
}

fn udp(facts: &Facts) -> Finding {
    const ABOUT: &str = "UDP";
    match &facts.udp {
        Seen::NotTried => Finding::not_tried(ABOUT),
        // Nothing gets there: the line about TCP says what to do.
        Seen::Failed(_) if matches!(facts.tcp, Seen::Failed(_)) => Finding::not_tried(ABOUT),
        Seen::Failed(why) => Finding::of(
            Grade::Weak,
            ABOUT,
            format!("QUIC does not get through on port {}: {why}", facts.port),
            format!(
                "Streams go over TLS on TCP instead, which is slower. Have UDP to port {} let out.",
                facts.port
            ),
        ),
        Seen::Got(quic) => Finding::good(
            ABOUT,
            format!("QUIC gets through on port {} ({} ms)", facts.port, quic.took.as_millis()),
        ),
    }
}

fn mtu(facts: &Facts) -> Finding {
    const ABOUT: &str = "packet size";
    let device = facts.device.as_ref().and_then(|device| Some((&device.name, device.mtu?)));
    if let Some((name, mtu)) = device
        && mtu < DEVICE_MTU_MIN
    {
        let says = format!("{name} takes packets of {mtu} bytes, and QUIC needs {DEVICE_MTU_MIN}");
        return Finding::of(Grade::Bad, ABOUT, says, format!("Raise it: ip link set {name} mtu 1400"));
    }
    let of_device = device.map(|(name, mtu)| format!("{name} takes {mtu} bytes")).unwrap_or_default();
    match &facts.udp {
        Seen::Got(quic) if quic.mtu <= QUIC_MTU_MIN => Finding::of(
            Grade::Weak,
            ABOUT,
            format!("only the smallest packets get through ({} bytes of UDP){}", quic.mtu, and(&of_device)),
            "Something on the way is narrow, such as a tunnel: large transfers cost more than they must.",
        ),
        Seen::Got(quic) => {
            Finding::good(ABOUT, format!("{} bytes of UDP get through{}", quic.mtu, and(&of_device)))
        }
        _ if of_device.is_empty() => Finding::not_tried(ABOUT),
        _ => Finding::good(ABOUT, of_device),
    }
}

fn and(more: &str) -> String {
    if more.is_empty() { String::new() } else { format!("; {more}") }
}

fn buffers(buffers: Buffers) -> Finding {
    const ABOUT: &str = "socket buffers";
    let says = format!("{} KiB to receive, {} KiB to send", buffers.receive / 1024, buffers.send / 1024);
    if buffers.receive >= BUFFER_LEN && buffers.send >= BUFFER_LEN {
        return Finding::good(ABOUT, says);
    }
    Finding::of(
        Grade::Weak,
        ABOUT,
        says,
        "Fast transfers lose packets. As root: sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304; to keep it, write both into /etc/sysctl.d/pomerium.conf.",
    )
}

fn proxies(facts: &Facts) -> Finding {
    const ABOUT: &str = "proxy variables";
    if facts.proxies.is_empty() {
        return Finding::good(ABOUT, "none");
    }
    let names: Vec<&str> = facts.proxies.iter().map(|(name, _)| name.as_str()).collect();
    let says = format!("{} set", names.join(", "));
    let exceptions = facts.no_proxy.as_deref().unwrap_or_default();
    let is_excepted = exceptions
        .split(',')
        .map(str::trim)
        .any(|name| matches!(name, "*" | "127.0.0.1" | "localhost" | "127.0.0.0/8"));
    if is_excepted {
        return Finding::good(
            ABOUT,
            format!("{says}, and this machine excepted; pomerium-cli itself goes direct"),
        );
    }
    Finding::of(
        Grade::Weak,
        ABOUT,
        format!("{says}: programs may send there what is for a local port; pomerium-cli itself goes direct"),
        "Except this machine: export no_proxy=localhost,127.0.0.0/8,127.0.0.1,::1",
    )
}

fn daemon(facts: &Facts) -> Finding {
    const ABOUT: &str = "daemon";
    let own = env!("CARGO_PKG_VERSION");
    match &facts.daemon {
        None => Finding::good(ABOUT, "does not run; commands do without"),
        Some(version) if version == own => Finding::good(ABOUT, format!("runs, version {version}")),
        Some(version) => Finding::of(
            Grade::Weak,
            ABOUT,
            format!("is version {version}, this command is {own}"),
            "Restart it: systemctl --user restart pomerium-cli",
        ),
    }
}

fn keyring(facts: &Facts) -> Finding {
    const ABOUT: &str = "keyring";
    match &facts.keyring {
        Seen::Got(()) => Finding::good(ABOUT, "session and device key are sealed with a key that it has"),
        Seen::NotTried => Finding::not_tried(ABOUT),
        Seen::Failed(why) => Finding::of(
            Grade::Weak,
            ABOUT,
            format!("session and device key lie in files that only you can read: {why}"),
            "Unlock it, or install one: GNOME Keyring, KWallet or KeePassXC. Without a desktop this is as good as it gets.",
        ),
    }
}

fn session(facts: &Facts) -> Finding {
    const ABOUT: &str = "session";
    match &facts.person {
        Some(person) => Finding::good(ABOUT, format!("signed in as {person}")),
        None => {
            Finding::of(Grade::Weak, ABOUT, "not signed in", format!("pomerium-cli login {}", facts.gateway))
        }
    }
}

fn span(seconds: i64) -> String {
    match seconds {
        ..0 => "no time at all".to_owned(),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / DAY_SECS),
    }
}

#[cfg(test)]
mod tests;
