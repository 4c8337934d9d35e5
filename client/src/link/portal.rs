//! Captive portals: networks that let nothing through before their people have signed in on a page of theirs (RFC 8952). Asked
//! when the gateway was not reached, at its own name and on port 80, where such networks answer in place of everybody. No third
//! party hears of it, no token is sent, and nothing that is answered is followed.
//!
//! What an answer means is decided in [`page`], which is pure.

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HOST, LOCATION},
};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use url::Url;

use super::{answer::shown, dial::ADDRESSES_MAX};
use crate::gateway::Gateway;

const PORT: u16 = 80;
/// Nobody has a page there. A gateway sends whoever asks to HTTPS on its own host (`http_redirect_addr`), or answers nothing.
const PATH: &str = "/.well-known/pomerium/captive-portal";
/// How long all of it may take: people wait for what became of their attempt.
const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of an answer's head at most.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Characters of a page's address at most.
const PAGE_LEN_MAX: usize = 200;

/// What answered on port 80.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    status: StatusCode,
    /// Where it sends browsers.
    location: Option<String>,
    is_html: bool,
}

/// The page of the portal that answers in place of this host, fit to be shown; `None`: nothing says that there is one.
///
/// The operator's own web server may be what answers. It has no page where we ask; what it sends elsewhere, it sends for good
/// (301, 308), which a portal must not.
pub(crate) fn page(host: &str, answer: &Answer) -> Option<String> {
    // Any page that is not encrypted leads there.
    let any = || format!("http://{}/", bracketed(host));
    let is_for_now = matches!(answer.status.as_u16(), 302 | 303 | 307);
    match answer.status {
        StatusCode::NETWORK_AUTHENTICATION_REQUIRED => Some(any()),
        StatusCode::OK if answer.is_html => Some(any()),
        _ if is_for_now => {
            let base = Url::parse(&any()).ok()?;
            let target = base.join(answer.location.as_deref()?).ok()?;
            let is_foreign = target.host_str()? != base.host_str()?;
            is_foreign.then(|| fit_to_show(target).unwrap_or_else(any))
        }
        _ => None,
    }
}

/// Asks whether a portal holds this network; `None`: nothing says so. Cancel-safe.
pub(crate) async fn look(gateway: &Gateway) -> Option<String> {
    // What needs no certificate has been asked for the gateway itself.
    if !gateway.tls() {
        return None;
    }
    match timeout(LIMIT, ask(gateway.host())).await {
        Ok(Ok(answer)) => page(gateway.host(), &answer),
        Ok(Err(error)) => {
            tracing::debug!(%error, "nobody says whether a portal holds the network");
            None
        }
        Err(_) => None,
    }
}

async fn ask(host: &str) -> io::Result<Answer> {
    // There is no network between this machine and itself.
    let found = lookup_host((host, PORT)).await?.filter(|address| !address.ip().is_loopback());
    let mut addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
    // Where a portal is, IPv6 mostly is not.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    answered(TcpStream::connect(&*addresses).await?, host).await
}

/// The head of the answer; its body is not read.
async fn answered(stream: TcpStream, host: &str) -> io::Result<Answer> {
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_LEN_MAX);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(PATH).header(HOST, bracketed(host)).header(CONNECTION, "close");
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It may have ended with the answer.
        _ended = connection => answer.await,
    };
    answer.map(|answer| of(&answer)).map_err(io::Error::other)
}

fn of(answer: &Response<Incoming>) -> Answer {
    let field = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let is_html = field(CONTENT_TYPE).is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"));
    Answer { status: answer.status(), location: field(LOCATION).map(str::to_owned), is_html }
}

