//! The file of forwards that are kept: what stands in it, and the loopback address of an app. No I/O.
//!
//! ```yaml
//! forwards:
//!   - name: db
//!     gateway: https://gate.example
//!     route: db.corp.example:5432
//!     listen: 127.91.4.7:5432   # made of gateway and route if left out: the same each time
//!     protocol: postgres        # known from the port if left out: postgres, mysql, ssh or http
//!   - gateway: https://gate.example
//!     type: udp                 # tcp if left out
//!     route: dns.corp.example:53
//!   - gateway: https://gate.example
//!     type: proxy               # one port for all TCP routes, for programs that can use a proxy
//!     listen: 127.0.0.1:3128
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pomerium_shared::destination::Destination;
use saphyr_parser::{Event, Parser};
use sha2::{Digest as _, Sha256};

use super::refused::Protocol;
use crate::gateway::Gateway;

/// Bytes of the file at most.
pub(crate) const FILE_LEN_MAX: u64 = 256 * 1024;
/// Where a proxy listens that does not say it.
const PROXY_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// Forwards at most.
const FORWARDS_MAX: usize = 256;

/// A forward that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    /// What people call it.
    pub(crate) name: String,
    /// Through which gateway.
    pub(crate) gateway: Gateway,
    /// What is there.
    pub(crate) leads: Leads,
    /// Where programs connect.
    pub(crate) listen: SocketAddr,
}

/// What a kept forward leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leads {
    /// To an app that takes connections.
    Tcp {
        /// Which.
        route: Destination,
        /// What it speaks, where the port does not say it.
        protocol: Option<Protocol>,
    },
    /// To an app that takes datagrams.
    Udp {
        /// Which.
        route: Destination,
    },
    /// To all TCP routes: it is a proxy.
    Proxy,
}

/// Told behind the name of what speaks UDP, where TCP has the same name.
pub(crate) const UDP_SUFFIX: &str = "/udp";

impl Leads {
    /// The name of its account in `status`.
    pub(crate) fn account(&self) -> String {
        match self {
            Self::Tcp { route, .. } => route.to_string(),
            Self::Udp { route } => format!("{route}{UDP_SUFFIX}"),
            Self::Proxy => "proxy".to_owned(),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Udp { .. } => "udp",
            Self::Proxy => "proxy",
        }
    }

    const fn route(&self) -> Option<&Destination> {
        match self {
            Self::Tcp { route, .. } | Self::Udp { route } => Some(route),
            Self::Proxy => None,
        }
    }
}

impl Saved {
    /// Whether both want the same port, or the same name.
    pub(crate) fn is_in_the_way_of(&self, other: &Self) -> bool {
        self.name == other.name || self.has_the_port_of(other)
    }

    fn has_the_port_of(&self, other: &Self) -> bool {
        let takes_datagrams = |saved: &Self| matches!(saved.leads, Leads::Udp { .. });
        self.listen == other.listen && takes_datagrams(self) == takes_datagrams(other)
    }
}

/// The file says something else than forwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct SavedError {
    /// Where.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) what: String,
}

/// The address of an app that is the same on each start and each machine: within 127.64.0.0 to 127.254.255.254, far from
/// what systems use of that network themselves.
pub(crate) fn address_of(gateway: &Gateway, route: &Destination) -> SocketAddr {
    let hash = Sha256::digest(format!("{gateway} {route}"));
    let address = Ipv4Addr::new(127, 64 + hash[0] % 191, hash[1], 1 + hash[2] % 254);
    SocketAddr::new(IpAddr::V4(address), route.port())
}

/// Reads the file's text.
pub(crate) fn parse(text: &str) -> Result<Vec<Saved>, SavedError> {
    let mut all: Vec<Saved> = Vec::new();
    for (line, fields) in entries(text)? {
        let wrong = |what: String| SavedError { line, what };
        let saved = forward(&fields).map_err(wrong)?;
        if all.iter().any(|other| other.name == saved.name) {
            return Err(wrong(format!("there are two forwards with the name {}", saved.name)));
        }
        if all.iter().any(|other| other.has_the_port_of(&saved)) {
            return Err(wrong(format!("there are two forwards that listen on {}", saved.listen)));
        }
        if all.len() >= FORWARDS_MAX {
            return Err(wrong(format!("there are more than {FORWARDS_MAX} forwards")));
        }
        all.push(saved);
    }
    Ok(all)
}

