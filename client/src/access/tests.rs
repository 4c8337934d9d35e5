use std::{net::SocketAddr, path::Path};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    token::tests::bound_until,
    trust::{Trust, TrustSettings},
};

const FAR_AWAY: i64 = 4_000_000_000;

/// Asks the gateway without TLS at this address.
pub(crate) fn access_to(at: SocketAddr, cache: Option<Cache>, caller: Caller) -> Arc<Access> {
    let (trust, tracker) = (Trust::load(&TrustSettings::default()).unwrap(), TaskTracker::new());
    let link = Link::new(Gateway::new(false, &at.ip().to_string(), at.port()), &trust, None, tracker.clone());
    Access::new(link.unwrap(), cache, caller, None, tracker)
}

/// A person who is signed in to the gateway at this address, on this machine alone.
fn signed_in(at: SocketAddr, folder: &Path) -> (Arc<Access>, Cache) {
    let cache = Cache::at(folder.to_owned()).for_device();
    let access = access_to(at, Some(cache.clone()), Caller::Person(Browser::None));
    cache.keep(access.gateway(), &bound_until(FAR_AWAY)).unwrap();
    (access, cache)
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

#[tokio::test]
async fn who_signs_out_has_no_token_here_by_the_time_the_gateway_hears_of_it() {
    for (answer, untold) in [
        ("HTTP/1.1 200 OK", None),
        ("HTTP/1.1 302 Found", None),
        ("HTTP/1.1 401 Unauthorized", None),
        ("HTTP/1.1 503 Service Unavailable", Some("the gateway answered 503 Service Unavailable")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (listener, at) = listener().await;
        let (access, cache) = signed_in(at, folder.path());
        let gateway = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let len = stream.read(&mut request).await.unwrap();
            let still_here = cache.token(access.gateway()).unwrap();
            let answer = format!("{answer}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            (String::from_utf8_lossy(&request[..len]).into_owned(), still_here)
        };
        let (signed_out, (request, still_here)) = tokio::join!(access.sign_out(), gateway);
        assert!(
            request.starts_with("GET /.pomerium/sign_out ") && request.contains("Pomerium "),
            "{request}"
        );
        assert_eq!(still_here, None, "forgotten here first");
        let signed_out = signed_out.unwrap();
        assert!(signed_out.had_one);
        assert_eq!(signed_out.untold.map(|why| why.to_string()).as_deref(), untold);
    }
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_keeps_no_token_here() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, at) = listener().await;
    drop(listener);
    let (access, cache) = signed_in(at, folder.path());
    let signed_out = access.sign_out().await.unwrap();
    assert!(signed_out.had_one && cache.token(access.gateway()).unwrap().is_none());
    let why = signed_out.untold.unwrap().to_string();
    assert!(why.contains("cannot be reached"), "{why}");
    let again = access.sign_out().await.unwrap();
    assert!(!again.had_one && again.untold.is_none(), "{again:?}");
}

#[tokio::test]
async fn a_session_that_the_browser_may_share_is_forgotten_here_and_not_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, at) = listener().await;
    drop(listener);
    let (access, cache) = signed_in(at, folder.path());
    let plain = cache.clone().for_programs();
    cache.forget_any(access.gateway()).unwrap();
    plain.keep(access.gateway(), &crate::token::tests::token_until(FAR_AWAY)).unwrap();
    let signed_out = access.sign_out().await.unwrap();
    assert!(signed_out.had_one && signed_out.untold.is_none(), "nobody was told: {signed_out:?}");
    assert_eq!(plain.token(access.gateway()).unwrap(), None);
}
