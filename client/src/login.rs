//! Signing in through the browser: the loopback callback, the browser, and the rule that it happens once.
//!
//! How the gateway is asked for the sign-in address is the caller's matter; no connection lives here.

pub(crate) mod browser;
pub(crate) mod callback;
pub(crate) mod device;
pub(crate) mod flight;
pub(crate) mod proof;
pub(crate) mod turns;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::Response;
use tokio::time::{sleep, timeout};
use url::Url;

use self::{
    browser::Browser,
    callback::{Brought, Callback, Expects},
    proof::Verifier,
};
use crate::{failure::Failure, token::Token};

/// How long the person has to sign in.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How often the gateway is asked for the token of a code: the person has just signed in, and the network may have slept.
const TRADES_MAX: usize = 3;
/// Between two such questions.
const TRADE_AGAIN_AFTER: Duration = Duration::from_millis(500);

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
    /// The gateway gave no token for what the browser brought.
    #[error(
        "the gateway gave no token for the code that the browser brought: it was too old, or somebody else had used it"
    )]
    CodeRefused,
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
    /// The sign-in broke off by our own fault.
    #[error("the sign-in broke off")]
    Failed(#[source] tokio::task::JoinError),
    /// The new token was refused too.
    #[error("the gateway asks to sign in again right after a sign-in")]
    StillRefused,
}

impl LoginError {
    /// Whether another attempt right after it would only trouble the person: it was they who did not sign in.
    const fn speaks_for_a_while(&self) -> bool {
        matches!(self, Self::TimedOut | Self::CodeExpired | Self::SaidNo)
    }
}

/// What the gateway is told when it is asked where to sign in.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Where the browser goes in the end.
    pub(crate) redirect_uri: String,
    /// The digest of what will be proved then.
    pub(crate) challenge: String,
}

/// Its answer.
#[derive(Debug)]
pub(crate) struct Page {
    /// The address of the sign-in page, not yet believed to be one.
    pub(crate) address: String,
    /// What the browser will bring.
    pub(crate) expects: Expects,
}

/// Asks the gateway for the sign-in page, shows it, waits for what the browser brings, and has the token for it. `trade`
/// sends a form to [`proof::TOKEN_PATH`].
///
/// # Cancellation
/// Cancel-safe: dropping it closes the local port.
pub(crate) async fn by_browser<F, T>(
    browser: &Browser,
    ask: impl FnOnce(Wish) -> F,
    trade: impl Fn(String) -> T,
) -> Result<Token, LoginError>
where
    F: Future<Output = Result<Page, Failure>>,
    T: Future<Output = Result<Response<Bytes>, Failure>>,
{
    let callback = Callback::bind().await.map_err(LoginError::Callback)?;
    let verifier = Verifier::new().map_err(LoginError::Callback)?;
    let wish = Wish { redirect_uri: callback.redirect_uri(), challenge: verifier.challenge() };
    let page = ask(wish).await.map_err(|error| LoginError::Ask(Box::new(error)))?;
    let url = sign_in_page(&page.address)?;
    if let Err(error) = browser.open(&url) {
        tracing::warn!(error = %crate::exit::chain(&error), "the browser was not opened: open the address yourself");
    }
    announce(&url);
    let brought = timeout(SIGN_IN_TIMEOUT, callback.brought(page.expects))
        .await
        .map_err(|_| LoginError::TimedOut)?
        .map_err(LoginError::Callback)?;
    match brought {
        Brought::Token(token) => Ok(token),
        Brought::Code(code) => traded(verifier.form(&code), TRADE_AGAIN_AFTER, trade).await,
    }
}

async fn traded<T>(form: String, pause: Duration, trade: impl Fn(String) -> T) -> Result<Token, LoginError>
where
    T: Future<Output = Result<Response<Bytes>, Failure>>,
{
    let mut left = TRADES_MAX;
    loop {
        left -= 1;
        match trade(form.clone()).await {
            Ok(response) => return proof::token_in(&response),
            Err(Failure::Link(error)) if error.may_pass() && left > 0 => sleep(pause).await,
            Err(error) => return Err(LoginError::Ask(Box::new(error))),
        }
    }
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
    use std::cell::Cell;

    use super::*;
    use crate::link::LinkError;

    #[tokio::test]
    async fn a_network_that_slept_does_not_lose_the_sign_in() {
        let asked = Cell::new(0);
        let away = || Err(Failure::Link(LinkError::NoAnswer { gateway: "a.example".parse().unwrap() }));
        let trade = |_| {
            asked.set(asked.get() + 1);
            let answer = Response::new(Bytes::from_static(br#"{"access_token":"a.b.c"}"#));
            std::future::ready(if asked.get() < TRADES_MAX { away() } else { Ok(answer) })
        };
        assert_eq!(traded(String::new(), Duration::ZERO, trade).await.unwrap().expose(), "a.b.c");
        let refused = traded(String::new(), Duration::ZERO, |_| std::future::ready(away())).await;
        assert!(matches!(refused, Err(LoginError::Ask(_))), "{refused:?}");
    }

    #[test]
    fn only_the_address_of_a_web_page_is_shown() {
        assert!(sign_in_page("https://id.example/sign_in?x=1\n").is_ok());
        for body in ["", "<html>", "javascript:alert(1)", "file:///etc/passwd", "not a url"] {
            assert!(matches!(sign_in_page(body), Err(LoginError::BadAddress)), "{body}");
        }
    }
}
