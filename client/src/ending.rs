//! Tells people ahead of time that their session ends. Pure: the clock is an argument.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::token::Token;

/// How long before the end people are told.
pub(crate) const AHEAD: Duration = Duration::from_secs(10 * 60);
/// How often it is looked whether the end is near. By the wall clock, which goes on while a machine sleeps.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(20);

/// A session that still holds, but not for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    end: SystemTime,
    left: Duration,
    /// Whether a sign-in makes another session, instead of handing over the browser's.
    is_bound: bool,
}

impl Ending {
    /// The end that is near at `wall`; `None` for a token that ends later, has ended, or does not say.
    pub(crate) fn of(token: &Token, wall: SystemTime) -> Option<Self> {
        let end = token.expires()?;
        let left = end.duration_since(wall).ok()?;
        let is_near = !left.is_zero() && left <= AHEAD;
        is_near.then(|| Self { end, left, is_bound: token.bound_to().is_some() })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("session about to end")?;
        if let Ok(end) = jiff::Timestamp::try_from(self.end) {
            write!(f, " at {} UTC", end.strftime("%H:%M"))?;
        }
        match self.left.as_secs() / 60 {
            0 => f.write_str(" (in less than a minute); ")?,
            minutes => write!(f, " (in {minutes} min); ")?,
        }
        f.write_str(if self.is_bound {
            "run pomerium-cli login to renew it: what is open goes on"
        } else {
            "sign in again in the browser, then run pomerium-cli login"
        })
    }
}

/// Remembers which end was told: each one is told once.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    told: Option<SystemTime>,
}

impl Watch {
    /// What to tell now, of the token that is at hand now.
    pub(crate) fn look(&mut self, token: Option<&Token>, wall: SystemTime) -> Option<Ending> {
        let ending = Ending::of(token?, wall)?;
        let is_news = self.told != Some(ending.end);
        self.told = Some(ending.end);
        is_news.then_some(ending)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;
    use crate::token::tests::token_until;

    /// 2023-11-14 22:13:20 UTC.
    const END: u32 = 1_700_000_000;

    fn second(since: u32) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(since.into())
    }

    fn bound() -> Token {
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{END},"cnf":{{"x5t#S256":"abc"}}}}"#));
        Token::parse(&format!("e30.{claims}.c2ln")).unwrap()
    }

    #[test]
    fn the_words_say_when_and_what_to_do() {
        let words = Ending::of(&bound(), second(END - 299)).unwrap().to_string();
        assert!(
            words.starts_with("session about to end at 22:13 UTC (in 4 min); run pomerium-cli login"),
            "{words}"
        );
        let words = Ending::of(&token_until(END.into()), second(END - 5)).unwrap().to_string();
        assert!(words.contains("(in less than a minute); sign in again in the browser"), "{words}");
    }

    #[test]
    fn nobody_is_told_of_a_token_without_an_end() {
        let endless = Token::parse("e30.e30.c2ln").unwrap();
        assert_eq!(Ending::of(&endless, second(END)), None);
        assert_eq!(Watch::default().look(None, second(END)), None);
    }

    #[test]
    fn each_end_is_told_once_and_that_of_a_renewed_session_again() {
        let (first, renewed) = (token_until(END.into()), token_until(i64::from(END) + 3600));
        let mut watch = Watch::default();
        assert_eq!(watch.look(Some(&first), second(END - 601)), None);
        assert!(watch.look(Some(&first), second(END - 600)).is_some());
        assert_eq!(watch.look(Some(&first), second(END - 580)), None);
        assert_eq!(watch.look(Some(&renewed), second(END - 560)), None);
        assert!(watch.look(Some(&renewed), second(END + 3500)).is_some());
    }

    proptest! {
        #[test]
        fn people_are_told_within_the_last_minutes_and_never_after(now in END - 2000..END + 2000) {
            let is_told = Ending::of(&token_until(END.into()), second(now)).is_some();
            prop_assert_eq!(is_told, (END - 600..END).contains(&now));
        }
    }
}
