//! Sessions whose identity provider has fallen silent.

use super::*;

/// A session that the provider has vouched for up to `until`.
async fn vouched(doors: &Doors, until: std::time::SystemTime) -> String {
    let token = doors.token("s", None).await;
    let session = doors.store.session(&SessionId::new("s")).await.unwrap().unwrap();
    let tokens = ProviderTokens {
        refresh: Some(Secret::new("refresh".to_owned())),
        access_expires_at: Some(until),
        ..ProviderTokens::none()
    };
    assert!(doors.store.replace_session(&session, &tokens).await.unwrap());
    token
}

async fn status(doors: &Doors, token: &str) -> StatusCode {
    doors.ask(Way::Http2, None, Method::GET, "/", token, "").await.0
}

#[tokio::test]
async fn what_is_open_ends_with_the_grace_and_nothing_begins_after_it() {
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), "idp_unreachable_grace: 5s\n").await;
    let until = Now::read().wall;
    let token = vouched(&doors, until).await;
    let client = doors.quic(None).await;
    let mut headers = http::HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Pomerium {token}").parse().unwrap());
    let Connected::Open { leg, .. } = client.connect(&PLACE.parse().unwrap(), headers).await.unwrap() else {
        panic!("the grace is not over");
    };
    let (_app, _) = doors.app.accept().await.unwrap();
    let (local, _person) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(local);
    let carried = relay::run(Leg::io(reader, writer), leg, RelayOptions::default(), std::future::pending());
    let end = tokio::time::timeout(Duration::from_secs(20), carried).await.unwrap();
    assert_eq!(end.reason, EndReason::Session);
    assert!(Now::read().wall >= until + Duration::from_secs(5));
    assert_eq!(status(&doors, &token).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_counts_within_the_grace() {
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), "idp_unreachable_grace: 1h\n").await;
    let token = vouched(&doors, Now::read().wall - Duration::from_secs(60)).await;
    assert_eq!(
        status(&doors, &token).await,
        StatusCode::BAD_GATEWAY,
        "let through, to an app that is not there"
    );
}
