//! Which route of a configuration a name, a URL or a recorded request means; the proxy's own router decides.

use std::sync::Arc;

use http::Method;
use pomerium_shared::destination::Destination;

use crate::{
    authorize::{CheckRequest, Records, Situation},
    config::{HostPattern, PathMatch, Route, RouteFrom},
    path::CanonicalPath,
    proxy::{
        authority::Authority,
        router::{Router, takes},
    },
};

/// The routes of one configuration, and the external data that their policies ask about.
#[derive(Debug)]
pub(crate) struct Routes {
    router: Router,
    records: Option<Records>,
}

/// What a request or stream asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A request.
    Http {
        /// Where to.
        authority: Authority,
        /// What.
        path: CanonicalPath,
        /// What is done with it.
        method: Method,
    },
    /// A stream.
    Tcp(Destination),
    /// A flow of datagrams.
    Udp(Destination),
}

/// Why a route cannot be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    /// No route has the name or id.
    #[error("there is no route of the name or id \"{0}\": see the routes' names, or give a URL")]
    NoSuchName(String),
    /// No route takes the URL.
    #[error("no route leads to {0}: the gateway would answer 404")]
    NoneTakes(String),
    /// The text is no URL that a route could take.
    #[error("\"{0}\" is no URL like https://app.corp.example/path or tcp+https://db.corp.example:5432")]
    BadUrl(String),
    /// A path for a stream, or one that the gateway would answer with 400.
    #[error("the path cannot be asked for: {0}")]
    BadPath(String),
    /// The method is none.
    #[error("\"{0}\" is no method like GET")]
    BadMethod(String),
    /// The route's host or path is a pattern, and nothing that it takes is known.
    #[error("the route \"{0}\" takes what a pattern says: give a URL, or --path")]
    Pattern(String),
    /// An earlier route takes what was asked for.
    #[error("{place} is taken by the route \"{by}\", not by \"{name}\"")]
    TakenBy {
        /// What was asked for.
        place: String,
        /// The route that takes it.
        by: String,
        /// The route that was named.
        name: String,
    },
}

impl Routes {
    pub(crate) fn new(routes: Vec<Arc<Route>>, records: Option<Records>) -> Self {
        Self { router: Router::new(routes), records }
    }

    /// A question as these routes' policies take it.
    pub(crate) fn check<'a>(&'a self, situation: &'a Situation) -> CheckRequest<'a> {
        situation.check(self.records.as_ref())
    }

    pub(crate) fn all(&self) -> &[Arc<Route>] {
        self.router.routes()
    }

    /// The route that takes what is asked for.
    pub(crate) fn at(&self, place: &Place) -> Option<&Arc<Route>> {
        match place {
            Place::Http { authority, path, method } => self.router.http(authority, path, method),
            Place::Tcp(destination) => self.router.tcp(destination),
            Place::Udp(destination) => self.router.udp(destination),
        }
    }

    /// The route that somebody means by a name, an id or a URL, and what they ask for. `path` goes before the URL's own,
    /// `method` before what a route would take.
    pub(crate) fn find(
        &self,
        text: &str,
        path: Option<&str>,
        method: Option<&str>,
    ) -> Result<(&Arc<Route>, Place), RouteError> {
        let method = method.map(method_of).transpose()?;
        if text.contains("://") {
            let place = Place::parse(text, path)?.by(method);
            let route = self.at(&place).ok_or_else(|| RouteError::NoneTakes(place.to_string()))?;
            self.check_parameters(route, &place)?;
            return Ok((route, place));
        }
        let named = self.named(text).ok_or_else(|| RouteError::NoSuchName(text.to_owned()))?;
        let place = match (path, &method) {
            (None, None) => self.sample(named),
            (path, _) => places_of(named, path)?.into_iter().next(),
        };
        let place = place.ok_or_else(|| RouteError::Pattern(named.name.clone()))?.by(method);
        match self.at(&place) {
            Some(route) if Arc::ptr_eq(route, named) => {
                self.check_parameters(route, &place)?;
                Ok((route, place))
            }
            Some(route) => Err(RouteError::TakenBy {
                place: place.to_string(),
                by: route.name.clone(),
                name: named.name.clone(),
            }),
            None => Err(RouteError::NoneTakes(place.to_string())),
        }
    }

