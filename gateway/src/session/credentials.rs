//! Where a request carries its session handle; the first place that has one counts, even if it is no good there.

use http::{HeaderMap, Uri, header};

/// A session handle as a request carried it, not yet verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The token.
    pub token: String,
    /// Where it was.
    pub place: Place,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Where a credential was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The gateway's cookie: meant for this host alone.
    Cookie,
    /// `X-Pomerium-Authorization`, `Authorization: Pomerium` or `Authorization: Bearer Pomerium-`.
    Header,
    /// The `pomerium_session` query parameter.
    Query,
}

/// Finds the credential of a request.
#[must_use]
pub fn find(headers: &HeaderMap, uri: &Uri, cookie_name: &str) -> Option<Credential> {
    let of = |token: &str, place| Some(Credential { token: token.to_owned(), place });
    if let Some(token) = cookie(headers, cookie_name) {
        return of(token, Place::Cookie);
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(token) = text("x-pomerium-authorization") {
        return of(token, Place::Header);
    }
    if let Some(value) = text(header::AUTHORIZATION.as_str())
        && let Some(token) = value.strip_prefix("Pomerium ").or_else(|| value.strip_prefix("Bearer Pomerium-"))
    {
        return of(token.trim(), Place::Header);
    }
    let query = uri.query().unwrap_or_default();
    query.split('&').find_map(|pair| pair.strip_prefix("pomerium_session=")).and_then(|token| of(token, Place::Query))
}

/// The value of a cookie; the name ends at the first `=`.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&'static str, &'static str)], uri: &str) -> Option<(String, Place)> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        find(&headers, &uri.parse().unwrap(), "_pomerium").map(|c| (c.token, c.place))
    }

    #[test]
    fn the_first_place_counts() {
        let cookie = ("cookie", "a=b; _pomerium=c=c");
        let header = ("authorization", "Pomerium h");
        assert_eq!(found(&[cookie, header], "/?pomerium_session=q"), Some(("c=c".to_owned(), Place::Cookie)));
        assert_eq!(found(&[header], "/?pomerium_session=q"), Some(("h".to_owned(), Place::Header)));
        assert_eq!(found(&[("authorization", "Bearer Pomerium-b")], "/"), Some(("b".to_owned(), Place::Header)));
        assert_eq!(found(&[("authorization", "Bearer b")], "/?x=1&pomerium_session=q"), Some(("q".to_owned(), Place::Query)));
        assert_eq!(found(&[("cookie", "x_pomerium=1"), ("authorization", "Basic x")], "/"), None);
    }
}
