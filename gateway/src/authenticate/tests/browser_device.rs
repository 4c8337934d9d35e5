//! A browser that is a device: enrolled on the sign-in host, approved by an administrator, and shown when an app asks.

use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::*;
use crate::device::{Device, DeviceKind, webauthn::soft::SoftAuthenticator};

const ORIGIN: &str = "https://authenticate.example.com";

/// Somebody with a browser and an authenticator.
struct Person {
    service: Authenticate,
    browser: Browser,
    key: SoftAuthenticator,
}

fn authenticator() -> SoftAuthenticator {
    SoftAuthenticator::new("authenticate.example.com", ORIGIN)
}

fn said(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_else(|_| panic!("{response:?}"))
}

impl Person {
    async fn new() -> Self {
        let service = service().await;
        let browser = signed_in(&service).await;
        Self { service, browser, key: authenticator() }
    }

    /// What our script would post.
    async fn post(&self, path: &str, message: &Value, origin: &str, now: u64) -> Response<Bytes> {
        let url = url(ORIGIN).join(path).unwrap();
        let mut headers = self.browser.headers(&url);
        headers.insert(header::ORIGIN, origin.parse().unwrap());
        let form = Bytes::from(message.to_string());
        let req = AuthRequest { method: &Method::POST, url: &url, headers: &headers, form, key: None };
        self.service.handle_authenticate_host(req, at(now)).await
    }

    /// A challenge of the sign-in host.
    async fn asked(&self, options: &str, now: u64) -> Vec<u8> {
        let answer = said(&self.post(options, &json!({}), ORIGIN, now).await);
        BASE64.decode(answer["challenge"].as_str().unwrap()).unwrap()
    }

    fn made(&self, challenge: &[u8]) -> Value {
        let (client_data, object) = self.key.create(challenge);
        json!({"name": "Laptop", "client_data": BASE64.encode(client_data), "attestation_object": BASE64.encode(object)})
    }

    fn given(&self, challenge: &[u8]) -> Value {
        let given = self.key.get(challenge);
        json!({
            "credential_id": BASE64.encode(&self.key.id),
            "client_data": BASE64.encode(given.client_data),
            "authenticator_data": BASE64.encode(given.authenticator_data),
            "signature": BASE64.encode(given.signature),
        })
    }

    async fn enrol(&self) {
        let challenge = self.asked("/.pomerium/devices/options", NOW).await;
        let answer = self.post("/.pomerium/devices/enrol", &self.made(&challenge), ORIGIN, NOW).await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    }

    async fn session(&self) -> Session {
        let found = self.service.store.session(&SessionId::new("s1")).await;
        Arc::unwrap_or_clone(found.unwrap().unwrap())
    }

    async fn device(&self, now: u64) -> Option<Device> {
        self.service.store.device_of(&self.session().await, at(now)).await.unwrap()
    }

    /// The signed link that an app's host sends the browser to; path and query.
    async fn link(&self, back: &str) -> String {
        let session = self.session().await;
        let link = location(&self.service.device_proof_response(&url(back), &session, at(NOW)));
        assert_eq!(link.origin().ascii_serialization(), ORIGIN);
        format!("{}?{}", link.path(), link.query().unwrap())
    }

    /// Shows the device, with whatever the authenticator now does.
    async fn prove(&self, link: &str) -> Response<Bytes> {
        let challenge = self.asked("/.pomerium/webauthn/options", NOW).await;
        self.post(link, &self.given(&challenge), ORIGIN, NOW).await
    }
}

#[tokio::test]
async fn a_browser_is_a_device_once_it_is_enrolled_and_shown_for_as_long_as_a_proof_lasts() {
    let mut alice = Person::new().await;
    alice.enrol().await;
    let device = alice.service.store.devices(None).await.unwrap().remove(0);
    assert_eq!((device.name.as_str(), device.kind), ("Laptop", DeviceKind::WebauthnAny));
    assert!(!device.is_approved, "an administrator has a say");
    assert_eq!(alice.device(NOW).await, None, "nothing is shown yet");

    alice.service.store.approve_device(&device, true).await.unwrap();
    let link = alice.link("https://app.example.com/x?a=1").await;
    let page = alice.browser.get(&alice.service, &url(ORIGIN).join(&link).unwrap(), at(NOW)).await;
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("form-action 'self';"), "{policy}");
    alice.key.sign_count = 2;
    let answer = alice.prove(&link).await;
    assert_eq!(said(&answer)["location"], "https://app.example.com/x?a=1");
    assert!(alice.device(NOW + 1799).await.unwrap().is_approved);
    assert_eq!(alice.device(NOW + 1800).await, None, "the proof has run out");

    alice.service.store.remove_device(&device).await.unwrap();
    assert_eq!(alice.device(NOW).await, None);
    assert_eq!(alice.session().await.proof, None, "and the session goes on without");
}

