//! Signing in through the browser: the loopback callback, the browser, and the rule that it happens once.
//!
//! How the gateway is asked for the sign-in address is the caller's matter; no connection lives here.

pub(crate) mod browser;
pub(crate) mod callback;
pub(crate) mod device;
pub(crate) mod flight;

use std::{future::Future, time::Duration};

use tokio::time::timeout;
use url::Url;

use self::{browser::Browser, callback::Callback};
use crate::{failure::Failure, token::Token};

/// How long the person has to sign in.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Why there is no new token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// The gateway did not say where to sign in.
    #[error("the gateway could not be asked where to sign in")]
    Ask(#[source] Box<Failure>),
    /// Its answer was no address of a page.
    #[error("the gateway's answer is not the address of a sign-in page")]
    BadAddress,
    /// The loopback address for the answer failed.
    #[error("the local address that waits for the browser failed")]
    Callback(#[source] std::io::Error),
    /// Nobody came in time.
    #[error("nobody signed in within five minutes")]
    TimedOut,
    /// The code for another machine was not confirmed in time.
    #[error("nobody confirmed the code in time")]
    CodeExpired,
    /// The person refused the code.
    #[error("the sign-in was refused in the browser")]
    SaidNo,
    /// The gateway offers no sign-in by code.
    #[error("the gateway has no sign-in for devices without a browser")]
    NoDeviceSignIn,
    /// Too many such sign-ins wait at the gateway.
    #[error("the gateway takes no more sign-ins of devices at the moment")]
    DeviceSignInBusy,
    /// There is no person to ask.
    #[error("the service account's token is not accepted, and a service account does not sign in by browser")]
    NotInteractive,
    /// The new token was refused too.
    #[error("the gateway asks to sign in again right after a sign-in")]
    StillRefused,
}

impl LoginError {
    /// Whether it was the person who did not sign in, rather than something in the way.
    const fn is_of_the_person(&self) -> bool {
        matches!(self, Self::TimedOut | Self::CodeExpired | Self::SaidNo)
    }
}

/// Asks the gateway for the sign-in page, shows it, and waits for the token.
///
/// # Cancellation
/// Cancel-safe: dropping it closes the local port.
pub(crate) async fn by_browser<F>(
    browser: &Browser,
    ask: impl FnOnce(String) -> F,
) -> Result<Token, LoginError>
where
    F: Future<Output = Result<String, Failure>>,
{
    let callback = Callback::bind().await.map_err(LoginError::Callback)?;
    let body = ask(callback.redirect_uri()).await.map_err(|error| LoginError::Ask(Box::new(error)))?;
    let url = sign_in_page(&body)?;
    if let Err(error) = browser.open(&url) {
        tracing::warn!(error = %crate::exit::chain(&error), "the browser was not opened: open the address yourself");
    }
    announce(&url);
    timeout(SIGN_IN_TIMEOUT, callback.token())
        .await
        .map_err(|_| LoginError::TimedOut)?
        .map_err(LoginError::Callback)
}

#[expect(clippy::print_stderr, reason = "the person must see the address whatever the log level is")]
fn announce(url: &Url) {
    eprintln!("Sign in with your browser:\n\n  {url}\n");
}

/// Shows a sign-in page that the daemon waits for, if it is one.
pub(crate) fn tell_page(text: &str) {
    if let Ok(url) = sign_in_page(text) {
        announce(&url);
    }
}

fn sign_in_page(body: &str) -> Result<Url, LoginError> {
    let url = Url::parse(body.trim()).map_err(|_| LoginError::BadAddress)?;
    if matches!(url.scheme(), "https" | "http") && url.host().is_some() {
        Ok(url)
    } else {
        Err(LoginError::BadAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_a_web_page_is_shown() {
        assert!(sign_in_page("https://id.example/sign_in?x=1\n").is_ok());
        for body in ["", "<html>", "javascript:alert(1)", "file:///etc/passwd", "not a url"] {
            assert!(matches!(sign_in_page(body), Err(LoginError::BadAddress)), "{body}");
        }
    }
}
