//! Which of the routes that a gateway lists are opened on this machine.

use super::saved::Leads;
use crate::{access::Route, failure::Failure, gateway::Gateway, link::answer::shown, target::Target};

/// Routes of a list at most: each may cost a local port, and the list is the gateway's.
const ROUTES_MAX: usize = 512;

/// A route that a local port can lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// What people call it.
    pub(crate) name: String,
    /// Whether it carries datagrams.
    pub(crate) is_udp: bool,
    /// Where it leads.
    pub(crate) target: Target,
}

impl Chosen {
    /// What a local port for it leads to.
    pub(crate) fn leads(&self) -> Leads {
        let route = self.target.destination.clone();
        if self.is_udp { Leads::Udp { route } } else { Leads::Tcp { route, protocol: None } }
    }

    /// Whether a person means it by this name.
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.target.destination.to_string() == name
    }
}

/// The routes to open: those named, or all that a local port can lead to. Each name must be one.
pub(crate) fn chosen(routes: &[Route], names: &[String], gateway: &Gateway) -> Result<Vec<Chosen>, Failure> {
    let all = of_list(routes, gateway);
    if all.is_empty() {
        return Err(Failure::NoRoutes { gateway: gateway.clone() });
    }
    if names.is_empty() {
        return Ok(all);
    }
    names
        .iter()
        .map(|wanted| {
            all.iter().find(|route| route.is_called(wanted)).cloned().ok_or_else(|| Failure::NoSuchRoute {
                name: wanted.clone(),
                known: all.iter().map(|route| shown(&route.name)).collect::<Vec<_>>().join(", "),
            })
        })
        .collect()
}

/// The same of a later list, which may lack some of those named.
pub(crate) fn listed(routes: &[Route], names: &[String], gateway: &Gateway) -> Vec<Chosen> {
    let mut all = of_list(routes, gateway);
    all.retain(|route| names.is_empty() || names.iter().any(|name| route.is_called(name)));
    all
}

/// All routes of a list that a local port can lead to.
pub(crate) fn of_list(routes: &[Route], gateway: &Gateway) -> Vec<Chosen> {
    routes
        .iter()
        .filter(|route| matches!(route.kind.as_str(), "tcp" | "udp"))
        .filter_map(|route| {
            // The gateway that listed the route carries it, over the connection that is open already.
            let target = route.from.parse::<Target>().ok()?.through(Some(gateway.clone()));
            let name =
                if route.name.is_empty() { target.destination.to_string() } else { route.name.clone() };
            Some(Chosen { name, is_udp: route.kind == "udp", target })
        })
        .take(ROUTES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str, kind: &str, from: &str) -> Route {
        Route {
            id: String::new(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            from: from.to_owned(),
            description: String::new(),
            connect_command: String::new(),
        }
    }

    fn gateway() -> Gateway {
        "https://gate.example:8443".parse().unwrap()
    }

    #[test]
    fn all_routes_with_a_port_go_through_the_gateway_that_listed_them() {
        let routes = [
            route("web", "http", "https://web.example"),
            route("db", "tcp", "tcp+https://db.example:5432"),
            route("", "tcp", "tcp+https://gate.example/ssh:22"),
            route("dns", "udp", "udp+https://dns.example:53"),
            route("broken", "tcp", "nonsense"),
        ];
        let all = chosen(&routes, &[], &gateway()).unwrap();
        let names: Vec<_> = all
            .iter()
            .map(|route| (route.name.as_str(), route.target.destination.to_string(), route.is_udp))
            .collect();
        let expected =
            [("db", "db.example:5432", false), ("ssh:22", "ssh:22", false), ("dns", "dns.example:53", true)];
        assert_eq!(names, expected.map(|(name, to, is_udp)| (name, to.to_owned(), is_udp)));
        assert!(all.iter().all(|route| route.target.gateway == gateway()));
    }

    #[test]
    fn a_name_that_is_no_route_is_told_with_those_that_are() {
        let routes = [route("db", "tcp", "tcp+https://db.example:5432")];
        assert_eq!(chosen(&routes, &["db.example:5432".to_owned()], &gateway()).unwrap().len(), 1);
        let Err(Failure::NoSuchRoute { known, .. }) = chosen(&routes, &["web".to_owned()], &gateway()) else {
            panic!("a route that does not exist was opened");
        };
        assert_eq!(known, "db");
    }
}
