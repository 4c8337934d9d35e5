//! Opens private parsers to the fuzz targets (`tests/fuzz`); built with `--cfg fuzzing` alone.

use http::{HeaderMap, HeaderValue, Uri, header};

use crate::{path::CanonicalPath, proxy::Authority};

/// The canonical form of a raw request path.
#[must_use]
pub fn canonical_path(raw: &str) -> Option<String> {
    CanonicalPath::parse(raw).ok().map(|path| path.as_str().to_owned())
}

/// The canonical form of a `Host` header.
#[must_use]
pub fn canonical_authority(raw: &str) -> Option<String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_str(raw).ok()?);
    Some(Authority::of(&Uri::default(), &headers, None).ok()?.to_host_port())
}
