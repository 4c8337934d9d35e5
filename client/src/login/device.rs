//! Signing in on a machine without a browser (RFC 8628): the person confirms a code on another one.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::{LoginError, proof::TOKEN_PATH, sign_in_page};
use crate::{failure::Failure, link::answer::shown, token::Token};

const AUTHORIZATION_PATH: &str = "/.pomerium/api/v1/device_authorization";
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Where the gateway does not say how often to ask (RFC 8628, 3.2).
const INTERVAL_DEFAULT: u64 = 5;
/// The longest that anybody waits between two questions, whatever the gateway says.
const INTERVAL_MAX: u64 = 60;
/// The longest that anybody waits for the person, whatever the gateway says.
const LIFE_MAX: u64 = 30 * 60;
/// By how much to slow down when asked to (RFC 8628, 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// The gateway's answer to a sign-in that begins.
#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

/// What the answer to a question means.
#[derive(Debug)]
enum Step {
    Done(Token),
    Wait,
    SlowDown,
    Over(LoginError),
}

/// Asks for a code, shows it, and waits until the person has confirmed it. `post` sends a form to a path of the gateway.
///
/// # Cancellation
/// Cancel-safe: a code that nobody asks about any more is forgotten.
pub(crate) async fn by_device<F>(post: impl Fn(&'static str, String) -> F) -> Result<Token, LoginError>
where
    F: Future<Output = Result<Response<Bytes>, Failure>>,
{
    let ask = |error| LoginError::Ask(Box::new(error));
    let response = post(AUTHORIZATION_PATH, String::new()).await.map_err(ask)?;
    let begun = begun_of(&response)?;
    announce(sign_in_page(&begun.verification_uri)?.as_str(), &begun.user_code);
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", GRANT_TYPE)
        .append_pair("device_code", &begun.device_code)
        .finish();
    let mut interval = Duration::from_secs(begun.interval.unwrap_or(INTERVAL_DEFAULT).clamp(1, INTERVAL_MAX));
    let asking = async {
        loop {
            sleep(interval).await;
            let step = match post(TOKEN_PATH, form.clone()).await {
                Ok(response) => step_of(&response),
                // The network may be away for a while (RFC 8628, 3.5).
                Err(Failure::Link(error)) if error.may_pass() => Step::SlowDown,
                Err(error) => Step::Over(ask(error)),
            };
            match step {
                Step::Done(token) => return Ok(token),
                Step::Wait => {}
                Step::SlowDown => interval = (interval + SLOW_DOWN).min(Duration::from_secs(INTERVAL_MAX)),
                Step::Over(error) => return Err(error),
            }
        }
    };
    let life = Duration::from_secs(begun.expires_in.min(LIFE_MAX));
    timeout(life, asking).await.map_err(|_| LoginError::CodeExpired)?
}

fn begun_of(response: &Response<Bytes>) -> Result<Begun, LoginError> {
    match response.status() {
        StatusCode::OK => serde_json::from_slice(response.body()).map_err(|_| LoginError::NoDeviceSignIn),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Err(LoginError::DeviceSignInBusy),
        _ => Err(LoginError::NoDeviceSignIn),
    }
}

fn step_of(response: &Response<Bytes>) -> Step {
    #[derive(Deserialize)]
    struct Answer {
        access_token: Option<String>,
        error: Option<String>,
    }
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        return Step::SlowDown;
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(response.body()) else {
        return Step::Over(LoginError::NoDeviceSignIn);
    };
    match (response.status(), answer.error.as_deref(), answer.access_token) {
        (StatusCode::OK, None, Some(token)) => {
            Token::parse(&token).map_or(Step::Over(LoginError::NoDeviceSignIn), Step::Done)
        }
        (_, Some("authorization_pending"), _) => Step::Wait,
        (_, Some("slow_down"), _) => Step::SlowDown,
        (_, Some("access_denied"), _) => Step::Over(LoginError::SaidNo),
        (_, Some("expired_token"), _) => Step::Over(LoginError::CodeExpired),
        _ => Step::Over(LoginError::NoDeviceSignIn),
    }
}

#[expect(clippy::print_stderr, reason = "the person must see the code whatever the log level is")]
fn announce(page: &str, code: &str) {
    eprintln!("On a machine with a browser, open\n\n  {page}\n\nand type the code\n\n  {}\n", shown(code));
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::token::tests::token_until;

    fn answer(status: u16, body: &str) -> Response<Bytes> {
        Response::builder().status(status).body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    #[test]
    fn each_answer_of_the_token_endpoint_has_its_meaning() {
        let failed = |error: &str| step_of(&answer(400, &format!("{{\"error\":\"{error}\"}}")));
        assert!(matches!(failed("authorization_pending"), Step::Wait));
        assert!(matches!(failed("slow_down"), Step::SlowDown));
        assert!(matches!(failed("access_denied"), Step::Over(LoginError::SaidNo)));
        assert!(matches!(failed("expired_token"), Step::Over(LoginError::CodeExpired)));
        assert!(matches!(failed("invented"), Step::Over(LoginError::NoDeviceSignIn)));
        assert!(matches!(step_of(&answer(503, "")), Step::SlowDown));
        let token = token_until(9);
        let good = format!("{{\"access_token\":\"{}\"}}", token.expose());
        assert!(matches!(step_of(&answer(200, &good)), Step::Done(got) if got == token));
        assert!(matches!(step_of(&answer(400, &good)), Step::Over(_)), "an error has no token");
        for body in ["", "<html>", "{}", "{\"access_token\":\"a b\"}", "{\"access_token\":7}"] {
            assert!(matches!(step_of(&answer(200, body)), Step::Over(LoginError::NoDeviceSignIn)), "{body}");
        }
    }

    #[tokio::test]
    async fn the_device_asks_until_the_person_has_confirmed() {
        let begun = "{\"device_code\":\"d&d\",\"user_code\":\"BCDF-GHJK\",\"verification_uri\":\"https://a.example/d\",\
                     \"expires_in\":600,\"interval\":0}";
        let token = format!("{{\"access_token\":\"{}\"}}", token_until(9).expose());
        let answers = RefCell::new(vec![answer(200, &token), answer(200, begun)]);
        let asked = RefCell::new(Vec::new());
        let got = by_device(|path, form| {
            asked.borrow_mut().push((path, form));
            let answer = answers.borrow_mut().pop().unwrap();
            async { Ok(answer) }
        })
        .await;
        assert_eq!(got.unwrap(), token_until(9));
        let asked = asked.into_inner();
        assert_eq!(asked[0], (AUTHORIZATION_PATH, String::new()));
        assert!(asked[1].0 == TOKEN_PATH && asked[1].1.ends_with("&device_code=d%26d"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_gateway_without_device_sign_in_is_told_from_a_busy_one() {
        for (status, body, is_busy) in [(404, "", false), (200, "{}", false), (503, "{}", true)] {
            let got = by_device(|_, _| async { Ok(answer(status, body)) }).await.unwrap_err();
            assert_eq!(matches!(got, LoginError::DeviceSignInBusy), is_busy, "{status}");
        }
    }
}
