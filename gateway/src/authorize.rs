//! Decides who may do what: policy in, [`Decision`] out, with the reasons.
//!
//! Knows neither HTTP server nor database: sessions and requests come in as values, time as an argument. Nothing is
//! allowed that no rule allows.

use std::{collections::BTreeSet, net::IpAddr};

use pomerium_shared::clock::Now;

use crate::session::Session;

/// A policy, parsed and compiled; evaluating it does not fail. (Placeholder type; the authorize module owns it.)
#[derive(Debug, Default)]
pub struct Policy {}

/// The short forms of a route's access rules; they are or-ed with its policy.
#[derive(Debug, Default)]
pub struct ShortForms {
    /// `allow_public_unauthenticated_access`.
    pub allow_public_unauthenticated_access: bool,
    /// `cors_allow_preflight`.
    pub cors_allow_preflight: bool,
    /// `allow_any_authenticated_user`.
    pub allow_any_authenticated_user: bool,
    /// `allowed_domains`.
    pub allowed_domains: Vec<String>,
    /// `allowed_idp_claims`: claim to values.
    pub allowed_idp_claims: Vec<(String, Vec<String>)>,
    /// `allowed_users`.
    pub allowed_users: Vec<String>,
}

/// Why a policy does not load.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PolicyError {
    /// Where in the file.
    pub at: crate::yaml::Position,
    /// What was expected.
    pub message: String,
}

impl Policy {
    /// Builds the policy of one route.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places.
    pub fn build(ppl: Option<&crate::yaml::Node>, _short: &ShortForms) -> Result<Self, Vec<PolicyError>> {
        match ppl {
            Some(node) if !matches!(node.value, crate::yaml::Value::List(_) | crate::yaml::Value::Map(_)) => {
                Err(vec![PolicyError { at: node.at, message: "expected a list of rules".to_owned() }])
            }
            _ => Ok(Self {}),
        }
    }
}

/// What is to be decided: who asks for what, from where, when.
#[derive(Debug, Clone, Copy)]
pub struct CheckRequest<'a> {
    /// The valid session; `None` when there is none (expired and foreign ones are none).
    pub session: Option<&'a Session>,
    /// The request or stream.
    pub request: RequestFacts<'a>,
    /// The moment of the question.
    pub now: Now,
}

/// What policy may know of a request.
#[derive(Debug, Clone, Copy)]
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
}

/// What one action (`allow` or `deny`) came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// Whether the action applies.
    pub value: bool,
    /// The reason codes of the parts that made it so.
    pub reasons: BTreeSet<&'static str>,
}
