//! The provider signs people out: back-channel logout.

use serde_json::{Value, json};

use super::{
    idp::{Idp, Trip, claims, trip},
    *,
};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Alice, who has signed in; the provider named its own session.
struct Alice {
    trip: Trip,
    session: Session,
}

impl Alice {
    async fn new() -> Self {
        let mut trip = trip().await;
        let mut said = claims(&trip.idp, &trip.nonce, trip.now);
        said["sid"] = json!("at-provider");
        trip.idp.will_say(said);
        let hand_over = location(&trip.browser.get(&trip.service, &trip.callback, trip.now.wall).await);
        let app = location(&trip.browser.get(&trip.service, &hand_over, trip.now.wall).await);
        let headers = trip.browser.headers(&app);
        let session =
            trip.service.session_of(&headers, None, Some("app.example.com"), None, trip.now.wall).await;
        Self { session: Arc::unwrap_or_clone(session.unwrap().unwrap()), trip }
    }

    fn token(&self, jti: &str, change: Value) -> String {
        let now = self.trip.now.unix_seconds();
        let mut said = json!({"iss": self.trip.idp.issuer, "aud": "gateway", "iat": now, "exp": now + 120, "jti": jti,
            "events": {EVENT: {}}});
        for (name, value) in change.as_object().unwrap() {
            said[name] = value.clone();
        }
        self.trip.idp.sign(&said)
    }

    async fn send(&self, token: &str) -> Response<Bytes> {
        let place = url("https://authenticate.example.com/oauth2/backchannel_logout");
        let fields = [("logout_token", token)];
        let mut provider = Browser::default();
        provider
            .post(&self.trip.service, &place, &fields, Some("https://idp.example"), self.trip.now.wall)
            .await
    }

    async fn is_in(&self) -> bool {
        self.trip.service.store.session(&self.session.id).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn the_provider_ends_its_own_session_here_and_whoever_follows_hears_of_it() {
    for who in [
        json!({"sid": "at-provider"}),
        json!({"sub": "alice"}),
        json!({"sub": "alice", "sid": "at-provider"}),
    ] {
        let alice = Alice::new().await;
        let changes = alice.trip.service.store.changes();
        let before = *changes.borrow();
        let response = alice.send(&alice.token("1", who.clone())).await;
        assert_eq!(response.status(), StatusCode::OK, "{:?}", response.body());
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert!(!alice.is_in().await, "{who}");
        assert!(*changes.borrow() > before);
    }
}

#[tokio::test]
async fn somebody_elses_logout_ends_nothing() {
    let alice = Alice::new().await;
    let others = [
        json!({"sid": "other"}),
        json!({"sub": "bob"}),
        json!({"sub": "alice", "sid": "other"}),
        json!({"sub": "bob", "sid": "at-provider"}),
    ];
    for (number, who) in others.into_iter().enumerate() {
        assert_eq!(alice.send(&alice.token(&number.to_string(), who)).await.status(), StatusCode::OK);
        assert!(alice.is_in().await);
    }
}

#[tokio::test]
async fn a_token_that_is_no_logout_token_of_this_provider_for_this_client_ends_nothing() {
    let alice = Alice::new().await;
    let now = alice.trip.now.unix_seconds();
    for (name, value) in [
        ("aud", json!("other-client")),
        ("iss", json!("https://evil.example")),
        ("exp", json!(now - 61)),
        ("iat", json!(now - 601)),
        ("iat", json!(now + 61)),
        ("nonce", json!("n")),
        ("events", json!({})),
        ("jti", json!(7)),
    ] {
        let mut who = json!({"sub": "alice"});
        who[name] = value;
        let response = alice.send(&alice.token("1", who)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{name}");
    }
    // Alice's own ID token, and one that somebody else signed.
    let id_token = alice.trip.idp.sign(&claims(&alice.trip.idp, "n", alice.trip.now));
    assert_eq!(alice.send(&id_token).await.status(), StatusCode::BAD_REQUEST);
    let stranger = Idp::start().await;
    let now = alice.trip.now.unix_seconds();
    let forged = stranger
        .sign(&json!({"iss": alice.trip.idp.issuer, "aud": "gateway", "iat": now, "jti": "1",
        "sub": "alice", "events": {EVENT: {}}}));
    assert_eq!(alice.send(&forged).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(alice.send("").await.status(), StatusCode::BAD_REQUEST);
    assert!(alice.is_in().await);
}

#[tokio::test]
async fn a_logout_token_counts_once_and_not_for_what_began_later() {
    let alice = Alice::new().await;
    let token = alice.token("1", json!({"sub": "alice"}));
    assert_eq!(alice.send(&token).await.status(), StatusCode::OK);
    let later = alice.trip.now.wall + Duration::from_secs(61);
    let again = Session { id: SessionId::new("again"), issued_at: later, ..alice.session.clone() };
    alice.trip.service.store.put_session(&again, &ProviderTokens::none()).await.unwrap();
    assert_eq!(alice.send(&token).await.status(), StatusCode::BAD_REQUEST);
    assert!(alice.trip.service.store.session(&again.id).await.unwrap().is_some());
}

#[tokio::test]
async fn strangers_cannot_make_the_gateway_fetch_keys_again_and_again() {
    let alice = Alice::new().await;
    let stranger = Idp::start().await;
    alice.trip.idp.script.paths.lock().unwrap().clear();
    for number in 0..20 {
        let forged = stranger.sign(&json!({"iss": alice.trip.idp.issuer, "aud": "gateway", "jti": number}));
        assert_eq!(alice.send(&forged).await.status(), StatusCode::BAD_REQUEST);
    }
    let paths = alice.trip.idp.script.paths.lock().unwrap();
    assert_eq!(paths.iter().filter(|path| *path == "/jwks").count(), 1, "{paths:?}");
}
