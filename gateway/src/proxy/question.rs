//! What is asked of policy: kept for as long as the answer matters, so that it can be asked again.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, Method, header, request::Parts};
use pomerium_shared::{clock::Now, destination::Destination};

use super::{
    Connection, ProvenKey, authority::Authority, client_certificate::Shown, gate::Whereto, peer,
    router::Router,
};
use crate::{
    authorize::{Place, RequestFacts},
    config::{HostPattern, Methods, Route},
    path::CanonicalPath,
    remote_authorize::messages as wire,
};

/// One request or stream, as policy may know it.
#[derive(Debug, Clone)]
pub(super) struct Question {
    subject: Subject,
    connection: Connection,
}

/// Why there is no route for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unrouted {
    /// None takes it.
    Nowhere,
    /// Without the path's parameters it would be another question: [`Router::depends_on_parameters`].
    Parameters,
}

#[derive(Debug, Clone)]
enum Subject {
    Stream(Destination),
    Flow(Destination),
    Request { authority: Authority, path: CanonicalPath, method: Method, is_cors_preflight: bool },
}

impl Question {
    /// May this stream be opened, or stay open? There is no path in a `CONNECT`.
    pub(super) fn stream(to: Destination, connection: &Connection) -> Self {
        Self { subject: Subject::Stream(to), connection: connection.clone() }
    }

    /// May this flow of datagrams begin, or go on?
    pub(super) fn flow(to: Destination, connection: &Connection) -> Self {
        Self { subject: Subject::Flow(to), connection: connection.clone() }
    }

    /// May this HTTP request be made, or go on?
    pub(super) fn request(whereto: &Whereto, parts: &Parts, connection: &Connection) -> Self {
        let subject = Subject::Request {
            authority: whereto.authority.clone(),
            path: whereto.path.clone(),
            method: parts.method.clone(),
            is_cors_preflight: is_cors_preflight(&parts.method, &parts.headers),
        };
        Self { subject, connection: connection.clone() }
    }

    /// May this web app's start page be opened? The host of a wildcard is not known before somebody asks.
    pub(super) fn opening(host: &HostPattern, methods: &Methods, connection: &Connection) -> Self {
        let subject = Subject::Request {
            authority: Authority::of_host(host.as_exact().unwrap_or_default()),
            path: CanonicalPath::root(),
            method: methods.sample(),
            is_cors_preflight: false,
        };
        Self { subject, connection: connection.clone() }
    }

    /// From where it is asked, as of now.
    pub(super) fn ip_now(&self) -> IpAddr {
        self.connection.ip_now()
    }

    /// Whether it came out of a WireGuard tunnel.
    pub(super) fn is_of_peer(&self) -> bool {
        self.connection.protocol == peer::PROTOCOL
    }

    /// The route that it is about.
    pub(super) fn route<'a>(&self, router: &'a Router) -> Result<&'a Arc<Route>, Unrouted> {
        let found = match &self.subject {
            Subject::Stream(to) => router.tcp(to),
            Subject::Flow(to) => router.udp(to),
            Subject::Request { authority, path, method, .. } => {
                let found = router.http(authority, path, method);
                if found.is_some_and(|route| router.depends_on_parameters(route, authority, path, method)) {
                    return Err(Unrouted::Parameters);
                }
                found
            }
        };
        found.ok_or(Unrouted::Nowhere)
    }

    /// The subject, for another process.
    pub(super) fn to_wire(&self) -> wire::Subject {
        match &self.subject {
            Subject::Stream(to) => wire::Subject::Stream(to.to_string()),
            Subject::Flow(to) => wire::Subject::Flow(to.to_string()),
            Subject::Request { authority, path, method, is_cors_preflight } => {
                wire::Subject::Request(wire::RequestSubject {
                    method: method.to_string(),
                    authority: authority.to_host_port(),
                    path: path.as_str().to_owned(),
                    is_cors_preflight: *is_cors_preflight,
                })
            }
        }
    }

    /// A subject of another process, if it is in the form that this one would give it.
    pub(super) fn of_wire(subject: &wire::Subject, connection: Connection) -> Option<Self> {
        let subject = match subject {
            wire::Subject::Stream(to) => Subject::Stream(to.parse().ok()?),
            wire::Subject::Flow(to) => Subject::Flow(to.parse().ok()?),
            wire::Subject::Request(asked) => Subject::Request {
                authority: Authority::parse(&asked.authority).ok()?,
                path: CanonicalPath::parse(&asked.path).ok().filter(|path| path.as_str() == asked.path)?,
                method: asked.method.parse().ok()?,
                is_cors_preflight: asked.is_cors_preflight,
            },
        };
        Some(Self { subject, connection })
    }

    /// What the client proved to hold and what came along, each in DER.
    pub(super) fn certificates(&self) -> Vec<Vec<u8>> {
        self.connection.proven.as_deref().map(ProvenKey::chain).unwrap_or_default()
    }

    /// The client certificate that was shown, as `route` sees it now.
    pub(super) fn shown(&self, route: &Route, now: Now) -> Option<Shown> {
        let key = self.connection.proven.as_deref()?;
        Some(key.shown(route.client_authority.as_ref(), now))
    }

    /// What policy may know.
    pub(super) fn facts<'a>(&'a self, shown: Option<&'a Shown>) -> RequestFacts<'a> {
        let (method, host, path, is_cors_preflight) = match &self.subject {
            Subject::Stream(to) | Subject::Flow(to) => ("CONNECT", to.host(), "", false),
            Subject::Request { authority, path, method, is_cors_preflight } => {
                (method.as_str(), authority.host(), path.as_str(), *is_cors_preflight)
            }
        };
        RequestFacts {
            method,
            host,
            path,
            source_ip: self.connection.ip_now(),
            is_cors_preflight,
            certificate: shown.map(|shown| &shown.certificate),
            place: Place::default(),
        }
    }
}