/// An address for people to open, and for nothing else: without what a short one can do without.
fn fit_to_show(mut page: Url) -> Option<String> {
    page.set_fragment(None);
    page.set_username("").ok()?;
    page.set_password(None).ok()?;
    if page.as_str().len() > PAGE_LEN_MAX {
        page.set_query(None);
    }
    if page.as_str().len() > PAGE_LEN_MAX {
        page.set_path("/");
    }
    let is_web = matches!(page.scheme(), "http" | "https") && page.as_str().len() <= PAGE_LEN_MAX;
    is_web.then(|| shown(page.as_str()))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const HOST: &str = "gate.example";

    fn answer(status: u16, location: Option<&str>, is_html: bool) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, location: location.map(str::to_owned), is_html }
    }

    #[test]
    fn what_only_a_portal_answers_is_told_from_what_others_do() {
        let any = Some("http://gate.example/");
        for (status, location, is_html, expected) in [
            (
                302,
                Some("http://wifi.hotel.example/login?mac=1"),
                true,
                Some("http://wifi.hotel.example/login?mac=1"),
            ),
            (307, Some("https://wifi.hotel.example"), false, Some("https://wifi.hotel.example/")),
            (303, Some("//10.0.0.1:8080/in#x"), false, Some("http://10.0.0.1:8080/in")),
            (302, Some("http://me:secret@wifi.example/"), false, Some("http://wifi.example/")),
            (302, Some("javascript://wifi.example/%0aalert(1)"), false, any),
            (511, None, true, any),
            (200, None, true, any),
            // The gateway's own, and other servers of its operator.
            (301, Some("https://gate.example/.well-known/x"), false, None),
            (302, Some("https://GATE.example/"), false, None),
            (302, Some("/login"), false, None),
            (301, Some("https://www.example/"), false, None),
            (308, Some("https://www.example/"), false, None),
            (302, None, true, None),
            (302, Some("http://[bad"), true, None),
            (200, None, false, None),
            (404, None, true, None),
            (503, None, true, None),
        ] {
            let told = page(HOST, &answer(status, location, is_html));
            assert_eq!(told.as_deref(), expected, "{status} {location:?} {is_html}");
        }
        let six = page("2001:db8::1", &answer(302, Some("http://[2001:db8::1]/x"), true));
        assert_eq!(six, None, "its own host, in brackets");
        assert_eq!(page("2001:db8::1", &answer(511, None, true)).as_deref(), Some("http://[2001:db8::1]/"));
    }

    proptest! {
        #[test]
        fn a_page_is_short_and_cannot_steer_a_terminal(location in ".{0,600}", host in "[a-z]{1,20}") {
            for location in [location.clone(), format!("http://{host}.example/{location}"), format!("http://{host}.example/?{location}")] {
                if let Some(page) = page(HOST, &answer(302, Some(&location), true)) {
                    prop_assert!(page.len() <= PAGE_LEN_MAX && page.is_ascii(), "{page}");
                    prop_assert!(page.starts_with("http://") || page.starts_with("https://"), "{page}");
                    prop_assert!(!page.contains(|c: char| c.is_control() || c == ' '), "{page}");
                }
            }
        }
    }

    #[tokio::test]
    async fn it_is_asked_without_a_secret_and_its_head_is_enough() {
        // All of the answer in one piece, or a body that does not end.
        for len in [0, 1_000_000] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let portal = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                let head = "HTTP/1.1 302 Found\r\nlocation: http://wifi.example/";
                let head = format!("{head}\r\ncontent-length: {len}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                (stream, String::from_utf8_lossy(&request[..read]).to_ascii_lowercase())
            };
            let asked = async { answered(TcpStream::connect(at).await.unwrap(), HOST).await };
            let ((_open, request), answer) = tokio::join!(portal, asked);
            assert_eq!(page(HOST, &answer.unwrap()).as_deref(), Some("http://wifi.example/"));
            let lines: Vec<&str> = request.split_terminator("\r\n").filter(|line| !line.is_empty()).collect();
            assert_eq!(lines, [&format!("get {PATH} http/1.1"), "host: gate.example", "connection: close"]);
        }
    }

    #[tokio::test]
    async fn this_machine_itself_is_no_network() {
        assert!(ask("127.0.0.1").await.is_err());
        assert_eq!(look(&Gateway::new(true, "127.0.0.1", 1)).await, None);
    }
}
