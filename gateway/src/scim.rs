//! What a directory says of people and groups, and how it says so (SCIM 2.0, RFC 7643 and 7644): resources, filters,
//! patches and errors as plain data, without I/O.
//!
//! Not here: who may say it (`proxy/own/scim.rs`), where it is kept (`store/directory.rs`), and what it means for
//! somebody's session (there as well).

mod attributes;
pub mod discovery;
pub mod filter;
pub mod patch;
pub mod resource;

use http::StatusCode;
use serde_json::{Value, json};

/// The media type of everything here.
pub const MEDIA_TYPE: &str = "application/scim+json";

/// Why a request of the directory is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScimError {
    /// No secret, or not the right one.
    #[error("the bearer token is missing or wrong: it is scim_token of the gateway's configuration")]
    Unauthorized,
    /// The body is no JSON object of the expected shape.
    #[error("{0}")]
    InvalidSyntax(&'static str),
    /// A value that an attribute cannot have.
    #[error("{0}")]
    InvalidValue(&'static str),
    /// The path of a patch names no attribute.
    #[error("{0}")]
    InvalidPath(&'static str),
    /// A filter that is not understood.
    #[error("{0}")]
    InvalidFilter(&'static str),
    /// The path of a patch leads to nothing.
    #[error("the path leads to nothing that could be changed")]
    NoTarget,
    /// A patch of what the gateway alone says.
    #[error("this attribute cannot be changed")]
    Mutability,
    /// Somebody else has this name or id.
    #[error("another resource of this kind has the same userName, displayName or externalId")]
    Uniqueness,
    /// There is no such resource.
    #[error("there is no such resource")]
    NotFound,
    /// The endpoint has no such method.
    #[error("this endpoint has no such method")]
    MethodNotAllowed,
    /// The body is too long, too slow, or broke off.
    #[error("the body is longer than 2 MiB, came too slowly or broke off")]
    TooLarge,
    /// One more would be too many.
    #[error(
        "the gateway keeps 100,000 users and as many groups, and no more: push fewer, or have its operator forget old ones"
    )]
    Full,
    /// The gateway's own trouble.
    #[error("the directory cannot be read or written at the moment: try again in a minute")]
    Unavailable,
}

impl ScimError {
    /// The status that goes with it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::InvalidSyntax(_)
            | Self::InvalidValue(_)
            | Self::InvalidPath(_)
            | Self::InvalidFilter(_)
            | Self::NoTarget
            | Self::Mutability => StatusCode::BAD_REQUEST,
            Self::Uniqueness => StatusCode::CONFLICT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// `scimType` (RFC 7644, table 9).
    const fn kind(self) -> Option<&'static str> {
        match self {
            Self::InvalidSyntax(_) => Some("invalidSyntax"),
            Self::InvalidValue(_) => Some("invalidValue"),
            Self::InvalidPath(_) => Some("invalidPath"),
            Self::InvalidFilter(_) => Some("invalidFilter"),
            Self::NoTarget => Some("noTarget"),
            Self::Mutability => Some("mutability"),
            Self::Uniqueness => Some("uniqueness"),
            Self::Unauthorized
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::TooLarge
            | Self::Full
            | Self::Unavailable => None,
        }
    }

    /// The body that goes with it (RFC 7644, 3.12).
    #[must_use]
    pub fn document(self) -> Value {
        let mut document = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
            "status": self.status().as_str(),
            "detail": self.to_string(),
        });
        if let Some(kind) = self.kind() {
            document["scimType"] = json!(kind);
        }
        document
    }
}

/// A part of a longer list (RFC 7644, 3.4.2).
#[must_use]
pub fn list(total: usize, start_index: usize, resources: &[Value]) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": total,
        "startIndex": start_index,
        "itemsPerPage": resources.len(),
        "Resources": resources,
    })
}
