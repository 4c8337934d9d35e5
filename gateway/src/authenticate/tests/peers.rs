//! WireGuard peers on the sign-in host: a page of the person's own, and a script that speaks for nobody else.

use std::num::NonZeroU32;

use pomerium_shared::wireguard::{Enrolment, PrivateKey};
use serde_json::{Value, json};

use super::*;
use crate::wireguard_peer::{Networks, PeerTerms};

const ORIGIN: &str = "https://authenticate.example.com";

pub(super) fn terms() -> PeerTerms {
    PeerTerms {
        networks: Networks::default(),
        endpoint: "authenticate.example.com:51820".parse().unwrap(),
        gateway_public_key: PrivateKey::from_random([9; 32]).public_key(),
        other_dns: vec![],
        peers_per_user: NonZeroU32::new(2).unwrap(),
        session_grace: Duration::ZERO,
    }
}

fn key(seed: u8) -> String {
    PrivateKey::from_random([seed; 32]).public_key().to_string()
}

fn page(path: &str) -> Url {
    url(ORIGIN).join(path).unwrap()
}

/// What our script posts, or somebody who pretends to be it.
async fn enrol(
    service: &Authenticate,
    browser: &Browser,
    message: Value,
    origin: &str,
    now: u64,
) -> (StatusCode, Value) {
    let url = page("/.pomerium/wireguard/enrol");
    let mut headers = browser.headers(&url);
    headers.insert(header::ORIGIN, origin.parse().unwrap());
    let form = Bytes::from(message.to_string());
    let req = AuthRequest { method: &Method::POST, url: &url, headers: &headers, form, key: None };
    let response = service.handle_authenticate_host(req, at(now)).await;
    (response.status(), serde_json::from_slice(response.body()).unwrap_or_default())
}

async fn shown(service: &Authenticate, browser: &mut Browser, now: u64) -> String {
    let response = browser.get(service, &page("/.pomerium/wireguard"), at(now)).await;
    String::from_utf8(response.body().to_vec()).unwrap()
}

#[tokio::test]
async fn a_person_adds_renames_and_removes_a_device() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let (status, told) =
        enrol(&service, &browser, json!({"name": "Phone", "public_key": key(1)}), ORIGIN, NOW).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let told: Enrolment = serde_json::from_value(told).unwrap();
    assert_eq!(told.endpoint.to_string(), "authenticate.example.com:51820");
    assert!(told.allowed_ips.iter().all(|net| !net.contains(&std::net::IpAddr::from(told.address_v4))));
    assert!(told.allowed_ips.iter().any(|net| net.contains(&told.dns[0])));
    let list = shown(&service, &mut browser, NOW).await;
    assert!(list.contains("Phone") && list.contains(&told.address_v4.to_string()), "{list}");
    let secret = serde_json::to_value(&told).unwrap()["preshared_key"].as_str().unwrap().to_owned();
    assert!(!list.contains(&secret), "it is told once");

    for (path, fields) in [
        ("rename", vec![("id", told.id.as_str()), ("name", "<b>Pixel</b>")]),
        ("remove", vec![("id", told.id.as_str())]),
    ] {
        let to = page("/.pomerium/wireguard/").join(path).unwrap();
        let response = browser.post(&service, &to, &fields, None, at(NOW)).await;
        assert_eq!(response.status(), StatusCode::FOUND, "{path}");
        let list = shown(&service, &mut browser, NOW).await;
        assert_eq!(list.contains("&lt;b&gt;Pixel"), path == "rename", "{list}");
    }
}

#[tokio::test]
async fn a_device_is_added_soon_after_a_sign_in_or_not_at_all() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let late = NOW + 15 * 60 + 1;
    let (status, told) =
        enrol(&service, &browser, json!({"name": "x", "public_key": key(1)}), ORIGIN, late).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(told["error"].as_str().unwrap().starts_with("Sign in again"), "{told}");
    let list = shown(&service, &mut browser, late).await;
    assert!(
        list.contains("/.pomerium/renew?pomerium_redirect_uri=") && !list.contains("data-enrol"),
        "{list}"
    );
    assert!(shown(&service, &mut browser, NOW).await.contains("data-enrol"));
}

