//! WireGuard devices: who adds them, how long they may come in, and who takes them away. How they come in is another story.

use std::os::unix::fs::PermissionsExt as _;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use fantoccini::{Client, Locator};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use support::{
    app::App,
    browser::Browser,
    cli::Cli,
    gateway::{Gateway, Options, Route},
    person::Person,
    port, wait,
};
use tokio::process::Command;
use url::Url;

use crate::{
    devices::administer,
    pages::{BRANDING, page, picture, post, sign_in},
};

const API: &str = "/.pomerium/api/v1/wireguard/peers";

async fn gateway(app: &App, more: &str) -> Gateway {
    let more = format!("wireguard_address: 127.0.0.1:{}\n{more}", port::reserve().unwrap());
    let options = Options { more: &more, ..Options::default() };
    let routes = [Route::web("app.localhost", app.address), Route::web("wiki.localhost", app.address)];
    Gateway::start_with(&routes, &options).await.unwrap()
}

/// What a command wrote and whether it succeeded.
async fn run(mut command: Command) -> (bool, String) {
    let output = wait::within("the client", command.output()).await.unwrap().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

async fn wg(cli: &Cli, words: &[&str]) -> String {
    let (is_done, text) = run(cli.command(&[&["wg"], words].concat()).unwrap()).await;
    assert!(is_done, "wg {words:?}: {text}\n{}", cli.trouble());
    text
}

async fn listed(cli: &Cli) -> Vec<Value> {
    let text = wg(cli, &["list", "--json"]).await;
    // Behind it stands what the client says of a sign-in.
    serde_json::Deserializer::from_str(&text).into_iter().next().unwrap().unwrap()
}

/// The value of a key in a file for wg-quick.
fn value<'a>(file: &'a str, key: &str) -> &'a str {
    let line = file.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    line.unwrap_or_else(|| panic!("no {key} in {file}"))
}

fn public_of(private: &str) -> String {
    let private = PrivateKey::from_private_key(&X25519, &STANDARD.decode(private).unwrap()).unwrap();
    STANDARD.encode(private.compute_public_key().unwrap())
}

