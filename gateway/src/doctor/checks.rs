//! What the facts mean, and what to do. Pure.

use pomerium_shared::finding::{Finding, Grade};

use super::facts::{Answer, Certificate, Door, Facts, Store};

const DAY_SECS: i64 = 24 * 60 * 60;
/// A certificate that ends sooner should have been renewed.
const CERTIFICATE_LEFT_SECS: i64 = 14 * DAY_SECS;
/// What ID tokens and their dates are forgiven.
const SKEW_WEAK_SECS: i64 = 10;
const SKEW_BAD_SECS: i64 = 60;
/// What fills a fast line with many clients.
const BUFFER_LEN: usize = 2 * 1024 * 1024;

/// What each fact means, in the order in which one is needed for the next.
pub(crate) fn check(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![discovery(facts)];
    all.extend(redirect(facts));
    all.extend(clock(facts));
    all.extend(facts.certificates.iter().map(certificate));
    all.extend([names(facts), store(facts), here(facts), address(facts), outside(facts)]);
    all.extend([clients(facts), udp(facts)]);
    all.extend(facts.buffers.map(buffers));
    all
}

fn discovery(facts: &Facts) -> Finding {
    const ABOUT: &str = "provider";
    let issuer = &facts.provider.issuer;
    match &facts.provider.discovery {
        Ok(()) => Finding::good(ABOUT, format!("{issuer} publishes its addresses and keys")),
        Err(why) => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("{issuer}: {why}"),
            "Check idp_provider_url, and that this machine may go out to it; nobody can sign in.",
        ),
    }
}

fn redirect(facts: &Facts) -> Option<Finding> {
    const ABOUT: &str = "redirect address";
    let redirect = &facts.provider.redirect;
    Some(match facts.provider.answer.as_ref()? {
        Answer::GoesOn => Finding::good(ABOUT, format!("the provider goes on with {redirect}")),
        Answer::NoSuchRedirect => Finding::of(
            Grade::Bad,
            ABOUT,
            "the provider does not know it",
            format!("Register it there, letter by letter: {redirect}"),
        ),
        Answer::Refuses(why) => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("the provider refuses a sign-in: {why}"),
            format!("Check idp_client_id and idp_scopes, and that {redirect} is registered there."),
        ),
        Answer::Silent(why) => Finding::of(
            Grade::Weak,
            ABOUT,
            format!("the provider's sign-in page does not answer: {why}"),
            "Open the sign-in host in a browser and see.",
        ),
    })
}

fn clock(facts: &Facts) -> Option<Finding> {
    const ABOUT: &str = "clock";
    let off = facts.provider.clock_ahead?;
    let says = format!("{} s {} the provider's", off.abs(), if off > 0 { "behind" } else { "ahead of" });
    let grade = match off.abs() {
        off if off >= SKEW_BAD_SECS => Grade::Bad,
        off if off >= SKEW_WEAK_SECS => Grade::Weak,
        _ => return Some(Finding::good(ABOUT, "as the provider's")),
    };
    Some(Finding::of(grade, ABOUT, says, "Let the network set it: timedatectl set-ntp true"))
}

fn certificate(certificate: &Certificate) -> Finding {
    const ABOUT: &str = "certificate";
    let name = &certificate.name;
    let renew = "Renew it; the gateway takes new files at SIGHUP or when they change.";
    match certificate.left {
        _ if !certificate.is_begun => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("{name}: does not hold yet"),
            "Check this machine's clock.",
        ),
        None => Finding::of(Grade::Weak, ABOUT, format!("{name}: its dates cannot be read"), renew),
        Some(left) if left < 0 => Finding::of(Grade::Bad, ABOUT, format!("{name}: has expired"), renew),
        Some(left) if left < CERTIFICATE_LEFT_SECS => {
            Finding::of(Grade::Weak, ABOUT, format!("{name}: ends in {} days", left / DAY_SECS), renew)
        }
        Some(left) => Finding::good(ABOUT, format!("{name}: for {} more days", left / DAY_SECS)),
    }
}

fn names(facts: &Facts) -> Finding {
    const ABOUT: &str = "names";
    if facts.uncovered.is_empty() {
        return Finding::good(ABOUT, "each host of a route has a certificate");
    }
    let hosts = facts.uncovered.join(", ");
    if facts.has_autocert {
        return Finding::good(ABOUT, format!("autocert gets certificates for {hosts}"));
    }
    Finding::of(
        Grade::Bad,
        ABOUT,
        format!("no certificate is for {hosts}"),
        "Add one to certificates, or set autocert: true; browsers and clients refuse those hosts.",
    )
}

fn store(facts: &Facts) -> Finding {
    const ABOUT: &str = "store";
    match &facts.store {
        Store::Memory => Finding::of(
            Grade::Weak,
            ABOUT,
            "in memory: a restart signs everybody out",
            "Set databroker_storage_type: file and databroker_storage_connection_string: file:///var/lib/pomerium-gateway",
        ),
        Store::Folder { path, opened: Ok(()) } => {
            Finding::good(ABOUT, format!("{} can be read and written", path.display()))
        }
        Store::Folder { path, opened: Err(why) } => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("{}: {why}", path.display()),
            "Give the folder to the user that the gateway runs as, and run the doctor as that user; look for a full disk.",
        ),
        Store::Postgres { opened: Ok(()) } => {
            Finding::good(ABOUT, "PostgreSQL answers, and its tables are up to date")
        }
        Store::Postgres { opened: Err(why) } => Finding::of(
            Grade::Bad,
            ABOUT,
            why.clone(),
            "Look whether the database runs and takes this user from here (databroker_storage_connection_string), and whether \
             shared_secret is the one of the other gateways.",
        ),
    }
}