/// The file's text.
pub(crate) fn text_of(all: &[Saved]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = "# Forwards that `pomerium-cli daemon` keeps open.\nforwards:\n".to_owned();
    if all.is_empty() {
        return text.replace("forwards:\n", "forwards: []\n");
    }
    for saved in all {
        text.push_str(&format!("  - name: {}\n", quoted(&saved.name)));
        text.push_str(&format!("    gateway: {}\n", quoted(&saved.gateway.to_string())));
        if !matches!(saved.leads, Leads::Tcp { .. }) {
            text.push_str(&format!("    type: {}\n", saved.leads.kind()));
        }
        if let Some(route) = saved.leads.route() {
            text.push_str(&format!("    route: {}\n", quoted(&route.to_string())));
        }
        text.push_str(&format!("    listen: {}\n", quoted(&saved.listen.to_string())));
        if let Leads::Tcp { protocol: Some(protocol), .. } = &saved.leads
            && let Ok(name) = serde_json::to_string(protocol)
        {
            text.push_str(&format!("    protocol: {name}\n"));
        }
    }
    text
}

fn forward(fields: &[(String, String)]) -> Result<Saved, String> {
    let of = |key: &str| fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    for (index, (key, _)) in fields.iter().enumerate() {
        if !["name", "gateway", "type", "route", "listen", "protocol"].contains(&key.as_str()) {
            return Err(format!(
                "a forward has name, gateway, type, route, listen and protocol, not {key:?}"
            ));
        }
        if fields[..index].iter().any(|(other, _)| other == key) {
            return Err(format!("{key} is said twice"));
        }
    }
    let needed = |key: &str| of(key).ok_or_else(|| format!("a forward needs {key}"));
    let gateway: Gateway = needed("gateway")?.parse().map_err(|error| format!("gateway: {error}"))?;
    let leads = leads(&of)?;
    let name = of("name").map_or_else(|| leads.account(), str::to_owned);
    let listen = match (of("listen"), leads.route()) {
        (Some(text), _) => {
            text.parse().map_err(|_| format!("listen: {text:?} is no address as 127.0.0.1:5432"))?
        }
        (None, Some(route)) => address_of(&gateway, route),
        (None, None) => PROXY_DEFAULT,
    };
    if !listen.ip().is_loopback() {
        // Whoever connects has the person's access: never more than this machine.
        return Err(format!("listen: {listen} is no loopback address: others could use your access"));
    }
    Ok(Saved { name, gateway, leads, listen })
}

fn leads<'a>(of: &impl Fn(&str) -> Option<&'a str>) -> Result<Leads, String> {
    let route = || -> Result<Destination, String> {
        let text = of("route").ok_or("a forward needs route")?;
        text.parse().map_err(|error| format!("route: {error}"))
    };
    let without = |key: &str, kind: &str| match of(key) {
        Some(_) => Err(format!("{key} says nothing where type is {kind}")),
        None => Ok(()),
    };
    match of("type").unwrap_or("tcp") {
        "tcp" => {
            let unknown = |name| format!("protocol: {name:?} is none of postgres, mysql, ssh, http");
            let named = |name| Protocol::named(name).ok_or_else(|| unknown(name));
            Ok(Leads::Tcp { route: route()?, protocol: of("protocol").map(named).transpose()? })
        }
        "udp" => {
            without("protocol", "udp")?;
            Ok(Leads::Udp { route: route()? })
        }
        "proxy" => {
            without("protocol", "proxy")?;
            without("route", "proxy")?;
            Ok(Leads::Proxy)
        }
        other => Err(format!("type: {other:?} is none of tcp, udp, proxy")),
    }
}

type Fields = Vec<(String, String)>;

