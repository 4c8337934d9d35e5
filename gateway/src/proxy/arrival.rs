//! What whoever asks will do with an answer, so that nobody is sent elsewhere who cannot follow, or who would lose what
//! they sent.

use http::{HeaderMap, HeaderName, Method, header};

use super::respond::{is_call, wants_html};
use crate::authenticate::is_framed;

/// How a request came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A tab opens a page.
    Page,
    /// A frame of another page opens a page; `is_foreign` if the other is of another site, so that browsers send along
    /// only the cookies that say `SameSite=None`.
    Frame { is_foreign: bool },
    /// A form, which brings something that a redirect would lose; `is_foreign` as above.
    Form { is_foreign: bool },
    /// A script or a program, which reads the answer itself.
    Program,
}

impl Arrival {
    /// Believes what browsers say of a request (Fetch Metadata); where they say nothing, `Accept` has to do. Whoever lies
    /// gets an answer that is of no use to them, and no more.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let says = |name: &'static str| {
            headers.get(HeaderName::from_static(name)).and_then(|value| value.to_str().ok())
        };
        let has_token =
            headers.contains_key(header::AUTHORIZATION) || headers.contains_key("x-pomerium-authorization");
        let is_ahead_of_time = says("sec-purpose").is_some_and(|purpose| purpose.contains("prefetch"));
        let is_script = says("x-requested-with").is_some_and(|by| by.eq_ignore_ascii_case("xmlhttprequest"));
        if has_token || is_ahead_of_time || is_script || is_call(headers) {
            return Self::Program;
        }
        let is_get = method == Method::GET;
        let navigates = match says("sec-fetch-mode") {
            Some(mode) => mode == "navigate",
            // Old programs name no type and get pages; one that sends something gets a document.
            None => wants_html(headers) || is_get && !headers.contains_key(header::ACCEPT),
        };
        if !navigates || method == Method::HEAD || method == Method::OPTIONS {
            return Self::Program;
        }
        let is_foreign = says("sec-fetch-site") == Some("cross-site");
        match (is_get, is_framed(headers)) {
            (false, _) => Self::Form { is_foreign },
            (true, true) => Self::Frame { is_foreign },
            (true, false) => Self::Page,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn arrival(method: &Method, pairs: &[(&'static str, &str)]) -> Arrival {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Arrival::of(method, &headers)
    }

    #[test]
    fn a_browser_is_told_from_its_scripts_by_what_it_says_itself() {
        const PAGE: (&str, &str) = ("accept", "text/html,*/*;q=0.8");
        const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
        const FOREIGN: (&str, &str) = ("sec-fetch-site", "cross-site");
        for (pairs, expected) in [
            (&[PAGE][..], Arrival::Page),
            (&[], Arrival::Page),
            (&[PAGE, NAVIGATE, ("sec-fetch-dest", "document"), FOREIGN], Arrival::Page),
            (
                &[PAGE, NAVIGATE, ("sec-fetch-dest", "iframe"), ("sec-fetch-site", "same-site")],
                Arrival::Frame { is_foreign: false },
            ),
            (&[PAGE, NAVIGATE, ("sec-fetch-dest", "iframe"), FOREIGN], Arrival::Frame { is_foreign: true }),
            // A script may ask for HTML as well.
            (&[PAGE, ("sec-fetch-mode", "cors")], Arrival::Program),
            (&[PAGE, ("sec-fetch-mode", "websocket")], Arrival::Program),
            (&[PAGE, ("x-requested-with", "XMLHttpRequest")], Arrival::Program),
            (&[PAGE, NAVIGATE, ("sec-purpose", "prefetch;prerender")], Arrival::Program),
            (&[PAGE, ("authorization", "Basic x")], Arrival::Program),
            (&[("accept", "application/json")], Arrival::Program),
            (&[PAGE, ("content-type", "application/grpc-web+proto")], Arrival::Program),
        ] {
            assert_eq!(arrival(&Method::GET, pairs), expected, "{pairs:?}");
        }
        assert_eq!(arrival(&Method::POST, &[PAGE]), Arrival::Form { is_foreign: false });
        assert_eq!(arrival(&Method::POST, &[PAGE, NAVIGATE, FOREIGN]), Arrival::Form { is_foreign: true });
        assert_eq!(arrival(&Method::POST, &[]), Arrival::Program);
        assert_eq!(arrival(&Method::OPTIONS, &[PAGE]), Arrival::Program);
    }

    proptest! {
        #[test]
        fn whoever_shows_a_token_is_a_program(mode in "[a-z-]{0,12}", dest in "[a-z]{0,10}", post in any::<bool>()) {
            let method = if post { Method::POST } else { Method::GET };
            let pairs = [("sec-fetch-mode", mode.as_str()), ("sec-fetch-dest", &dest), ("authorization", "x")];
            prop_assert_eq!(arrival(&method, &pairs), Arrival::Program);
        }
    }
}