/// Some public key that nobody has yet.
fn new_key() -> String {
    STANDARD.encode(PrivateKey::generate(&X25519).unwrap().compute_public_key().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_added_by_the_client_and_lives_as_long_as_the_sign_in() {
    let app = App::start().await.unwrap();
    let mut gateway = gateway(&app, "").await;
    let cli = Cli::new(&gateway, "alice").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phone.conf");
    let output = path.to_str().unwrap();

    let said = wg(&cli, &["add", "phone", "--output", output]).await;
    assert!(said.contains("which only you can read"), "{said}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let file = std::fs::read_to_string(&path).unwrap();
    let all = listed(&cli).await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["public_key"], public_of(value(&file, "PrivateKey")));
    assert!(value(&file, "Address").starts_with(&format!("{}/32", all[0]["address_v4"].as_str().unwrap())));
    assert!(value(&file, "Endpoint").starts_with("authenticate.localhost:"), "{file}");
    assert_eq!((value(&file, "DNS"), all[0]["state"].as_str()), ("100.64.0.1", Some("active")));

    // A file that is there is not replaced, and nothing is enrolled for it.
    let again = cli.command(&["wg", "add", "tablet", "--output", output]).unwrap();
    let (is_done, text) = run(again).await;
    assert!(!is_done && text.contains("No device was added"), "{text}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), file);
    let (is_done, text) = run(cli.command(&["wg", "add", "a\u{1b}[2J", "--output", "-"]).unwrap()).await;
    assert!(!is_done && text.contains("cannot be called so"), "{text}");
    assert_eq!(listed(&cli).await.len(), 1);

    wg(&cli, &["rename", "phone", "Ada's phone"]).await;
    gateway.stop().await.unwrap();
    gateway.restart().await.unwrap();
    assert_eq!(listed(&cli).await[0]["name"], "Ada's phone");
    assert_eq!(cli.sign_ins(), 1);

    cli.log_out().await.unwrap();
    // The provider asks anew, too.
    cli.person.forget();
    let administered = administer(&gateway, "wireguard", &["list", "--user", "alice@corp.example"]).await;
    assert!(administered.contains("signed out") && administered.contains("Ada's phone"), "{administered}");
    let state = listed(&cli).await[0]["state"].clone();
    assert_eq!((state.as_str(), cli.sign_ins()), (Some("active"), 2), "a sign-in renews it");

    let id = all[0]["id"].as_str().unwrap();
    administer(&gateway, "wireguard", &["revoke", &id[..8]]).await;
    let text = wg(&cli, &["list"]).await;
    assert!(text.contains("revoked"), "{text}");
    wg(&cli, &["remove", "Ada's phone"]).await;
    assert_eq!(listed(&cli).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_has_as_many_devices_as_the_operator_allows() {
    let app = App::start().await.unwrap();
    let gateway = gateway(&app, "wireguard_peers_per_user: 2\n").await;
    let cli = Cli::new(&gateway, "alice").unwrap();
    for name in ["one", "two"] {
        let file = wg(&cli, &["add", name, "--output", "-"]).await;
        assert!(file.contains("PresharedKey = "), "{file}");
    }
    let (is_done, text) = run(cli.command(&["wg", "add", "three", "--output", "-"]).unwrap()).await;
    assert!(!is_done && text.contains("as many WireGuard devices as you may"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_wireguard_says_so() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::web("app.localhost", app.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (is_done, text) = run(cli.command(&["wg", "list"]).unwrap()).await;
    assert!(!is_done && text.contains("takes no WireGuard devices"), "{text}");
}

/// One call of the API, with whatever headers.
async fn call(
    person: &Person,
    method: Method,
    url: &Url,
    headers: &[(header::HeaderName, String)],
    body: &Value,
) -> (StatusCode, Value) {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.insert(name.clone(), value.parse().unwrap());
    }
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let page = person.request(method, url, all, body).await.unwrap();
    (page.status, serde_json::from_slice(&page.body).unwrap_or_default())
}

fn with(token: &str) -> Vec<(header::HeaderName, String)> {
    vec![(header::AUTHORIZATION, format!("Pomerium {token}"))]
}

fn new(key: &str) -> Value {
    json!({"name": "x", "public_key": key})
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_person_adds_or_removes_their_devices() {
    let app = App::start().await.unwrap();
    let gateway = gateway(&app, "").await;
    let (alice, bob) =
        (Person::new("alice", &gateway.authority).unwrap(), Person::new("bob", &gateway.authority).unwrap());
    let origin = gateway.url("app.localhost").unwrap();
    let api = page(&gateway, "authenticate.localhost", API);
    let (alices, bobs) = (alice.token(&origin).await.unwrap(), bob.token(&origin).await.unwrap());
    let key = new_key();

    let stranger = Person::new("stranger", &gateway.authority).unwrap();
    for method in [Method::GET, Method::POST] {
        let (status, _) = call(&stranger, method, &api, &[], &new(&key)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let forged = with(&format!("{}x", &alices[..alices.len() - 1]));
    assert_eq!(call(&stranger, Method::POST, &api, &forged, &new(&key)).await.0, StatusCode::UNAUTHORIZED);

    // An app that has turned on its visitors has their cookies sent along, or even knows one.
    alice.open(&origin).await.unwrap();
    let here = page(&gateway, "app.localhost", API);
    let cookie = alice.cookie(&origin, "_pomerium").unwrap();
    for headers in [vec![], with(&cookie)] {
        let (status, _) = call(&alice, Method::POST, &here, &headers, &new(&key)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{headers:?}");
        let (status, _) = call(&alice, Method::POST, &api, &headers, &new(&key)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{headers:?}");
    }
    let mut in_query = api.clone();
    in_query.query_pairs_mut().append_pair("pomerium_session", &alices);
    assert_eq!(call(&stranger, Method::GET, &in_query, &[], &Value::Null).await.0, StatusCode::UNAUTHORIZED);

    let (status, told) = call(&stranger, Method::POST, &api, &with(&alices), &new(&key)).await;
    assert_eq!(status, StatusCode::CREATED, "{told}");
    let one = page(&gateway, "authenticate.localhost", &format!("{API}/{}", told["id"].as_str().unwrap()));
    assert_eq!(
        call(&stranger, Method::DELETE, &one, &with(&bobs), &Value::Null).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        call(&stranger, Method::PUT, &one, &with(&bobs), &json!({"name": "y"})).await.0,
        StatusCode::NOT_FOUND
    );
    let (_, list) = call(&stranger, Method::GET, &api, &with(&bobs), &Value::Null).await;
    assert_eq!(list["peers"], json!([]));

    // The same key again: another person's, and their own after it was removed.
    let (status, refused) = call(&stranger, Method::POST, &api, &with(&bobs), &new(&key)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(!refused.to_string().contains("alice"), "{refused}");
    assert_eq!(
        call(&stranger, Method::DELETE, &one, &with(&alices), &Value::Null).await.0,
        StatusCode::NO_CONTENT
    );
    for token in [&alices, &bobs] {
        assert_eq!(
            call(&stranger, Method::POST, &api, &with(token), &new(&key)).await.0,
            StatusCode::CONFLICT
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_device_is_refused() {
    let app = App::start().await.unwrap();
    let gateway = gateway(&app, "").await;
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let api = page(&gateway, "authenticate.localhost", API);
    let token = with(&alice.token(&gateway.url("app.localhost").unwrap()).await.unwrap());
    let anybody = Person::new("anybody", &gateway.authority).unwrap();
    for bad in [
        json!({"name": "a\u{1b}b", "public_key": new_key()}),
        json!({"name": "x", "public_key": STANDARD.encode([0; 32])}),
        json!({"name": "x", "public_key": STANDARD.encode([0xff; 32])}),
        json!({"name": "x", "public_key": "x"}),
        json!({"name": "x".repeat(65), "public_key": new_key()}),
        json!({"name": "x", "public_key": new_key(), "email": "bob@corp.example"}),
        Value::Null,
    ] {
        let (status, _) = call(&anybody, Method::POST, &api, &token, &bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(
        call(&anybody, Method::PATCH, &api, &token, &Value::Null).await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

const ADD: &str = "form[data-enrol] button";
const REMOVE: &str = "button[formaction$='/remove']";

/// The file as the page shows it.
async fn shown_file(client: &Client) -> String {
    let file = client.wait().for_element(Locator::Css("[data-made]:not([hidden]) code")).await.unwrap();
    file.text().await.unwrap()
}

/// What a phone reads off the picture.
async fn scanned(client: &Client) -> String {
    let path = client.find(Locator::Css(".qr path")).await.unwrap().attr("d").await.unwrap().unwrap();
    let square = |text: &str| {
        let (x, y) = text.strip_suffix("h1v1h-1z")?.split_once(' ')?;
        Some((x.parse::<usize>().ok()?, y.parse::<usize>().ok()?))
    };
    let dark: std::collections::HashSet<_> = path.split('M').filter_map(square).collect();
    let size = client.find(Locator::Css(".qr svg")).await.unwrap().attr("viewBox").await.unwrap().unwrap();
    let size: usize = size.split(' ').next_back().unwrap().parse().unwrap();
    const SCALE: usize = 4;
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(size * SCALE, size * SCALE, |x, y| {
        if dark.contains(&(x / SCALE, y / SCALE)) { 0 } else { 255 }
    });
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1, "one code is found");
    grids[0].decode().unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_makes_the_key_of_a_device_and_shows_what_a_phone_can_scan() {
    let app = App::start().await.unwrap();
    let gateway = gateway(&app, BRANDING).await;
    let browser = Browser::start(&gateway.authority).await.unwrap();
    let client = &browser.client;
    sign_in(&gateway, client, "alice").await.unwrap();
    client.goto(page(&gateway, "authenticate.localhost", "/.pomerium/").as_str()).await.unwrap();
    client.find(Locator::LinkText("Your WireGuard devices")).await.unwrap().click().await.unwrap();
    client.wait().for_element(Locator::Css(ADD)).await.unwrap();

    // What the page sends is kept, to be looked at.
    let spy = "window.sent = []; const real = window.fetch; \
               window.fetch = (to, how) => { window.sent.push(how?.body); return real(to, how); };";
    client.execute(spy, vec![]).await.unwrap();
    client.find(Locator::Css("input[name=name]")).await.unwrap().send_keys("Alice's phone").await.unwrap();
    client.find(Locator::Css(ADD)).await.unwrap().click().await.unwrap();
    let file = shown_file(client).await;
    let sent = client.execute("return window.sent.join()", vec![]).await.unwrap();
    let (sent, private) = (sent.as_str().unwrap(), value(&file, "PrivateKey"));
    assert!(sent.contains(&public_of(private)) && !sent.contains(private), "{sent}");
    assert_eq!(scanned(client).await.trim_end(), file.trim_end());
    let saved = "const done = arguments[0]; fetch(document.querySelector('a[download]').href).then(() => done('read'), () => done('kept'));";
    assert_eq!(
        client.execute_async(saved, vec![]).await.unwrap(),
        "kept",
        "no script reads it, nor sends it on"
    );
    picture(&browser, "wireguard-added").await.unwrap();

    browser.look_as(1280, false).await.unwrap();
    client.find(Locator::LinkText("Done")).await.unwrap().click().await.unwrap();
    let name = client.wait().for_element(Locator::Css(".items input[name=name]")).await.unwrap();
    assert!(!client.source().await.unwrap().contains(private), "it is shown once");
    name.clear().await.unwrap();
    name.send_keys("Pixel").await.unwrap();
    client
        .find(Locator::Css("form[action$='/rename'] button:not([formaction])"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    client.wait().for_element(Locator::XPath("//strong[.='Pixel']")).await.unwrap();
    picture(&browser, "wireguard").await.unwrap();
    browser.prefer("de").await.unwrap();
    client.refresh().await.unwrap();
    client.wait().for_element(Locator::XPath("//h1[.='Ihre WireGuard-Geräte']")).await.unwrap();
    picture(&browser, "wireguard-de").await.unwrap();
    browser.prefer("en").await.unwrap();

    // An app that has turned on its users knows the id, and has their cookies sent along.
    let id = client.find(Locator::Css(REMOVE)).await.unwrap();
    let id = id.attr("value").await.unwrap().unwrap();
    let remove = page(&gateway, "authenticate.localhost", "/.pomerium/wireguard/remove");
    client.goto(gateway.url("app.localhost").unwrap().as_str()).await.unwrap();
    post(client, &remove, &format!("id={id}")).await.unwrap();
    browser.look_as(1280, false).await.unwrap();
    client.goto(page(&gateway, "authenticate.localhost", "/.pomerium/wireguard").as_str()).await.unwrap();
    client.find(Locator::Css(REMOVE)).await.unwrap().click().await.unwrap();
    client.wait().for_element(Locator::XPath("//p[.='You have none.']")).await.unwrap();
    browser.close().await.unwrap();
}