fn is_cors_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connection() -> Connection {
        Connection::asserted(IpAddr::from([192, 0, 2, 7]), None, "h2")
    }

    fn there_and_back(question: &Question) -> Question {
        Question::of_wire(&question.to_wire(), connection()).expect("this process reads what it writes")
    }

    proptest! {
        #[test]
        fn another_process_is_asked_exactly_what_is_asked_here(
            host in "[a-zA-Z0-9]{1,8}(\\.[a-z0-9]{1,8}){0,2}(:[1-9][0-9]{0,3})?",
            path in "(/[a-zA-Z0-9%._~ -]{0,12}){1,4}",
            method in "(GET|POST|OPTIONS|PROPFIND)",
            is_cors_preflight: bool,
        ) {
            let Ok(path) = CanonicalPath::parse(&path) else { return Ok(()) };
            let authority = Authority::parse(&host).unwrap();
            let method = method.parse().unwrap();
            let subject = Subject::Request { authority, path, method, is_cors_preflight };
            let question = Question { subject, connection: connection() };
            let read = there_and_back(&question);
            prop_assert_eq!(read.facts(None), question.facts(None));
            let Subject::Request { authority: sent, .. } = &question.subject else { unreachable!() };
            let Subject::Request { authority: read, .. } = read.subject else {
                return Err(TestCaseError::fail("a request stays one"));
            };
            prop_assert_eq!(read.to_host_port(), sent.to_host_port());
        }

        #[test]
        fn streams_and_flows_stay_what_they_are(host in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){0,2}", port in 1_u16..) {
            let to = Destination::new(&host, port).unwrap();
            let stream = there_and_back(&Question::stream(to.clone(), &connection()));
            prop_assert!(matches!(stream.subject, Subject::Stream(read) if read == to));
            let flow = there_and_back(&Question::flow(to.clone(), &connection()));
            prop_assert!(matches!(flow.subject, Subject::Flow(read) if read == to));
        }
    }

    #[test]
    fn what_this_process_would_write_differently_is_not_read() {
        let request = |authority: &str, path: &str, method: &str| {
            wire::Subject::Request(wire::RequestSubject {
                method: method.to_owned(),
                authority: authority.to_owned(),
                path: path.to_owned(),
                is_cors_preflight: false,
            })
        };
        assert!(Question::of_wire(&request("app.corp.example", "/a", "GET"), connection()).is_some());
        for subject in [
            request("app.corp.example", "/public/../admin", "GET"),
            request("app.corp.example", "a", "GET"),
            request("app.corp.example", "/a", "GET /"),
            request("me@app.corp.example", "/a", "GET"),
            request("", "/a", "GET"),
            wire::Subject::Stream("ssh.corp.example".to_owned()),
        ] {
            assert!(Question::of_wire(&subject, connection()).is_none(), "{subject:?}");
        }
    }
}