#[tokio::test]
async fn what_is_no_device_or_not_this_persons_wish_is_refused() {
    let service = service().await;
    let browser = signed_in(&service).await;
    let good = json!({"name": "x", "public_key": key(1)});
    for origin in ["https://app.example.com", "null"] {
        assert_eq!(enrol(&service, &browser, good.clone(), origin, NOW).await.0, StatusCode::BAD_REQUEST);
    }
    assert_eq!(
        enrol(&service, &Browser::default(), good.clone(), ORIGIN, NOW).await.0,
        StatusCode::UNAUTHORIZED
    );
    for bad in [
        json!({"name": "a\nb", "public_key": key(1)}),
        json!({"name": "", "public_key": key(1)}),
        json!({"name": "x", "public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}),
        json!({"name": "x", "public_key": "short"}),
        json!({"name": "x", "public_key": key(1), "user_id": "bob"}),
        json!([]),
    ] {
        assert_eq!(
            enrol(&service, &browser, bad.clone(), ORIGIN, NOW).await.0,
            StatusCode::BAD_REQUEST,
            "{bad}"
        );
    }
    let own = terms().gateway_public_key.to_string();
    let gateways = json!({"name": "x", "public_key": own});
    assert_eq!(enrol(&service, &browser, gateways, ORIGIN, NOW).await.0, StatusCode::CONFLICT);

    assert_eq!(enrol(&service, &browser, good.clone(), ORIGIN, NOW).await.0, StatusCode::OK);
    assert_eq!(
        enrol(&service, &browser, good, ORIGIN, NOW).await.0,
        StatusCode::CONFLICT,
        "the key is known"
    );
    let second = json!({"name": "y", "public_key": key(2)});
    assert_eq!(enrol(&service, &browser, second, ORIGIN, NOW).await.0, StatusCode::OK);
    let third = json!({"name": "z", "public_key": key(3)});
    let (status, told) = enrol(&service, &browser, third, ORIGIN, NOW).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(told["error"].as_str().unwrap().contains("as many"), "{told}");
}

#[tokio::test]
async fn a_form_from_elsewhere_and_somebody_elses_device_change_nothing() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let (_, told) = enrol(&service, &browser, json!({"name": "x", "public_key": key(1)}), ORIGIN, NOW).await;
    let id = told["id"].as_str().unwrap().to_owned();
    let to = page("/.pomerium/wireguard/remove");
    for origin in ["https://app.example.com", "null"] {
        let response = browser.post(&service, &to, &[("id", &id)], Some(origin), at(NOW)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
    let response = browser.post(&service, &to, &[("id", "somebody-elses")], None, at(NOW)).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let rename = page("/.pomerium/wireguard/rename");
    let bad = [("id", id.as_str()), ("name", "a\u{202e}b")];
    assert_eq!(browser.post(&service, &rename, &bad, None, at(NOW)).await.status(), StatusCode::BAD_REQUEST);
    let response = Browser::default().post(&service, &to, &[("id", &id)], None, at(NOW)).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "a stranger");
    assert!(shown(&service, &mut browser, NOW).await.contains(&id), "it is still there");
    let response = browser.get(&service, &to, at(NOW)).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn without_wireguard_there_is_no_page() {
    let config = AuthenticateConfig { peer_terms: None, ..config("http://127.0.0.1:1") };
    let service = Authenticate::new(config, Store::in_memory().await.unwrap()).unwrap();
    let mut browser = signed_in(&service).await;
    let response = browser.get(&service, &page("/.pomerium/wireguard"), at(NOW)).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let account = browser.get(&service, &page("/.pomerium/"), at(NOW)).await;
    assert!(!String::from_utf8_lossy(account.body()).contains("WireGuard"));
}
