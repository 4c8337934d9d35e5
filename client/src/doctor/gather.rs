//! Looks at this machine and at the way to the gateway. Each look has a limit of time, and what fails is a fact too.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pomerium_shared::clock::Now;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};

use super::{
    certificate::not_after,
    facts::{Buffers, Certificate, Facts, Quic, Seen},
    system,
};
use crate::{
    exit::chain,
    gateway::Gateway,
    link::{answer::shown, portal},
    trust::Trust,
};

/// How long each look may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the search for the largest packet may take, and how often its result is looked at.
const MTU_LIMIT: Duration = Duration::from_secs(2);
const MTU_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes of an answer's head at most.
const HEAD_LEN_MAX: u64 = 16 * 1024;
/// What programs read to find a proxy; curl reads both spellings.
const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// All facts, as of now; who is signed in and what daemon runs is told by the caller.
pub(crate) async fn gather(gateway: &Gateway, trust: &Trust) -> Facts {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut facts = Facts {
        gateway: gateway.to_string(),
        host: gateway.host().to_owned(),
        port: gateway.port(),
        dns: system::dns(),
        tunnels: system::tunnels(),
        buffers: buffers(),
        proxies: PROXY_VARIABLES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), variable(name)?)))
            .collect(),
        no_proxy: variable("no_proxy").or_else(|| variable("NO_PROXY")),
        ..Facts::default()
    };
    let began = Now::read().monotonic;
    let found =
        within(async { Ok(lookup_host((gateway.host(), gateway.port())).await?.collect::<Vec<_>>()) }).await;
    facts.addresses = match found {
        Ok(addresses) if addresses.is_empty() => Seen::Failed("the name has no address".to_owned()),
        Ok(addresses) => Seen::Got((addresses, since(began))),
        Err(why) => Seen::Failed(why),
    };
    let Seen::Got((addresses, _)) = &facts.addresses else { return facts };
    let addresses = addresses.clone();
    facts.device = match addresses.first() {
        Some(address) => system::device(address.ip()).await,
        None => None,
    };
    let (tcp, udp) = tokio::join!(by_tcp(gateway, trust, &addresses), by_udp(gateway, trust, &addresses));
    facts.udp = udp;
    (facts.tcp, facts.certificate) = (tcp.took, tcp.certificate);
    (facts.clock_ahead, facts.is_gateway) = (tcp.clock_ahead, tcp.is_gateway);
    if facts.is_gateway != Some(true) {
        facts.portal = portal::look(gateway).await;
    }
    facts
}

#[derive(Default)]
struct ByTcp {
    took: Seen<Duration>,
    certificate: Seen<Certificate>,
    clock_ahead: Option<i64>,
    is_gateway: Option<bool>,
}

async fn by_tcp(gateway: &Gateway, trust: &Trust, addresses: &[SocketAddr]) -> ByTcp {
    let mut seen = ByTcp::default();
    let began = Now::read().monotonic;
    let stream = match within(async { TcpStream::connect(addresses).await }).await {
        Ok(stream) => stream,
        Err(why) => return ByTcp { took: Seen::Failed(why), ..seen },
    };
    seen.took = Seen::Got(since(began));
    if !gateway.tls() {
        return seen;
    }
    let config = trust.apply(pomerium_shared::tls::client_config(trust.roots(), &[b"http/1.1"]));
    let Ok(name) = ServerName::try_from(gateway.host().to_owned()) else {
        seen.certificate = Seen::Failed("the host has no name that a certificate could have".to_owned());
        return seen;
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = match within(connector.connect(name, stream)).await {
        Ok(stream) => stream,
        Err(why) => return ByTcp { certificate: Seen::Failed(why), ..seen },
    };
    let wall = seconds(Now::read().wall);
    let der = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let left = der.and_then(|der| Some(not_after(der)? - wall));
    seen.certificate = Seen::Got(Certificate { left });
    let asked = within(async {
        let request =
            format!("GET /ping HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.authority());
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        // A peer that leaves without a goodbye of TLS has answered all the same.
        let _ended = (&mut stream).take(HEAD_LEN_MAX).read_to_end(&mut head).await;
        Ok(String::from_utf8_lossy(&head).into_owned())
    });
    let head = asked.await.unwrap_or_default();
    seen.is_gateway = Some(head.starts_with("HTTP/1.1 200 "));
    seen.clock_ahead = date_in(&head).map(|date| date - seconds(Now::read().wall));
    seen
}

/// The `Date` of an answer, in seconds since 1970.
fn date_in(head: &str) -> Option<i64> {
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then_some(value.trim())
    })?;
    Some(jiff::fmt::rfc2822::parse(value).ok()?.timestamp().as_second())
}

