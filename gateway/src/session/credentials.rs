//! Where a request carries its session handle. Reads only; whether the handle is worth anything is said elsewhere.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::secret::Secret;

/// Carries a bare handle, for clients whose `Authorization` belongs to the app behind.
pub const X_POMERIUM_AUTHORIZATION: HeaderName = HeaderName::from_static("x-pomerium-authorization");

/// Query parameter that carries a handle.
pub const SESSION_QUERY: &str = "pomerium_session";

/// Cookies of one name that are looked at: any host of a sibling domain can plant some beside ours.
pub const COOKIES_MAX: usize = 8;

/// A handle that a request carried, unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Where it was.
    pub source: CredentialSource,
    /// The text as sent; empty when it was no text at all.
    pub token: Secret<String>,
}

/// Where a credential was found, in the order of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CredentialSource {
    /// The session cookie.
    Cookie,
    /// `X-Pomerium-Authorization: <handle>`.
    Header,
    /// `Authorization: Pomerium <handle>`.
    Pomerium,
    /// `Authorization: Bearer Pomerium-<handle>`.
    Bearer,
    /// `?pomerium_session=<handle>`.
    Query,
}

/// The credentials in the first place that has any, even if they are worthless: a later place never stands in for it.
/// One, but for cookies: which of several is ours only their signature says.
///
/// Order: cookie, `X-Pomerium-Authorization`, `Authorization: Pomerium`, `Authorization: Bearer Pomerium-`, query. Any
/// other `Authorization` belongs to the app and is no credential.
#[must_use]
pub fn from_headers(headers: &HeaderMap, query: Option<&str>, cookie_name: &str) -> Vec<Credential> {
    let found = |source, token: &str| Credential { source, token: Secret::new(token.to_owned()) };
    let of_cookies: Vec<_> =
        cookies(headers, cookie_name).map(|token| found(CredentialSource::Cookie, token)).collect();
    if !of_cookies.is_empty() {
        return of_cookies;
    }
    if let Some(value) = headers.get(X_POMERIUM_AUTHORIZATION) {
        return vec![found(CredentialSource::Header, text_of(value).trim())];
    }
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter().filter_map(in_authorization);
    if let Some((source, token)) = authorizations.next() {
        return vec![found(source, token)];
    }
    let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let in_query = pairs.find(|(key, _)| key == SESSION_QUERY);
    in_query.map(|(_, token)| found(CredentialSource::Query, &token)).into_iter().collect()
}

/// The credential in one `Authorization` header; `None` when the header is the app's.
#[must_use]
pub fn in_authorization(value: &HeaderValue) -> Option<(CredentialSource, &str)> {
    let (scheme, rest) = text_of(value).trim().split_once(' ')?;
    let token = rest.trim_start();
    if scheme.eq_ignore_ascii_case("pomerium") {
        return Some((CredentialSource::Pomerium, token));
    }
    let token = token.strip_prefix("Pomerium-").filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
    Some((CredentialSource::Bearer, token))
}

/// The values of the first [`COOKIES_MAX`] cookies of this name (RFC 6265, 4.2), over all `Cookie` headers: HTTP/2 may
/// split them.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|value| text_of(value).split(';'));
    pairs
        .filter_map(move |pair| {
            let (key, value) = pair.split_once('=')?;
            (key.trim() == name).then(|| {
                let value = value.trim();
                value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value)
            })
        })
        .take(COOKIES_MAX)
}

/// The header as text; what is no ASCII text counts as empty.
fn text_of(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn find(pairs: &[(&'static str, &str)], query: Option<&str>) -> Option<(CredentialSource, String)> {
        from_headers(&headers(pairs), query, "_pomerium")
            .into_iter()
            .next()
            .map(|found| (found.source, found.token.expose().clone()))
    }

    #[test]
    fn each_place_is_read() {
        use CredentialSource::{Bearer, Cookie, Header, Pomerium, Query};
        for (pairs, query, expected) in [
            (&[("cookie", "a=b; _pomerium=tok; _pomerium=other")][..], None, Cookie),
            (&[("x-pomerium-authorization", "tok")], None, Header),
            (&[("authorization", "Pomerium tok")], None, Pomerium),
            (&[("authorization", "pomerium  tok")], None, Pomerium),
            (&[("authorization", "Basic eDp5"), ("authorization", "Pomerium tok")], None, Pomerium),
            (&[("authorization", "bearer Pomerium-tok")], None, Bearer),
            (&[], Some("x=1&pomerium_session=tok"), Query),
        ] {
            assert_eq!(find(pairs, query), Some((expected, "tok".to_owned())), "{pairs:?}");
        }
    }

    #[test]
    fn the_first_place_wins_even_if_its_handle_is_worthless() {
        let all = [
            ("cookie", "_pomerium=bad"),
            ("x-pomerium-authorization", "good"),
            ("authorization", "Pomerium better"),
        ];
        assert_eq!(
            find(&all, Some("pomerium_session=best")),
            Some((CredentialSource::Cookie, "bad".to_owned()))
        );
        assert_eq!(find(&all[1..], None), Some((CredentialSource::Header, "good".to_owned())));
    }

    #[test]
    fn the_credentials_of_the_app_are_not_ours() {
        for value in ["Bearer abc", "Basic eDp5", "Pomerium", "PomeriumX tok", "Bearer pomerium-tok"] {
            assert_eq!(
                find(&[("authorization", value), ("cookie", "_pomerium2=x; x_pomerium=y")], Some("a=b")),
                None
            );
        }
    }

    proptest! {
        #[test]
        fn a_cookie_is_found_between_any_others(
            before in "[a-z]{1,8}=[a-z0-9]{0,8}", token in "[A-Za-z0-9._-]{1,40}", after in "[ -:<-~]{0,20}",
        ) {
            let line = format!("{before}; _pomerium={token}; {after}");
            let expected = Some((CredentialSource::Cookie, token));
            prop_assert_eq!(find(&[("cookie", &line)], None), expected);
        }

        #[test]
        fn any_headers_are_read_without_a_panic(bytes in proptest::collection::vec(32_u8..=255, 0..60), query in ".{0,60}") {
            let mut headers = HeaderMap::new();
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            for name in [header::COOKIE, X_POMERIUM_AUTHORIZATION, header::AUTHORIZATION] {
                headers.insert(name, value.clone());
            }
            let found = from_headers(&headers, Some(&query), "_pomerium");
            prop_assert!((1..=COOKIES_MAX).contains(&found.len()));
        }
    }
}