#[tokio::test]
async fn a_challenge_is_good_for_one_answer_of_the_session_that_was_asked_in_time() {
    let alice = Person::new().await;
    let challenge = alice.asked("/.pomerium/devices/options", NOW).await;
    let made = alice.made(&challenge);
    let late = alice.post("/.pomerium/devices/enrol", &made, ORIGIN, NOW + 121).await;
    assert_eq!(late.status(), StatusCode::BAD_REQUEST);
    let first = alice.post("/.pomerium/devices/enrol", &made, ORIGIN, NOW).await;
    assert_eq!(first.status(), StatusCode::OK, "{:?}", first.body());
    let again = alice.post("/.pomerium/devices/enrol", &made, ORIGIN, NOW).await;
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);

    // A challenge for a proof makes no credential, and one that nobody set neither.
    let other = alice.asked("/.pomerium/webauthn/options", NOW).await;
    for challenge in [other, vec![7; 32]] {
        let refused = alice.post("/.pomerium/devices/enrol", &alice.made(&challenge), ORIGIN, NOW).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }
    assert_eq!(alice.service.store.devices(None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_that_was_forged_proves_nothing() {
    type Forge = fn(&mut SoftAuthenticator);
    let forgeries: [(&str, Forge); 7] = [
        ("another site", |key| key.origin = "https://evil.example".to_owned()),
        ("an app's page", |key| key.origin = "https://app.example.com".to_owned()),
        ("a frame", |key| key.is_framed = true),
        ("nobody there", |key| key.flags = 0),
        ("another relying party", |key| key.relying_party = "example.com".to_owned()),
        ("a copy", |key| key.sign_count = 1),
        ("another key", |key| {
            let id = key.id.clone();
            *key = authenticator();
            (key.id, key.sign_count) = (id, 2);
        }),
    ];
    for (what, forge) in forgeries {
        let mut alice = Person::new().await;
        alice.enrol().await;
        alice.key.sign_count = 2;
        forge(&mut alice.key);
        let link = alice.link("https://app.example.com/").await;
        assert_eq!(alice.prove(&link).await.status(), StatusCode::BAD_REQUEST, "{what}");
        assert_eq!(alice.session().await.proof, None, "{what}");
    }
}

#[tokio::test]
async fn other_sites_other_sessions_and_other_places_get_nowhere() {
    let mut alice = Person::new().await;
    alice.enrol().await;
    alice.key.sign_count = 2;
    let link = alice.link("https://app.example.com/").await;
    // A page elsewhere sends the browser's cookies along.
    for path in ["/.pomerium/devices/options", "/.pomerium/webauthn/options", link.as_str()] {
        let refused = alice.post(path, &json!({}), "https://app.example.com", NOW).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{path}");
    }
    // The link is signed: neither the place to go back to nor the session can be changed.
    for (old, new) in [("app.example.com", "evil.example"), ("s1", "s2")] {
        let refused = alice.prove(&link.replace(old, new)).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{new}");
    }
    let elsewhere = alice.link("https://evil.example/").await;
    assert_eq!(alice.prove(&elsewhere).await.status(), StatusCode::BAD_REQUEST);
    let stale = url(ORIGIN).join(&link).unwrap();
    assert_eq!(
        alice.browser.get(&alice.service, &stale, at(NOW + 1000)).await.status(),
        StatusCode::BAD_REQUEST
    );

    let other = Session { id: SessionId::new("s2"), ..alice.session().await };
    let to_other =
        location(&alice.service.device_proof_response(&url("https://app.example.com/"), &other, at(NOW)));
    let page = alice.browser.get(&alice.service, &to_other, at(NOW)).await;
    assert_eq!(page.status(), StatusCode::CONFLICT, "the proof would go into another session");
    assert_eq!(alice.session().await.proof, None);
}

#[tokio::test]
async fn people_see_and_remove_their_own_devices_only() {
    let mut alice = Person::new().await;
    alice.enrol().await;
    let bobs = Session { id: SessionId::new("b1"), user_id: UserId::new("bob"), ..alice.session().await };
    alice.service.store.put_session(&bobs, &ProviderTokens::none()).await.unwrap();
    let credential = crate::device::webauthn::Credential {
        id: vec![7; 32],
        cose_key: authenticator().cose_key(),
        sign_count: 0,
    };
    alice.service.store.enrol_credential(&bobs.user_id, "Bob's phone", &credential, at(NOW)).await.unwrap();

    let page = url(ORIGIN).join("/.pomerium/devices").unwrap();
    let shown = alice.browser.get(&alice.service, &page, at(NOW)).await;
    let text = std::str::from_utf8(shown.body()).unwrap();
    assert!(text.contains("Laptop") && !text.contains("Bob's phone"), "{text}");

    let bobs_id = BASE64.encode([7; 32]);
    let remove = url(ORIGIN).join("/.pomerium/devices/remove").unwrap();
    let refused = alice.browser.post(&alice.service, &remove, &[("id", &bobs_id)], None, at(NOW)).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let own = BASE64.encode(&alice.key.id);
    let elsewhere = Some("https://evil.example");
    let refused = alice.browser.post(&alice.service, &remove, &[("id", &own)], elsewhere, at(NOW)).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(alice.service.store.devices(None).await.unwrap().len(), 2);
    let done = alice.browser.post(&alice.service, &remove, &[("id", &own)], None, at(NOW)).await;
    assert_eq!(done.status(), StatusCode::FOUND);
    let left = alice.service.store.devices(None).await.unwrap();
    assert_eq!(left.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["Bob's phone"]);
}

#[tokio::test]
async fn another_persons_credential_shows_nothing() {
    let mut alice = Person::new().await;
    alice.enrol().await;
    let bobs = Session { id: SessionId::new("b1"), user_id: UserId::new("bob"), ..alice.session().await };
    alice.service.store.put_session(&bobs, &ProviderTokens::none()).await.unwrap();
    // Bob has enrolled a key of his own, and alice now answers with it.
    let bobs_key = authenticator();
    let credential = crate::device::webauthn::Credential {
        id: bobs_key.id.clone(),
        cose_key: bobs_key.cose_key(),
        sign_count: 0,
    };
    alice.service.store.enrol_credential(&bobs.user_id, "", &credential, at(NOW)).await.unwrap();
    alice.key = bobs_key;
    let link = alice.link("https://app.example.com/").await;
    assert_eq!(alice.prove(&link).await.status(), StatusCode::BAD_REQUEST);
}
