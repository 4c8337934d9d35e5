//! One path for router, policy, log and app: what they disagree on is how authorizers are bypassed.

/// A path in canonical form: begins with `/`, no dot segments, no empty segments but the last, no escaped
/// unreserved characters (RFC 3986, 6.2.2). Everything behind the listener sees this path and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalPath(String);

/// Why a path has no canonical form; answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// An escaped slash, backslash or NUL, a raw backslash or control character, a dot segment with parameters, an
    /// overlong character: servers disagree on what it means.
    #[error(
        "the path holds an escaped slash, a backslash, a control character, a dot segment with parameters or an \
         overlong character"
    )]
    Ambiguous,
    /// A `%` without two hexadecimal digits.
    #[error("the path holds a broken percent escape")]
    BadEscape,
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
}

impl CanonicalPath {
    /// `/`.
    pub(crate) fn root() -> Self {
        Self("/".to_owned())
    }

    /// Brings a raw request path (without the query) into canonical form.
    ///
    /// # Errors
    /// It has none.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        let decoded = decode_unreserved(raw)?;
        let Some(relative) = decoded.strip_prefix('/') else {
            return Err(PathError::NotAbsolute);
        };
        let mut segments: Vec<&str> = Vec::new();
        let mut ends_open = false;
        for segment in relative.split('/') {
            // Some app servers drop parameters before they look for dots.
            if matches!(without_parameters(segment), Some("" | "." | "..")) {
                return Err(PathError::Ambiguous);
            }
            ends_open = matches!(segment, "" | "." | "..");
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                name => segments.push(name),
            }
        }
        let mut path = String::with_capacity(decoded.len());
        for segment in &segments {
            path.push('/');
            path.push_str(segment);
        }
        if ends_open || segments.is_empty() {
            path.push('/');
        }
        Ok(Self(path))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As an app server reads it that leaves parameters (`;...`) out of account; `None` if it has none.
    pub(crate) fn without_parameters(&self) -> Option<Self> {
        if !self.0.contains(';') && !self.0.contains("%3B") {
            return None;
        }
        let segments = self.0.split('/').map(|segment| without_parameters(segment).unwrap_or(segment));
        Some(Self(segments.collect::<Vec<_>>().join("/")))
    }
}

/// A segment up to its parameters (RFC 3986, 3.3), which begin with `;`, escaped or not; `None` if it has none.
fn without_parameters(segment: &str) -> Option<&str> {
    let begin = segment.find(';').into_iter().chain(segment.find("%3B")).min();
    begin.and_then(|begin| segment.get(..begin))
}

/// Decodes escapes of unreserved characters, writes the others in upper case, and refuses what is ambiguous.
fn decode_unreserved(raw: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw.chars();
    let mut before = None;
    while let Some(c) = rest.next() {
        let last = before.take();
        match c {
            '\\' => return Err(PathError::Ambiguous),
            c if c.is_ascii_control() => return Err(PathError::Ambiguous),
            '%' => {
                let byte = escaped_byte(&mut rest)?;
                before = Some(byte);
                match byte {
                    _ if last.is_some_and(|last| is_overlong(last, byte)) => {
                        return Err(PathError::Ambiguous);
                    }
                    b'/' | b'\\' | 0 => return Err(PathError::Ambiguous),
                    b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') => {
                        out.push(char::from(b));
                    }
                    b => out.push_str(&format!("%{b:02X}")),
                }
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Whether two octets begin a character that has a shorter spelling (RFC 3629, 3): some decoders take `%C0%AF` for a slash.
const fn is_overlong(first: u8, second: u8) -> bool {
    matches!((first, second), (0xC0 | 0xC1, 0x80..=0xBF) | (0xE0, 0x80..=0x9F) | (0xF0, 0x80..=0x8F))
}

fn escaped_byte(rest: &mut std::str::Chars<'_>) -> Result<u8, PathError> {
    let mut digit = || rest.next().and_then(|c| c.to_digit(16)).ok_or(PathError::BadEscape);
    let value = digit()? * 16 + digit()?;
    u8::try_from(value).map_err(|_| PathError::BadEscape)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(raw: &str) -> Result<String, PathError> {
        CanonicalPath::parse(raw).map(|path| path.0)
    }

    #[test]
    fn spellings_of_one_path_become_one_path() {
        for raw in [
            "/admin/x",
            "//admin//x",
            "/./admin/./x",
            "/a/../admin/x",
            "/%61dmin/x",
            "/%2e/admin/x",
            "/../admin/x",
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok("/admin/x"), "{raw}");
        }
        assert_eq!(canonical("/a/..").as_deref(), Ok("/"));
        assert_eq!(canonical("/a/b/%2E%2e").as_deref(), Ok("/a/"));
        assert_eq!(canonical("/a/").as_deref(), Ok("/a/"));
        assert_eq!(canonical("/caf%c3%a9").as_deref(), Ok("/caf%C3%A9"));
        assert_eq!(canonical("/%e0%a4%85%f0%90%80%80%c0x").as_deref(), Ok("/%E0%A4%85%F0%90%80%80%C0x"));
    }

    #[test]
    fn parameters_are_what_some_app_servers_do_not_see() {
        let plain = |raw: &str| CanonicalPath::parse(raw).unwrap().without_parameters().map(|path| path.0);
        assert_eq!(plain("/admin;x/secret").as_deref(), Some("/admin/secret"));
        assert_eq!(plain("/admin%3bx/secret;y=1;z").as_deref(), Some("/admin/secret"));
        assert_eq!(plain("/a%3Bb;c/").as_deref(), Some("/a/"));
        assert_eq!(plain("/a;b%3Bc").as_deref(), Some("/a"));
        assert_eq!(plain("/admin/secret"), None);
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for raw in [
            "/a/..;/b",
            "/..;x=1/b",
            "/a/.;/b",
            "/;/b",
            "/a/..%3b/b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a\u{1}b",
            "/a%c0%afb",
            "/%C0%AE%C0%AE/b",
            "/a%E0%80%AFb",
            "/a%F0%80%80%AFb",
        ] {
            assert_eq!(canonical(raw), Err(PathError::Ambiguous), "{raw:?}");
        }
        assert_eq!(canonical("/%zz"), Err(PathError::BadEscape));
        assert_eq!(canonical("/%2"), Err(PathError::BadEscape));
        assert_eq!(canonical("*"), Err(PathError::NotAbsolute));
        assert_eq!(canonical(""), Err(PathError::NotAbsolute));
    }

    proptest! {
        #[test]
        fn canonical_paths_stay_as_they_are(raw in "/[a-z./%0-9A-F~;+ -]{0,40}") {
            if let Ok(path) = CanonicalPath::parse(&raw) {
                if let Some(plain) = path.without_parameters() {
                    prop_assert_eq!(plain.without_parameters(), None);
                    prop_assert_eq!(CanonicalPath::parse(plain.as_str()), Ok(plain));
                }
                prop_assert!(!path.as_str().contains("//"));
                prop_assert!(!path.as_str().split('/').any(|s| s == "." || s == ".."));
                prop_assert_eq!(CanonicalPath::parse(path.as_str()), Ok(path));
            }
        }
    }
}
