//! What the two ends say of a stream in the header: pure, and strict.

use std::{fmt, str::FromStr, time::Duration};

/// The field with which a client asks for a stream that can be resumed, the gateway names one, and the client asks for that
/// one again.
pub const FIELD: &str = "pomerium-resume";

/// Octets of a name.
const NAME_LEN: usize = 16;

/// The name of a stream, which only its client and its gateway know. Whoever is asked for it is not shown it again: it has no
/// `Display`, and its `Debug` shows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamName([u8; NAME_LEN]);

impl StreamName {
    /// A name of random octets, which nobody guesses.
    #[must_use]
    pub const fn of_random(octets: [u8; NAME_LEN]) -> Self {
        Self(octets)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut octets = [0; NAME_LEN];
        let digits = text.as_bytes();
        if digits.len() != 2 * NAME_LEN {
            return None;
        }
        for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
            *octet = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(octets))
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamName")
    }
}

const fn digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        _ => None,
    }
}

/// The field says something else than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the field {FIELD} cannot be read")]
pub struct BadField;

/// What a client asks for.
///
/// ```
/// use pomerium_shared::resume::Wish;
/// assert_eq!("new".parse(), Ok(Wish::New));
/// let again = "name=00112233445566778899aabbccddeeff, received=42";
/// let Ok(Wish::Again { received, .. }) = again.parse() else { panic!() };
/// assert_eq!(received, 42);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A stream that can be resumed, if the gateway will.
    New,
    /// One that there is.
    Again {
        /// Which.
        name: StreamName,
        /// How far its octets have come, its end included.
        received: u64,
    },
}

impl FromStr for Wish {
    type Err = BadField;

    fn from_str(text: &str) -> Result<Self, BadField> {
        if text == "new" {
            return Ok(Self::New);
        }
        let (name, received) = pair(text, "received").ok_or(BadField)?;
        Ok(Self::Again { name, received })
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Again { name, received } => write(f, *name, "received", *received),
        }
    }
}

/// What the gateway answers to [`Wish::New`], if it will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The stream's name.
    pub name: StreamName,
    /// How long it is kept without a connection; whole seconds.
    pub window: Duration,
}

impl FromStr for Offer {
    type Err = BadField;

    fn from_str(text: &str) -> Result<Self, BadField> {
        let (name, window) = pair(text, "window").ok_or(BadField)?;
        Ok(Self { name, window: Duration::from_secs(window) })
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.name, "window", self.window.as_secs())
    }
}

fn write(f: &mut fmt::Formatter<'_>, name: StreamName, key: &str, number: u64) -> fmt::Result {
    f.write_str("name=")?;
    name.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
    write!(f, ", {key}={number}")
}

/// `name=…, KEY=NUMBER`.
fn pair(text: &str, key: &str) -> Option<(StreamName, u64)> {
    let (name, rest) = text.strip_prefix("name=")?.split_once(", ")?;
    let number = rest.strip_prefix(key)?.strip_prefix('=')?;
    let is_plain = number.bytes().all(|octet| octet.is_ascii_digit());
    Some((StreamName::parse(name)?, number.parse().ok().filter(|_| is_plain)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_one_end_writes_the_other_reads(octets: [u8; 16], number: u64) {
            let name = StreamName::of_random(octets);
            let wish = Wish::Again { name, received: number };
            prop_assert_eq!(wish.to_string().parse(), Ok(wish));
            let offer = Offer { name, window: Duration::from_secs(number) };
            prop_assert_eq!(offer.to_string().parse(), Ok(offer));
        }

        #[test]
        fn nothing_is_read_that_would_not_be_written(text in "(name=)?[0-9a-fA-F]{30,34}(, received=|, window=)[+0-9]{0,22}") {
            if let Ok(wish) = text.parse::<Wish>() {
                prop_assert_eq!(wish.to_string().parse(), Ok(wish));
            }
        }
    }

    #[test]
    fn a_field_that_says_something_else_is_not_read() {
        for text in ["", "New", "new ", "name=00, received=1", "name=0123456789abcdef0123456789abcdef"] {
            assert_eq!(text.parse::<Wish>(), Err(BadField), "{text}");
        }
        let wrong = "name=0123456789abcdef0123456789abcdeF, received=1";
        assert_eq!(wrong.parse::<Wish>(), Err(BadField), "capitals");
        let wrong = "name=0123456789abcdef0123456789abcdef, received=18446744073709551616";
        assert_eq!(wrong.parse::<Wish>(), Err(BadField), "beyond all numbers");
        let wrong = "name=0123456789abcdef0123456789abcdef, received=+1";
        assert_eq!(wrong.parse::<Wish>(), Err(BadField), "a sign");
    }

    #[test]
    fn a_name_is_not_shown() {
        let wish = Wish::Again { name: StreamName::of_random([0xab; 16]), received: 1 };
        assert!(!format!("{wish:?}").contains("ab"));
    }
}
