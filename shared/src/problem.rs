//! Problem details (RFC 9457): how the gateway tells a program why it said no.

use serde::{Deserialize, Serialize};

/// `Content-Type` of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// Bytes of a problem document that a client reads at most: far above what the gateway writes.
pub const PROBLEM_LEN_MAX: usize = 16 * 1024;

/// What went wrong with one request, for the person who made it.
///
/// ```
/// use pomerium_shared::problem::{Problem, ProblemKind};
/// let json = r#"{"type":"urn:pomerium:problem:denied","title":"Not allowed","status":403,
///     "request_id":"0f1e","reasons":["email-unauthorized"]}"#;
/// let problem: Problem = serde_json::from_str(json).unwrap();
/// assert_eq!(problem.kind, ProblemKind::Denied);
/// assert_eq!(problem.reasons, ["email-unauthorized"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem, as a URI that never changes.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// A few words for a person.
    pub title: String,
    /// The HTTP status it came with.
    pub status: u16,
    /// What happened here, and what to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The id under which the gateway's log has this request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// The reason codes that the person may see (`email-unauthorized`, ...).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Where a person signs in with a browser, for scripts of an app's page whose session has ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sign_in_url: String,
}

/// The kinds of problem that a client acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProblemKind {
    /// No valid session: sign in.
    #[serde(rename = "urn:pomerium:problem:sign-in-required")]
    SignInRequired,
    /// Policy says no.
    #[serde(rename = "urn:pomerium:problem:denied")]
    Denied,
    /// No such route.
    #[serde(rename = "urn:pomerium:problem:no-route")]
    NoRoute,
    /// The app behind the gateway cannot be reached.
    #[serde(rename = "urn:pomerium:problem:app-unreachable")]
    AppUnreachable,
    /// The stream that was asked for again is over.
    #[serde(rename = "urn:pomerium:problem:stream-gone")]
    StreamGone,
    /// The request itself was wrong.
    #[serde(rename = "urn:pomerium:problem:bad-request")]
    BadRequest,
    /// The gateway failed or is stopping: the fault is not the person's.
    #[serde(rename = "urn:pomerium:problem:gateway")]
    Gateway,
    /// A kind that this version does not know.
    #[serde(other, rename = "about:blank")]
    Other,
}