    /// The gateway would answer 400 where the path's parameters matter.
    fn check_parameters(&self, route: &Arc<Route>, place: &Place) -> Result<(), RouteError> {
        match place {
            Place::Http { authority, path, method }
                if self.router.depends_on_parameters(route, authority, path, method) =>
            {
                let why = "without its parameters (;...) it would lead elsewhere or be judged otherwise";
                Err(RouteError::BadPath(why.to_owned()))
            }
            Place::Http { .. } | Place::Tcp(_) | Place::Udp(_) => Ok(()),
        }
    }

    /// Something that this route, and none before it, takes; `None` where only a pattern says what that could be.
    pub(crate) fn sample(&self, route: &Arc<Route>) -> Option<Place> {
        let places = places_of(route, None).ok()?;
        places.into_iter().find(|place| self.at(place).is_some_and(|taker| Arc::ptr_eq(taker, route)))
    }

    /// The first route of this name or id.
    pub(crate) fn named(&self, text: &str) -> Option<&Arc<Route>> {
        self.all().iter().find(|route| route.name == text || route.id == text)
    }

    /// The route of these that is `route` of another configuration: by id, else by name.
    pub(crate) fn same_as(&self, route: &Route) -> Option<&Arc<Route>> {
        self.same(&route.id, &route.name)
    }

    fn same(&self, id: &str, name: &str) -> Option<&Arc<Route>> {
        let by_id = self.all().iter().find(|route| route.id == id);
        by_id.or_else(|| self.all().iter().find(|route| route.name == name))
    }

    /// Whether only a pattern says what `route` takes; any other that has no sample is never reached.
    pub(crate) fn is_pattern(&self, route: &Route) -> bool {
        matches!(&route.from, RouteFrom::Http { path: PathMatch::Regex(_), .. })
    }

    /// The route that the log's request would take here. A log has no ports: that of the same route, if it is still
    /// there, is taken to be the one.
    pub(crate) fn recorded(
        &self,
        id: &str,
        name: &str,
        method: &str,
        host: &str,
        path: &str,
    ) -> Option<&Arc<Route>> {
        let same = self.same(id, name);
        if method == "CONNECT" {
            let leads_there = |route: &&Arc<Route>| {
                route.from.destinations().iter().any(|destination| destination.host() == host)
            };
            return same.filter(leads_there).or_else(|| self.all().iter().find(leads_there));
        }
        let port_of = |route: &Route| match &route.from {
            RouteFrom::Http { port, .. } => *port,
            RouteFrom::Tcp { .. } | RouteFrom::Udp { .. } => None,
        };
        let method = method_of(method).ok()?;
        let port = same.and_then(|route| port_of(route));
        let fits = |route: &&Arc<Route>| {
            let theirs = port_of(route);
            takes(route, host, theirs, path, &method)
                && (theirs.is_none() || same.is_none() || theirs == port)
        };
        self.all().iter().find(fits)
    }
}

