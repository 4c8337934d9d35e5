//! Decides who may do what: policy in, [`Decision`] out, with the reasons.
//!
//! Knows neither HTTP server nor database: sessions and requests come in as values, time as an argument. Nothing is
//! allowed that no rule allows. `config` builds a [`Policy`] for each route; `proxy` puts every request and every
//! stream before [`check`], and needs its [`Permit`] to go on.

mod calendar;
mod certificate;
mod criterion;
mod decision;
mod explain;
mod inputs;
mod matcher;
mod permit;
mod policy;
mod posture;
pub mod ppl;
mod reason;
mod record;
mod rego;
mod situation;
mod ssh;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use pomerium_shared::clock::Now;

pub(crate) use self::permit::accept;
pub use self::{
    calendar::{AgeLimit, ClockTest, DateRange, DayTime, Days},
    certificate::{CertificateMatcher, PresentedCertificate},
    criterion::{ClaimPath, Criterion},
    decision::{CERTIFICATE_REQUIRED, DEVICE_NOT_AUTHORIZED, Decision, Evaluation, Verdict},
    explain::{ExplainedCriterion, ExplainedGroup, Explanation, Outcome},
    inputs::{INPUTS_LEN_MAX, Inputs, InputsError},
    matcher::{AsnMatcher, IpMatcher, ListMatcher, StringMatcher},
    permit::{CheckLog, Denial, Permit, check, check_again},
    policy::{Policy, Remedy, ShortForms},
    posture::{DeviceMatcher, PostureTest, Version},
    ppl::PolicyError,
    reason::{Reason, Reasons},
    record::{RecordMatcher, Records, RecordsError},
    rego::RegoError,
    situation::Situation,
    ssh::{SshKey, SshTest},
};
use crate::{device::Device, session::Session};

/// What is to be decided: who asks for what, from where, when.
#[derive(Debug, Clone, Copy)]
pub struct CheckRequest<'a> {
    /// The session; `None` when there is none. One that has expired by `now` counts as none.
    pub session: Option<&'a Session>,
    /// The request or stream.
    pub request: RequestFacts<'a>,
    /// The device that asks, if it is known and belongs to the session's person.
    pub device: Option<&'a Device>,
    /// External data, for `record`; `None` when nobody provides any.
    pub records: Option<&'a Records>,
    /// The moment of the question.
    pub now: Now,
}

impl<'a> CheckRequest<'a> {
    /// The session, if it counts now.
    fn live_session(&self) -> Option<&'a Session> {
        self.session.filter(|session| session.is_valid_at(self.now.wall))
    }

    /// The device, if it is that of the person whose session counts: a device vouches for nobody else.
    fn own_device(&self) -> Option<&'a Device> {
        let session = self.live_session()?;
        self.device.filter(|device| device.user_id == session.user_id)
    }
}

/// What policy may know of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts<'a> {
    /// The method; `CONNECT` for a TCP stream.
    pub method: &'a str,
    /// The host without port, lower case.
    pub host: &'a str,
    /// The path as router, log and app see it, without the query; empty for `CONNECT`.
    pub path: &'a str,
    /// The client's address.
    pub source_ip: IpAddr,
    /// Whether this is a CORS preflight: `OPTIONS` with `Origin` and `Access-Control-Request-Method`.
    pub is_cors_preflight: bool,
    /// The client certificate of the connection, if one was shown.
    pub certificate: Option<&'a PresentedCertificate>,
    /// Where the client's address is in the networks of the world, where the operator configured the files for it.
    pub place: Place<'a>,
}

/// What MaxMind's files say of an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Option<&'a str>,
    /// The number of the autonomous system.
    pub asn: Option<u32>,
}
