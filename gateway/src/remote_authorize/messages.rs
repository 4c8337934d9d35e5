//! What goes between the two processes. Both are of one release or of neighbouring ones: fields are added, never reused.

use crate::authorize::{self, Decision, Reason, Reasons};

/// The one method.
pub(crate) const DECIDE_PATH: &str = "/pomerium.gateway.v1.Authorize/Decide";

/// May this request be made, this stream be opened, or either go on?
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct DecideRequest {
    /// Names the request in both logs.
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
    /// The route that the asking side found; the other finds its own and compares.
    #[prost(string, tag = "2")]
    pub(crate) route_id: String,
    /// The session in the storage of both, if somebody is signed in. Never a credential.
    #[prost(string, optional, tag = "3")]
    pub(crate) session_id: Option<String>,
    /// The address of the client, as of now.
    #[prost(string, tag = "4")]
    pub(crate) client_ip: String,
    /// What the client proved to hold in the handshake, leaf first, each in DER; empty without any.
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub(crate) certificates: Vec<Vec<u8>>,
    /// Whether it was allowed before and is still open.
    #[prost(bool, tag = "6")]
    pub(crate) is_again: bool,
    #[prost(oneof = "Subject", tags = "7, 8, 9")]
    pub(crate) subject: Option<Subject>,
    /// Whether it came out of a WireGuard tunnel, whose key says nothing about the machine.
    #[prost(bool, tag = "10")]
    pub(crate) is_of_peer: bool,
}

/// What a [`DecideRequest`] is about.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub(crate) enum Subject {
    /// A stream to this `host:port`.
    #[prost(string, tag = "7")]
    Stream(String),
    #[prost(message, tag = "8")]
    Request(RequestSubject),
    /// A flow of datagrams to this `host:port`.
    #[prost(string, tag = "9")]
    Flow(String),
}

/// An HTTP request, in the forms that router, policy and app see.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct RequestSubject {
    #[prost(string, tag = "1")]
    pub(crate) method: String,
    /// `host` or `host:port`.
    #[prost(string, tag = "2")]
    pub(crate) authority: String,
    /// Without the query.
    #[prost(string, tag = "3")]
    pub(crate) path: String,
    #[prost(bool, tag = "4")]
    pub(crate) is_cors_preflight: bool,
}

/// What policy came to. An empty message, or another's answer, decides nothing: the first four must be there and fit.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct DecideResponse {
    /// As in the question.
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
    /// As in the question.
    #[prost(string, tag = "2")]
    pub(crate) route_id: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) allow: Option<Evaluation>,
    #[prost(message, optional, tag = "4")]
    pub(crate) deny: Option<Evaluation>,
    /// For `show_error_details`.
    #[prost(string, repeated, tag = "5")]
    pub(crate) traces: Vec<String>,
    /// What would help the person.
    #[prost(string, repeated, tag = "6")]
    pub(crate) remedies: Vec<String>,
    /// In how many milliseconds the clock alone may turn a yes; absent if it cannot. A length, not a moment: the clocks of
    /// two machines differ.
    #[prost(uint64, optional, tag = "7")]
    pub(crate) turns_in_ms: Option<u64>,
}

/// What one action came to.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Evaluation {
    #[prost(bool, tag = "1")]
    pub(crate) value: bool,
    /// Codes, as in the log.
    #[prost(string, repeated, tag = "2")]
    pub(crate) reasons: Vec<String>,
}

impl DecideResponse {
    /// The decision; `None` where a part is missing, or has a reason that this release does not know.
    pub(super) fn decision(&self) -> Option<Decision> {
        Some(Decision { allow: self.allow.as_ref()?.read()?, deny: self.deny.as_ref()?.read()? })
    }
}

impl Evaluation {
    fn read(&self) -> Option<authorize::Evaluation> {
        let reasons: Option<Reasons> = self.reasons.iter().map(|code| Reason::of_code(code)).collect();
        Some(authorize::Evaluation { value: self.value, reasons: reasons? })
    }
}

impl From<authorize::Evaluation> for Evaluation {
    fn from(evaluation: authorize::Evaluation) -> Self {
        let reasons = evaluation.reasons.iter().map(|reason| reason.as_str().to_owned()).collect();
        Self { value: evaluation.value, reasons }
    }
}
