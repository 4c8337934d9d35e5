//! What a route sets of its own in a request, with what the gateway knows filled in.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use support::{
    app::App,
    gateway::{Gateway, Route},
    person::Person,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_gets_the_tokens_that_its_route_asks_for_and_nothing_that_a_client_made_up() {
    let app = App::start().await.unwrap();
    let route = Route::web("app.localhost", app.address).with(
        "set_request_headers: {authorization: 'Bearer ${pomerium.access_token}', x-id: '${pomerium.id_token}', \
         x-jwt: '${pomerium.jwt}', x-old: '<${pomerium.request.headers[\"X-Old\"]}>', \
         x-forged: '${pomerium.request.headers[\"X-Pomerium-Jwt-Assertion\"]}', x-price: '5$$'}",
    );
    let plain = Route::web("other.localhost", app.address);
    let gateway = Gateway::start(&[route, plain]).await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let url = gateway.url("app.localhost").unwrap();
    alice.open(&url).await.unwrap();
    let headers: HeaderMap = [("x-old", "seen"), ("x-id", "forged"), ("x-pomerium-jwt-assertion", "forged")]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let page = alice.request(Method::GET, &url, headers, Bytes::new()).await.unwrap();
    let shown: Value = serde_json::from_slice(&page.body).unwrap();
    let got = |name: &str| shown["headers"][name][0].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (got("x-old"), got("x-forged"), got("x-price")),
        ("<seen>".into(), String::new(), "5$".into())
    );
    assert_eq!(got("x-jwt"), got("x-pomerium-jwt-assertion"));
    assert_eq!(got("x-jwt").split('.').count(), 3);
    assert_eq!(got("x-id").split('.').count(), 3, "the provider's ID token: {}", got("x-id"));
    assert!(got("authorization").len() > "Bearer ".len() + 20, "{}", got("authorization"));
    let access = got("authorization");
    let token = access.trim_start_matches("Bearer ");
    assert_eq!(gateway.log().count(token), 0, "no token in a log");

    for (host, path) in [("app.localhost", "/.pomerium/"), ("authenticate.localhost", "/.pomerium/")] {
        let page = alice.open(&gateway.url(host).unwrap().join(path).unwrap()).await.unwrap();
        assert!(page.text().contains("alice@corp.example"), "{}", page.text());
        assert!(!page.text().contains(token) && !page.text().contains(&got("x-id")), "no page shows a token");
    }

    let elsewhere = alice.open(&gateway.url("other.localhost").unwrap()).await.unwrap();
    assert!(!elsewhere.text().contains(token), "no other app gets it: {}", elsewhere.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_told_to_the_app_and_the_page_and_what_the_app_says_too_much_is_taken_out() {
    let app = App::start().await.unwrap();
    let route = Route::web("app.localhost", app.address)
        .policy("[{allow: {or: [{accept: true}]}}]")
        .with("set_request_headers: {x-mail: '<${pomerium.claim.email}>', x-none: '<${pomerium.claim.none}>'}")
        .with("set_response_headers: {x-seen: '${pomerium.claim.email}|${pomerium.claim.groups}', x-frame-options: DENY}")
        .with("remove_response_headers: [content-type, x-seen]");
    let gateway = Gateway::start(&[route]).await.unwrap();
    let url = gateway.url("app.localhost").unwrap();
    let person = Person::new("alice", &gateway.authority).unwrap();
    let stranger = person.get(&url).await.unwrap();
    for (name, value) in [("x-seen", "|"), ("x-frame-options", "DENY")] {
        assert_eq!(stranger.headers[name], value, "{name}");
    }
    assert!(!stranger.headers.contains_key("content-type"), "{:?}", stranger.headers);

    person.open(&gateway.url("authenticate.localhost").unwrap().join("/.pomerium/").unwrap()).await.unwrap();
    person.open(&gateway.url("app.localhost").unwrap().join("/.pomerium/").unwrap()).await.unwrap();
    let page = person.get(&url).await.unwrap();
    let seen = page.headers["x-seen"].to_str().unwrap();
    assert!(seen.starts_with("alice@corp.example|") && seen.len() > "alice@corp.example|".len(), "{seen}");
    let shown: Value = serde_json::from_slice(&page.body).unwrap();
    assert_eq!(shown["headers"]["x-mail"][0], "<alice@corp.example>");
    assert_eq!(shown["headers"]["x-none"][0], "<>");
}
