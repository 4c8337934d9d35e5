//! The loopback address to which the browser brings the code for a token, or from gateways that know no codes the token itself
//! (RFC 8252, 7.3).
//!
//! Any program and any web page on this machine can reach the port, so nothing counts but a `GET` of the one random
//! path, under the one `Host`, with what is waited for. Everything else is a 404 and changes nothing, but for the page at
//! [`DONE_PATH`]: the browser is sent on there, so that the token stays in no address bar and no history.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::{
    token::{TOKEN_LEN_MAX, Token},
    visitor,
};

/// Bytes of a request head at most.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// How long one caller may take to send its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Callers served at once; a browser needs two or three, others wait in the kernel.
const CALLERS_MAX: usize = 16;

/// How long the browser may take to come for the page once it was here.
const LINGER: Duration = Duration::from_secs(2);
/// Where the page is.
const DONE_PATH: &str = "/done";

const GO_ON: &str = "HTTP/1.1 303 See Other\r\nLocation: /done\r\nContent-Length: 0\r\n\
    Referrer-Policy: no-referrer\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n";
const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
    Referrer-Policy: no-referrer\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
    Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nConnection: close\r\n\r\n\
    <!doctype html><title>Signed in</title><p>login complete, you may close this page</p>\n";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\nnot found\n";

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expects {
    /// A code and nothing else: a token from whoever saw the address would have this person work as somebody else.
    Code,
    /// The gateway has not said that it knows codes: a token will do.
    CodeOrToken,
}

/// What the browser brought.
#[derive(Debug)]
pub(crate) enum Brought {
    /// A code, which is worth a token to this process alone.
    Code(String),
    /// The token.
    Token(Token),
}

/// A listener on 127.0.0.1 that waits for one browser.
#[derive(Debug)]
pub(crate) struct Callback {
    listener: TcpListener,
    host: String,
    path: String,
}

/// What the right caller asks for.
#[derive(Debug, Clone)]
struct Expected {
    host: String,
    path: String,
    expects: Expects,
}

impl Callback {
    /// Binds a free port of 127.0.0.1 and draws the path.
    pub(crate) async fn bind() -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let mut secret = [0_u8; 16];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| std::io::Error::other("no random numbers"))?;
        let host = listener.local_addr()?.to_string();
        let path = format!("/{}", URL_SAFE_NO_PAD.encode(secret));
        Ok(Self { listener, host, path })
    }

    /// The `pomerium_redirect_uri` that leads here.
    pub(crate) fn redirect_uri(&self) -> String {
        format!("http://{}{}", self.host, self.path)
    }

    /// Serves callers until one brings what is waited for, and for a moment more, until the browser has the page. Not bounded in
    /// time: the caller sets the deadline.
    ///
    /// # Cancellation
    /// Cancel-safe: dropping it closes the port and all callers.
    pub(crate) async fn brought(self, expects: Expects) -> std::io::Result<Brought> {
        let expected = Expected { host: self.host.clone(), path: self.path.clone(), expects };
        let mut callers: JoinSet<Option<Call>> = JoinSet::new();
        let mut has_page = false;
        let brought = loop {
            tokio::select! {
                accepted = self.listener.accept(), if callers.len() < CALLERS_MAX => {
                    let (stream, _) = accepted?;
                    callers.spawn(serve(stream, expected.clone()));
                }
                Some(ended) = callers.join_next() => match ended {
                    Ok(Some(Call::Brought(brought))) => break brought,
                    Ok(Some(Call::Page)) => has_page = true,
                    Ok(None) | Err(_) => {}
                },
            }
        };
        if !has_page {
            // What a browser that does not come has brought counts all the same.
            let _came = timeout(LINGER, self.page_fetched(&mut callers, &expected)).await;
        }
        Ok(brought)
    }

    /// Serves callers until one has fetched the page.
    async fn page_fetched(&self, callers: &mut JoinSet<Option<Call>>, expected: &Expected) {
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if callers.len() < CALLERS_MAX => match accepted {
                    Ok((stream, _)) => _ = callers.spawn(serve(stream, expected.clone())),
                    Err(_) => return,
                },
                Some(ended) = callers.join_next() => if let Ok(Some(Call::Page)) = ended {
                    return;
                },
            }
        }
    }
}

/// What one caller came for, if it was anything of ours.
#[derive(Debug)]
enum Call {
    /// It brought what is waited for.
    Brought(Brought),
    /// It has fetched the page.
    Page,
}