/// What a route takes, as far as it can be told: hosts with a letter for each `*`.
fn places_of(route: &Route, path: Option<&str>) -> Result<Vec<Place>, RouteError> {
    let (host, port, pattern, methods) = match &route.from {
        RouteFrom::Tcp { .. } | RouteFrom::Udp { .. } if path.is_some() => {
            return Err(RouteError::BadPath("a stream has none".to_owned()));
        }
        RouteFrom::Tcp { destinations } => return Ok(destinations.iter().cloned().map(Place::Tcp).collect()),
        RouteFrom::Udp { destinations } => return Ok(destinations.iter().cloned().map(Place::Udp).collect()),
        RouteFrom::Http { host: HostPattern::Exact(host), port, path, methods } => {
            (host.clone(), *port, path, methods)
        }
        RouteFrom::Http { host: HostPattern::Wildcard(_), port, path, methods } => {
            let written = route.from_url.split_once("://").map_or("", |(_, rest)| rest);
            let host = written.split(['/', ':']).next().unwrap_or_default().replace('*', "x");
            (host.to_ascii_lowercase(), *port, path, methods)
        }
    };
    let paths = match (path, pattern) {
        (Some(path), _) => vec![path.to_owned()],
        (None, PathMatch::Any) => vec!["/".to_owned(), "/x".to_owned()],
        // An earlier route may take the first of them and leave the others.
        (None, PathMatch::Prefix(prefix)) => {
            let prefix = prefix.trim_end_matches('/');
            vec![format!("{prefix}/"), prefix.to_owned(), format!("{prefix}/x")]
        }
        (None, PathMatch::Exact(path)) => vec![path.clone()],
        (None, PathMatch::Regex(_)) => vec![],
    };
    let authority = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    let authority = Authority::parse(&authority).map_err(|_| RouteError::BadUrl(route.from_url.clone()))?;
    let place = |path: String| {
        let path = CanonicalPath::parse(&path).map_err(|error| RouteError::BadPath(error.to_string()))?;
        Ok(Place::Http { authority: authority.clone(), path, method: methods.sample() })
    };
    paths.into_iter().filter(|path| !path.is_empty()).map(place).collect()
}

fn method_of(text: &str) -> Result<Method, RouteError> {
    text.parse().map_err(|_| RouteError::BadMethod(text.to_owned()))
}

impl Place {
    /// Reads a URL of a route's kind; `path` goes before its own.
    pub(crate) fn parse(text: &str, path: Option<&str>) -> Result<Self, RouteError> {
        let bad = || RouteError::BadUrl(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        if let "tcp+https" | "udp+https" = scheme {
            if path.is_some() {
                return Err(RouteError::BadPath("a stream has none".to_owned()));
            }
            let last = rest.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let to = last.parse().map_err(|_| bad())?;
            return Ok(if scheme == "udp+https" { Self::Udp(to) } else { Self::Tcp(to) });
        }
        let ("https" | "http") = scheme else { return Err(bad()) };
        let without_query = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, own_path) = match without_query.find('/') {
            Some(slash) => without_query.split_at(slash),
            None => (without_query, "/"),
        };
        let authority = Authority::parse(authority).map_err(|_| bad())?;
        let path = CanonicalPath::parse(path.unwrap_or(own_path))
            .map_err(|error| RouteError::BadPath(error.to_string()))?;
        Ok(Self::Http { authority, path, method: Method::GET })
    }

    /// The same, by another method if one is given; a stream has none.
    fn by(mut self, other: Option<Method>) -> Self {
        if let (Self::Http { method, .. }, Some(other)) = (&mut self, other) {
            *method = other;
        }
        self
    }

    /// The host without port, as policy sees it.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Http { authority, .. } => authority.host(),
            Self::Tcp(destination) | Self::Udp(destination) => destination.host(),
        }
    }

    /// The path as policy sees it: a stream has none.
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Http { path, .. } => path.as_str(),
            Self::Tcp(_) | Self::Udp(_) => "",
        }
    }

    /// The method as policy sees it.
    pub(crate) fn method(&self) -> &str {
        match self {
            Self::Http { method, .. } => method.as_str(),
            Self::Tcp(_) | Self::Udp(_) => "CONNECT",
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { authority, path, .. } => {
                write!(f, "https://{}{}", authority.to_host_port(), path.as_str())
            }
            Self::Tcp(destination) => write!(f, "tcp+https://{destination}"),
            Self::Udp(destination) => write!(f, "udp+https://{destination}"),
        }
    }
}