fn here(facts: &Facts) -> Finding {
    const ABOUT: &str = "this machine";
    match &facts.here {
        Door::Ours => Finding::good(ABOUT, "the gateway answers on its address"),
        Door::Closed(why) => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("nothing answers on the gateway's address: {why}"),
            "Start it: systemctl start pomerium-gateway. If it is, look into its log.",
        ),
        Door::OtherCertificate | Door::NoTls(_) | Door::NoAnswer => Finding::of(
            Grade::Bad,
            ABOUT,
            "something else answers on the gateway's address",
            "Stop what uses the port (ss -ltnp shows it), or run the doctor with the configuration that the gateway runs with.",
        ),
    }
}

fn address(facts: &Facts) -> Finding {
    const ABOUT: &str = "public name";
    let host = &facts.sign_in_host;
    match &facts.addresses {
        Err(why) => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("{host} has no address: {why}"),
            format!(
                "Let {host} and the routes' hosts lead to this gateway, or to the balancer in front of it."
            ),
        ),
        Ok(addresses) => {
            let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let whose = if facts.is_this_machine {
                "of this machine"
            } else {
                "not of this machine: a balancer or a NAT is in front"
            };
            Finding::good(ABOUT, format!("{host} is {}, {whose}", all.join(", ")))
        }
    }
}

fn outside(facts: &Facts) -> Finding {
    const ABOUT: &str = "way in";
    let place = format!("{}:{}", facts.sign_in_host, facts.port);
    if facts.addresses.is_err() {
        return Finding::not_tried(ABOUT);
    }
    match &facts.outside {
        Door::Ours => Finding::good(ABOUT, format!("{place} leads to this gateway")),
        Door::Closed(why) => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("{place} takes no connection: {why}"),
            "Open the port in firewalls and balancers. Some networks do not lead back to themselves: try from outside, too.",
        ),
        Door::OtherCertificate => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("{place} shows another certificate than the gateway's"),
            "A balancer must pass TLS on as it is (TCP mode): device keys, client certificates and streams end with TLS.",
        ),
        Door::NoTls(_) | Door::NoAnswer if facts.use_proxy_protocol => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("{place} leads somewhere, but not to an answer"),
            "use_proxy_protocol is on: the balancer must send the PROXY header (HAProxy: send-proxy-v2). Without a balancer, turn it off.",
        ),
        Door::NoTls(_) | Door::NoAnswer if facts.here == Door::Ours => Finding::of(
            Grade::Bad,
            ABOUT,
            format!("{place} leads somewhere, but not to an answer"),
            "If the balancer in front sends the PROXY header, set use_proxy_protocol: true; if not, see where it leads.",
        ),
        Door::NoTls(_) | Door::NoAnswer => Finding::not_tried(ABOUT),
    }
}

fn clients(facts: &Facts) -> Finding {
    const ABOUT: &str = "clients' addresses";
    match (facts.is_this_machine, facts.use_proxy_protocol) {
        (true, false) => Finding::good(ABOUT, "clients connect to this machine itself"),
        (_, true) if facts.outside == Door::Ours => {
            Finding::good(ABOUT, "come in the balancer's PROXY header")
        }
        (_, true) => Finding::not_tried(ABOUT),
        (false, false) => Finding::of(
            Grade::Weak,
            ABOUT,
            "a balancer may hide them: policy, log and limits would see its address",
            "If there is one, let it send the PROXY header and set use_proxy_protocol: true. A NAT that keeps addresses needs nothing.",
        ),
    }
}

fn udp(facts: &Facts) -> Finding {
    const ABOUT: &str = "UDP";
    if !facts.speaks_quic {
        let to_do = "Leave codec_type out, and open the port for UDP: streams are faster, and survive a change of address.";
        return Finding::of(Grade::Weak, ABOUT, "codec_type has no HTTP/3: all streams go over TCP", to_do);
    }
    if facts.addresses.is_err() {
        return Finding::not_tried(ABOUT);
    }
    match &facts.udp {
        Ok(took) => Finding::good(
            ABOUT,
            format!("QUIC gets to {}:{} ({} ms)", facts.sign_in_host, facts.port, took.as_millis()),
        ),
        Err(why) => Finding::of(
            Grade::Weak,
            ABOUT,
            format!("QUIC does not get to {}:{}: {why}", facts.sign_in_host, facts.port),
            format!(
                "Open UDP {} in firewalls, and let the balancer pass it on; until then streams go over TCP.",
                facts.port
            ),
        ),
    }
}

fn buffers((receive, send): (usize, usize)) -> Finding {
    const ABOUT: &str = "socket buffers";
    let says = format!("{} KiB to receive, {} KiB to send", receive / 1024, send / 1024);
    if receive >= BUFFER_LEN && send >= BUFFER_LEN {
        return Finding::good(ABOUT, says);
    }
    let to_do = "QUIC loses packets under load: sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304, and write both into /etc/sysctl.d.";
    Finding::of(Grade::Weak, ABOUT, says, to_do)
}

#[cfg(test)]
mod tests;