/// The mappings of the list `forwards`, each with its line.
fn entries(text: &str) -> Result<Vec<(usize, Fields)>, SavedError> {
    let mut parser = Parser::new_from_str(text);
    let mut all = Vec::new();
    let mut fields: Option<(usize, Fields)> = None;
    let (mut depth, mut key, mut is_list, mut is_document) = (0_usize, None::<String>, false, false);
    while let Some(event) = parser.next_event() {
        let (event, span) = event
            .map_err(|error| SavedError { line: error.marker().line(), what: error.info().to_owned() })?;
        let line = span.start.line();
        let wrong = |what: &str| SavedError { line, what: what.to_owned() };
        match (event, depth) {
            (Event::DocumentStart(_), _) if is_document => {
                return Err(wrong("a second document begins here"));
            }
            (Event::DocumentStart(_), _) => is_document = true,
            (Event::MappingStart(0, None), 0) => depth = 1,
            (Event::Scalar(text, ..), 0) if text.is_empty() || text == "~" || text == "null" => {}
            (Event::Scalar(text, ..), 1) if text == "forwards" && !is_list => is_list = true,
            (Event::SequenceStart(0, None), 1) if is_list => depth = 2,
            (Event::MappingStart(0, None), 2) => (depth, fields) = (3, Some((line, Vec::new()))),
            (Event::Scalar(text, _, 0, None), 3) => match key.take() {
                None => key = Some(text.into_owned()),
                Some(key) => {
                    if let Some((_, fields)) = &mut fields {
                        fields.push((key, text.into_owned()));
                    }
                }
            },
            (Event::MappingEnd, 3) => {
                all.extend(fields.take());
                depth = 2;
            }
            (Event::SequenceEnd, 2) => depth = 1,
            (Event::MappingEnd, 1) => depth = 0,
            (Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd, _) => {}
            _ => {
                return Err(wrong(
                    "expected `forwards:` with a list of name, gateway, type, route, listen and protocol",
                ));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_forward_may_leave_out_what_follows_from_the_rest() {
        let text = "forwards:\n  - gateway: gate.example\n    route: db.corp.example:5432\n";
        let all = parse(text).unwrap();
        assert_eq!(all[0].name, "db.corp.example:5432");
        assert_eq!(all[0].listen, address_of(&all[0].gateway, &"db.corp.example:5432".parse().unwrap()));
        assert_eq!(parse(&text_of(&all)).unwrap(), all);
        for nothing in ["", "# nothing\n", "forwards: []\n", &text_of(&[])] {
            assert_eq!(parse(nothing), Ok(Vec::new()), "{nothing}");
        }
    }

    #[test]
    fn datagrams_and_a_proxy_are_kept_as_connections_are() {
        let text = "forwards:\n  - {gateway: gate.example, type: udp, route: 'dns:53'}\n  - {gateway: gate.example, route: 'dns:53'}\n  \
                    - {gateway: gate.example, type: proxy}\n";
        let all = parse(text).unwrap();
        let kept: Vec<_> = all.iter().map(|saved| (saved.name.as_str(), saved.listen.port())).collect();
        assert_eq!(kept, [("dns:53/udp", 53), ("dns:53", 53), ("proxy", 3128)]);
        assert_eq!(all[0].listen, all[1].listen, "one address for both, as the app itself has");
        assert_eq!(parse(&text_of(&all)).unwrap(), all);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let base = "forwards:\n  - gateway: gate.example\n    route: db:5432\n";
        for (more, said) in [
            ("    listen: 0.0.0.0:5432\n", "no loopback address"),
            ("    lsten: 127.0.0.1:5432\n", "lsten"),
            ("    protocol: gopher\n", "gopher"),
            ("    route: x:1\n", "twice"),
            ("  - gateway: gate.example\n    route: db:5432\n", "two forwards"),
            ("    name: [a]\n", "expected"),
            ("  - route: db:1\n", "needs gateway"),
        ] {
            let error = parse(&format!("{base}{more}")).unwrap_err();
            assert!(error.to_string().contains(said) && error.line >= 2, "{more}: {error}");
        }
        assert!(parse("routes: []").is_err());
        assert!(parse("forwards: {}").is_err());
    }

    proptest! {
        #[test]
        fn an_app_has_one_address_of_its_own(host in "[a-z]{1,12}", port in 1_u16..) {
            let gateway: Gateway = "gate.example".parse().unwrap();
            let route = Destination::new(&host, port).unwrap();
            let at = address_of(&gateway, &route);
            prop_assert_eq!(at, address_of(&gateway, &route));
            let IpAddr::V4(address) = at.ip() else { panic!("no IPv4 address") };
            let [net, block, _, last] = address.octets();
            prop_assert!(net == 127 && (64..=254).contains(&block) && (1..=254).contains(&last));
            prop_assert_eq!(at.port(), port);
        }

        #[test]
        fn no_text_panics_and_what_is_read_is_written_back(text in "(forwards:\n)?([ -~]{0,12}\n?){0,10}") {
            if let Ok(all) = parse(&text) {
                prop_assert_eq!(parse(&text_of(&all)), Ok(all));
            }
        }
    }
}
