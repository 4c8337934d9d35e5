//! A question to a policy that owns all its parts: what a tool or a log line asks.

use std::net::{IpAddr, Ipv4Addr};

use pomerium_shared::clock::Now;

use super::{CheckRequest, Place, PresentedCertificate, Records, RequestFacts};
use crate::{device::Device, session::Session};

/// Everything that a [`CheckRequest`] borrows.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation {
    /// The session, if somebody is signed in.
    pub session: Option<Session>,
    /// The device, if it is known.
    pub device: Option<Device>,
    /// The method; `CONNECT` for a TCP stream.
    pub method: String,
    /// The host without port, lower case.
    pub host: String,
    /// The path without the query.
    pub path: String,
    /// The client's address.
    pub source_ip: IpAddr,
    /// Whether it is a CORS preflight.
    pub is_cors_preflight: bool,
    /// The client certificate of the connection.
    pub certificate: Option<PresentedCertificate>,
    /// Where the address is: the country.
    pub country: Option<String>,
    /// Where the address is: the number of the autonomous system.
    pub asn: Option<u32>,
    /// The moment of the question.
    pub now: Now,
}

impl Situation {
    /// A stranger's `GET /` from this machine.
    #[must_use]
    pub fn of_stranger(now: Now) -> Self {
        Self {
            session: None,
            device: None,
            method: "GET".to_owned(),
            host: String::new(),
            path: "/".to_owned(),
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            is_cors_preflight: false,
            certificate: None,
            country: None,
            asn: None,
            now,
        }
    }

    /// The question as a policy takes it, with the external data of a configuration.
    #[must_use]
    pub fn check<'a>(&'a self, records: Option<&'a Records>) -> CheckRequest<'a> {
        CheckRequest {
            session: self.session.as_ref(),
            request: RequestFacts {
                method: &self.method,
                host: &self.host,
                path: &self.path,
                source_ip: self.source_ip,
                is_cors_preflight: self.is_cors_preflight,
                certificate: self.certificate.as_ref(),
                place: Place { country: self.country.as_deref(), asn: self.asn },
            },
            device: self.device.as_ref(),
            records,
            now: self.now,
        }
    }
}
