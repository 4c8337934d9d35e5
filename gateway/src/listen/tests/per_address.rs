//! One address does not take what is everybody's.

use super::*;
use crate::{body, proxy::Connection};

fn from(peer: &str, host: &str) -> Connection {
    Connection {
        peer: SocketAddr::new(peer.parse().unwrap(), 4711),
        server_name: Some(host.to_owned()),
        protocol: "h2",
        proven: None,
        roaming: None,
    }
}

async fn status(doors: &Doors, url: &str, peer: &str) -> StatusCode {
    let request = Request::get(url).body(body::empty()).unwrap();
    let host = request.uri().host().unwrap().to_owned();
    let response = doors.proxy.handle(request, &from(peer, &host)).await;
    assert_eq!(
        response.headers().contains_key(header::RETRY_AFTER),
        response.status() == StatusCode::TOO_MANY_REQUESTS
    );
    response.status()
}

#[tokio::test]
async fn the_sign_in_answers_one_address_only_so_often_and_apps_as_ever() {
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), "sign_in_requests_per_address: 1\n").await;
    let (own, sign_in) = (format!("https://{HOST}{ROUTES}"), "https://auth.corp.test/oauth2/callback");
    let mut answers = Vec::new();
    // One more than a rush of ten, and one for each second that this may take.
    let began = Now::read().monotonic;
    while answers.last() != Some(&StatusCode::TOO_MANY_REQUESTS) {
        answers.push(status(&doors, &own, "203.0.113.7").await);
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!(answers.len() <= 12 + seconds, "never refused");
    }
    assert!(answers.len() > 10, "a rush is let in: {answers:?}");
    assert_eq!(status(&doors, sign_in, "203.0.113.7").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(status(&doors, &own, "203.0.113.8").await, StatusCode::UNAUTHORIZED, "another address");
    for free in ["/ping", "/.well-known/pomerium/jwks.json"] {
        assert_eq!(status(&doors, &format!("https://{HOST}{free}"), "203.0.113.7").await, StatusCode::OK);
    }
    let app = status(&doors, "https://nowhere.corp.test/", "203.0.113.7").await;
    assert_eq!(app, StatusCode::NOT_FOUND, "what routes answer is not counted");
}

#[tokio::test]
async fn an_address_has_as_many_connections_as_the_operator_allows() {
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), "connections_per_address: 2\n").await;
    let stranger = "203.0.113.7".parse().unwrap();
    let held: Vec<_> = (0..2).map(|_| doors.proxy.place(stranger).unwrap()).collect();
    assert!(doors.proxy.place(stranger).is_none());
    drop(held);
    assert!(doors.proxy.place(stranger).is_some());
}