async fn by_udp(gateway: &Gateway, trust: &Trust, addresses: &[SocketAddr]) -> Seen<Quic> {
    if !gateway.tls() {
        return Seen::NotTried;
    }
    let config = trust.apply(pomerium_shared::tls::client_config(trust.roots(), &[b"h3"]));
    let config = match pomerium_shared::quic::client_config(config) {
        Ok(config) => config,
        Err(error) => return Seen::Failed(chain(&error)),
    };
    let mut told = "no address".to_owned();
    for address in addresses.iter().take(2) {
        match one_by_udp(gateway, config.clone(), *address).await {
            Ok(quic) => return Seen::Got(quic),
            Err(why) => told = why,
        }
    }
    Seen::Failed(told)
}

async fn one_by_udp(
    gateway: &Gateway,
    config: quinn::ClientConfig,
    address: SocketAddr,
) -> Result<Quic, String> {
    let any: SocketAddr =
        if address.is_ipv6() { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
    let socket = pomerium_shared::quic::bind(any).map_err(|error| chain(&error))?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime);
    let endpoint = endpoint.map_err(|error| chain(&error))?;
    let began = Now::read().monotonic;
    let connecting = endpoint.connect_with(config, address, gateway.host()).map_err(|error| chain(&error))?;
    let connection = timeout(LIMIT, connecting).await.map_err(|_| "no answer".to_owned())?;
    let connection = connection.map_err(|error| shown(&chain(&error)))?;
    let took = since(began);
    let mtu = largest(&connection).await;
    connection.close(0x100_u32.into(), b"");
    let _late_is_harmless = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    Ok(Quic { took, mtu })
}

/// The packet size once it has stopped growing.
async fn largest(connection: &quinn::Connection) -> u16 {
    let of_now = || connection.stats().path.current_mtu;
    let (mut mtu, mut since_growth, mut waited) = (of_now(), Duration::ZERO, Duration::ZERO);
    while waited < MTU_LIMIT && since_growth < MTU_LIMIT / 4 {
        sleep(MTU_INTERVAL).await;
        waited += MTU_INTERVAL;
        let now = of_now();
        since_growth = if now > mtu { Duration::ZERO } else { since_growth + MTU_INTERVAL };
        mtu = mtu.max(now);
    }
    mtu
}

/// The buffers that a socket of ours gets.
fn buffers() -> Option<Buffers> {
    let socket = pomerium_shared::quic::bind((Ipv4Addr::LOCALHOST, 0).into()).ok()?;
    let socket = socket2::SockRef::from(&socket);
    Some(Buffers { receive: socket.recv_buffer_size().ok()?, send: socket.send_buffer_size().ok()? })
}

async fn within<T>(work: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match timeout(LIMIT, work).await {
        Ok(done) => done.map_err(|error| shown(&chain(&error))),
        Err(_) => Err("no answer within 5 seconds".to_owned()),
    }
}

fn since(began: std::time::Instant) -> Duration {
    Now::read().monotonic.saturating_duration_since(began)
}

fn seconds(wall: SystemTime) -> i64 {
    wall.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        let head = "HTTP/1.1 200 OK\r\ndate: Tue, 14 Nov 2023 22:13:20 GMT\r\n\r\n";
        assert_eq!(date_in(head), Some(1_700_000_000));
        for odd in ["", "HTTP/1.1 200 OK\r\ndate: soon\r\n\r\n"] {
            assert_eq!(date_in(odd), None, "{odd}");
        }
    }
}