/// Answers one caller. Another user of the machine may have seen the address in a process list, and bring a sign-in of theirs.
async fn serve(mut stream: TcpStream, expected: Expected) -> Option<Call> {
    if visitor::is_anothers(&stream) {
        tracing::warn!("a process of another user was turned away from the sign-in's local address");
        return None;
    }
    let head = timeout(HEAD_TIMEOUT, read_head(&mut stream)).await.ok()??;
    let call = expected.call_in(&head);
    let answer = match &call {
        Some(Call::Brought(_)) => GO_ON,
        Some(Call::Page) => DONE,
        None => NOT_FOUND,
    };
    // What was brought counts even when the browser is gone before it has read the answer.
    let _was_read = timeout(HEAD_TIMEOUT, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
    call
}

/// The bytes up to the empty line; `None` when the caller sends too much or hangs up.
async fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let mut part = [0_u8; 1024];
        let read = stream.read(&mut part).await.ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&part[..read]);
        if head.windows(4).any(|four| four == b"\r\n\r\n") {
            return Some(head);
        }
        if head.len() > HEAD_LEN_MAX {
            return None;
        }
    }
}

impl Expected {
    /// What a request head asks for, if everything about the request is as expected.
    fn call_in(&self, head: &[u8]) -> Option<Call> {
        let text = std::str::from_utf8(head).ok()?;
        let mut lines = text.split("\r\n");
        let mut request = lines.next()?.split(' ');
        let (method, target, version) = (request.next()?, request.next()?, request.next()?);
        if method != "GET" || !version.starts_with("HTTP/1.") || request.next().is_some() {
            return None;
        }
        let mut hosts = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(':'))
            .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
            .map(|(_, value)| value.trim());
        if hosts.next() != Some(self.host.as_str()) || hosts.next().is_some() {
            return None;
        }
        if target == DONE_PATH {
            return Some(Call::Page);
        }
        let (path, query) = target.split_once('?')?;
        if path != self.path {
            return None;
        }
        let mut brought = url::form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| matches!(name.as_ref(), "pomerium_code" | "pomerium_jwt"));
        let (name, value) = brought.next()?;
        // Two are an attempt to have us and someone else read different ones.
        if brought.next().is_some() {
            return None;
        }
        match (name.as_ref(), self.expects) {
            ("pomerium_code", _) => {
                let is_code = (1..=TOKEN_LEN_MAX).contains(&value.len());
                is_code.then(|| Call::Brought(Brought::Code(value.into_owned())))
            }
            (_, Expects::CodeOrToken) => Token::parse(&value).ok().map(Brought::Token).map(Call::Brought),
            (_, Expects::Code) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expected() -> Expected {
        Expected {
            host: "127.0.0.1:4000".to_owned(),
            path: "/Rand0m".to_owned(),
            expects: Expects::CodeOrToken,
        }
    }

    fn asked(first: &str, rest: &str) -> Option<String> {
        let head = format!("{first}\r\n{rest}\r\n\r\n");
        match expected().call_in(head.as_bytes())? {
            Call::Brought(Brought::Token(token)) => Some(token.expose().to_owned()),
            Call::Brought(Brought::Code(code)) => Some(format!("code {code}")),
            Call::Page => Some("the page".to_owned()),
        }
    }

    #[test]
    fn the_right_request_brings_its_token() {
        let token = asked("GET /Rand0m?x=1&pomerium_jwt=a.b.c HTTP/1.1", "hOsT: 127.0.0.1:4000");
        assert_eq!(token.as_deref(), Some("a.b.c"));
    }

    #[test]
    fn where_a_code_was_promised_a_token_is_no_answer() {
        let strict = Expected { expects: Expects::Code, ..expected() };
        let call = |query: &str| {
            strict.call_in(format!("GET /Rand0m?{query} HTTP/1.1\r\nHost: 127.0.0.1:4000\r\n\r\n").as_bytes())
        };
        assert!(
            call("pomerium_jwt=a.b.c").is_none(),
            "somebody who saw the address brings a session of theirs"
        );
        assert!(
            matches!(call("pomerium_code=abc"), Some(Call::Brought(Brought::Code(code))) if code == "abc")
        );
        assert_eq!(
            asked("GET /Rand0m?pomerium_code=abc HTTP/1.1", "Host: 127.0.0.1:4000").as_deref(),
            Some("code abc")
        );
    }

    #[test]
    fn the_page_is_there_under_its_host_only() {
        let page = asked("GET /done HTTP/1.1", "Host: 127.0.0.1:4000");
        assert_eq!(page.as_deref(), Some("the page"));
        assert_eq!(asked("GET /done HTTP/1.1", "Host: evil.example"), None);
        assert_eq!(asked("GET /done?pomerium_jwt=a.b.c HTTP/1.1", "Host: 127.0.0.1:4000"), None);
    }

    #[test]
    fn foreign_paths_hosts_methods_and_doubles_bring_nothing() {
        let host = "Host: 127.0.0.1:4000";
        for (first, rest) in [
            ("GET /?pomerium_jwt=a.b.c HTTP/1.1", host),
            ("GET /rand0m?pomerium_jwt=a.b.c HTTP/1.1", host),
            ("GET /Rand0m/?pomerium_jwt=a.b.c HTTP/1.1", host),
            ("GET /Rand0m HTTP/1.1", host),
            ("GET /Rand0m?pomerium_jwt= HTTP/1.1", host),
            ("GET /Rand0m?pomerium_jwt=a%0D%0Ab HTTP/1.1", host),
            ("GET /Rand0m?pomerium_jwt=a.b.c&pomerium_jwt=d.e.f HTTP/1.1", host),
            ("GET /Rand0m?pomerium_code=abc&pomerium_code=def HTTP/1.1", host),
            ("GET /Rand0m?pomerium_code=abc&pomerium_jwt=a.b.c HTTP/1.1", host),
            ("GET /Rand0m?pomerium_code= HTTP/1.1", host),
            ("POST /Rand0m?pomerium_jwt=a.b.c HTTP/1.1", host),
            ("GET /Rand0m?pomerium_jwt=a.b.c HTTP/1.1", "Host: localhost:4000"),
            ("GET /Rand0m?pomerium_jwt=a.b.c HTTP/1.1", "Host: evil.example"),
            ("GET /Rand0m?pomerium_jwt=a.b.c HTTP/1.1", "Host: 127.0.0.1:4001"),
            ("GET /Rand0m?pomerium_jwt=a.b.c HTTP/1.1", "Host: 127.0.0.1:4000\r\nHost: evil.example"),
            ("GET /Rand0m?pomerium_jwt=a.b.c HTTP/1.1", "X: 1"),
            ("GET http://127.0.0.1:4000/Rand0m?pomerium_jwt=a.b.c HTTP/1.1", host),
        ] {
            assert_eq!(asked(first, rest), None, "{first} {rest}");
        }
    }

    async fn call(address: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn strangers_get_404_and_do_not_end_the_wait() {
        let callback = Callback::bind().await.unwrap();
        let uri = callback.redirect_uri();
        let host = callback.host.clone();
        let path = callback.path.clone();
        assert_eq!(uri, format!("http://{host}{path}"));
        let browser = async {
            let stranger =
                call(&host, &format!("GET /?pomerium_jwt=x HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert!(stranger.starts_with("HTTP/1.1 404 "), "{stranger}");
            let answer =
                call(&host, &format!("GET {path}?pomerium_jwt=a.b.c HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert!(
                answer.starts_with("HTTP/1.1 303 ") && answer.contains("\r\nLocation: /done\r\n"),
                "{answer}"
            );
            assert!(!answer.contains("a.b.c"), "{answer}");
            let page = call(&host, &format!("GET /done HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert!(page.contains("login complete, you may close this page"), "{page}");
            assert!(page.contains("Referrer-Policy: no-referrer"), "{page}");
            assert!(page.contains("Cache-Control: no-store"), "{page}");
            assert!(!page.contains("a.b.c"), "{page}");
        };
        let (token, ()) = tokio::join!(callback.brought(Expects::CodeOrToken), browser);
        assert!(matches!(token.unwrap(), Brought::Token(token) if token.expose() == "a.b.c"));
    }

    #[tokio::test]
    async fn a_caller_that_never_stops_talking_is_cut() {
        let callback = Callback::bind().await.unwrap();
        let host = callback.host.clone();
        let talker = async {
            let mut stream = TcpStream::connect(&host).await.unwrap();
            let line = [b'a'; 4096];
            while stream.write_all(&line).await.is_ok() {}
        };
        tokio::select! {
            token = callback.brought(Expects::Code) => panic!("a token came from nowhere: {token:?}"),
            () = talker => {}
        }
    }

    proptest! {
        #[test]
        fn no_request_without_the_path_brings_a_token(head in ".{0,300}") {
            prop_assume!(!head.contains("/Rand0m"));
            prop_assert!(!matches!(expected().call_in(head.as_bytes()), Some(Call::Brought(_))));
        }
    }
}
