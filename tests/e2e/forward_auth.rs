//! Real nginx (and Caddy) carries the traffic and asks the gateway about every request.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::Full;
use support::{
    app::{App, GREETING},
    caddy::Caddy,
    gateway::{Gateway, Options, Route},
    http::{Page, raw, send},
    nginx::Nginx,
    person::Person,
    port,
};
use url::Url;

const EVERYBODY: &str = "[{allow: {and: [{accept: true}]}}]";

struct Parts {
    app: App,
    other: App,
    gateway: Gateway,
    door: SocketAddr,
    port: u16,
    _nginx: Nginx,
}

impl Parts {
    /// nginx before two apps: `app` for alice, `other` for everybody.
    async fn start(policy_of_app: Option<&str>) -> anyhow::Result<Self> {
        let (app, other) = (App::start().await?, App::start().await?);
        let (port, door) = (port::reserve()?, SocketAddr::from(([127, 0, 0, 1], port::reserve()?)));
        let mut route = Route::web("app.localhost", app.address);
        if let Some(policy) = policy_of_app {
            route = route.policy(policy);
        }
        let routes = [route, Route::web("other.localhost", other.address).policy(EVERYBODY)];
        let more = format!("forward_auth_address: {door}\n");
        let options = Options { front: Some(port), more: &more, ..Options::default() };
        let gateway = Box::pin(Gateway::start_with(&routes, &options)).await?;
        let apps = [("app.localhost", app.address), ("other.localhost", other.address)];
        let nginx = Box::pin(Nginx::start(port, &gateway, door, &apps)).await?;
        Ok(Self { app, other, gateway, door, port, _nginx: nginx })
    }

    fn url(&self, host: &str) -> Url {
        Url::parse(&format!("https://{host}:{}/", self.port)).unwrap()
    }

    /// The status of a request to nginx, with these headers, by somebody without a session.
    async fn status(&self, line: &str, headers: &str) -> String {
        let tls = self.gateway.authority.client_config(&[b"http/1.1"]).unwrap();
        let request = format!("{line} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        let (head, _stream) = raw(&tls, self.port, "app.localhost", &request).await.unwrap();
        head.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }

    /// Asks the gateway directly, as a proxy does.
    async fn ask(&self, path: &str, pairs: &[(&'static str, &str)]) -> anyhow::Result<Page> {
        let tls = self.gateway.authority.client_config(&[b"http/1.1"])?;
        let mut request =
            Request::get(format!("http://{}{path}", self.door)).body(Full::new(Bytes::new()))?;
        for (name, value) in pairs {
            request.headers_mut().append(*name, value.parse()?);
        }
        Box::pin(send(&tls, request)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alice_signs_in_through_nginx_and_the_app_knows_her() {
    let parts = Parts::start(None).await.unwrap();
    let alice = Person::new("alice", &parts.gateway.authority).unwrap();
    let url = parts.url("app.localhost").join("/report?month=5").unwrap();
    let page = alice.open(&url).await.unwrap();
    assert_eq!((page.status, &page.url), (StatusCode::OK, &url), "{}", page.text());
    assert!(page.text().contains(GREETING), "{}", page.text());
    assert_eq!(parts.app.requests(), 1, "nothing reached the app before she had signed in");

    let mut headers = HeaderMap::new();
    for name in ["x-pomerium-jwt-assertion", "x-pomerium-claim-email", "x-pomerium-authorization"] {
        headers.insert(name, "mallory@evil.test".parse().unwrap());
    }
    headers.insert(header::COOKIE, "theme=dark".parse().unwrap());
    let session = alice.cookie(&url, "_pomerium").unwrap();
    headers.insert(header::COOKIE, format!("theme=dark; _pomerium={session}").parse().unwrap());
    let stranger = Person::new("nobody", &parts.gateway.authority).unwrap();
    let page = stranger.request(Method::POST, &url, headers, "body".into()).await.unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
    let sent = &shown["headers"];
    assert_eq!(sent["x-pomerium-claim-email"], serde_json::json!(["alice@corp.example"]), "{sent}");
    assert_eq!(sent["x-pomerium-jwt-assertion"].as_array().map(Vec::len), Some(1), "{sent}");
    assert_eq!(sent["cookie"], serde_json::json!(["theme=dark"]), "{sent}");
    assert!(!page.text().contains("mallory") && !page.text().contains(&session), "{sent}");
    assert_eq!((shown["method"].as_str(), shown["target"].as_str()), (Some("POST"), Some("/report?month=5")));
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_asks_as_well() {
    let app = App::start().await.unwrap();
    let (port, door) =
        (port::reserve().unwrap(), SocketAddr::from(([127, 0, 0, 1], port::reserve().unwrap())));
    let more = format!("forward_auth_address: {door}\n");
    let options = Options { front: Some(port), more: &more, ..Options::default() };
    let routes = [Route::web("app.localhost", app.address)];
    let gateway = Box::pin(Gateway::start_with(&routes, &options)).await.unwrap();
    let _caddy = Box::pin(Caddy::start(port, &gateway, door, app.address)).await.unwrap();
    let url = Url::parse(&format!("https://app.localhost:{port}/report?month=5")).unwrap();

    let alice = Person::new("alice", &gateway.authority).unwrap();
    let page = alice.open(&url).await.unwrap();
    assert_eq!((page.status, &page.url), (StatusCode::OK, &url), "{}", page.text());
    let mut headers = HeaderMap::new();
    for name in ["x-pomerium-jwt-assertion", "x-pomerium-claim-email", "x-pomerium-claim-groups"] {
        headers.insert(name, "mallory@evil.test".parse().unwrap());
    }
    let page = alice.request(Method::GET, &url, headers, Bytes::new()).await.unwrap();
    assert!(
        page.text().contains("alice@corp.example") && !page.text().contains("mallory"),
        "{}",
        page.text()
    );
    assert_eq!(app.requests(), 2);

    let bob = Person::new("bob", &gateway.authority).unwrap();
    let page = bob.open(&url).await.unwrap();
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.text().contains("email-unauthorized"), "{}", page.text());

    let stranger = Person::new("nobody", &gateway.authority).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, "*/*".parse().unwrap());
    headers.insert("x-forwarded-host", "other.localhost".parse().unwrap());
    headers.insert("x-forwarded-uri", "/.pomerium/".parse().unwrap());
    headers.insert("x-forwarded-method", "OPTIONS".parse().unwrap());
    let page = stranger.request(Method::GET, &url, headers, Bytes::new()).await.unwrap();
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert_eq!(app.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bob_gets_the_page_that_says_why() {
    let parts = Parts::start(None).await.unwrap();
    let bob = Person::new("bob", &parts.gateway.authority).unwrap();
    let page = bob.open(&parts.url("app.localhost")).await.unwrap();
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(
        page.text().contains("bob@corp.example") && page.text().contains("email-unauthorized"),
        "{}",
        page.text()
    );
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, "application/json".parse().unwrap());
    let page = bob.request(Method::POST, &parts.url("app.localhost"), headers, "{}".into()).await.unwrap();
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.text().contains("email-unauthorized"), "{}", page.text());
    assert_eq!(parts.app.requests(), 0);
    let line = parts.gateway.log().line_with(&["authorize check", "bob@corp.example"]).await.unwrap();
    assert!(line.contains("email-unauthorized") && line.contains("127.0.0.1"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_a_session_gets_401_and_an_ended_session_lets_nobody_in() {
    let parts = Parts::start(None).await.unwrap();
    let host = format!("Host: app.localhost:{}\r\nAccept: application/json\r\n", parts.port);
    assert_eq!(parts.status("GET /", &host).await, "401");
    let alice = Person::new("alice", &parts.gateway.authority).unwrap();
    let url = parts.url("app.localhost");
    assert_eq!(alice.open(&url).await.unwrap().status, StatusCode::OK);
    let stolen = alice.cookie(&url, "_pomerium").unwrap();
    let with_cookie = format!("{host}Cookie: _pomerium={stolen}\r\n");
    assert_eq!(parts.status("GET /", &with_cookie).await, "200");

    let sign_out = parts.url("authenticate.localhost").join("/.pomerium/sign_out").unwrap();
    let asked = alice.open(&sign_out).await.unwrap();
    let form = support::form::Form::first(&asked.text()).expect("signing out asks once more");
    alice.submit(&asked, &form).await.unwrap();
    assert_eq!(parts.status("GET /", &with_cookie).await, "401", "the cookie of an ended session");
    assert_eq!(parts.app.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_gateway_is_down_nginx_lets_nobody_in() {
    let mut parts = Parts::start(None).await.unwrap();
    let alice = Person::new("alice", &parts.gateway.authority).unwrap();
    let url = parts.url("app.localhost");
    assert_eq!(alice.open(&url).await.unwrap().status, StatusCode::OK);
    parts.gateway.kill().await.unwrap();
    let page = alice.get(&url).await.unwrap();
    assert!(page.status.is_server_error() && !page.text().contains(GREETING), "{}", page.status);
    assert_eq!(parts.app.requests(), 1);
    Box::pin(parts.gateway.restart()).await.unwrap();
    assert_eq!(alice.get(&url).await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_choose_which_route_is_asked_about() {
    let parts = Parts::start(None).await.unwrap();
    let port = parts.port;
    let other = format!("other.localhost:{port}");
    assert_eq!(parts.status("GET /", &format!("Host: {other}\r\n")).await, "200", "it is for everybody");
    assert_eq!(parts.other.requests(), 1);
    let host = format!("Host: app.localhost:{port}\r\nAccept: */*\r\n");
    for forged in [
        format!("X-Forwarded-Host: {other}\r\n"),
        format!("X-Original-URL: https://{other}/\r\n"),
        format!(
            "X-Forwarded-Host: {other}\r\nX-Original-URL: https://{other}/\r\nX-Original-Host: {other}\r\n"
        ),
        format!("Forwarded: host=\"{other}\"\r\n"),
        "X-Forwarded-Uri: /.pomerium/\r\nX-Original-Method: OPTIONS\r\n".to_owned(),
    ] {
        assert_eq!(parts.status("GET /", &format!("{host}{forged}")).await, "401", "{forged}");
    }
    // nginx takes the host of the request line; the gateway must be asked about that one.
    let line = format!("GET https://app.localhost:{port}/");
    assert_eq!(parts.status(&line, &format!("Host: {other}\r\nAccept: */*\r\n")).await, "401");
    assert_eq!(parts.app.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_say_from_where_it_comes() {
    let policy = "[{allow: {and: [{source_ip: 198.51.100.7}]}}]";
    let parts = Parts::start(Some(policy)).await.unwrap();
    let host = format!("Host: app.localhost:{}\r\n", parts.port);
    for forged in ["X-Forwarded-For: 198.51.100.7\r\n", "X-Real-IP: 198.51.100.7\r\n", ""] {
        assert_eq!(parts.status("GET /", &format!("{host}{forged}")).await, "403", "{forged}");
    }
    assert_eq!(parts.app.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_the_app_may_read_differently_is_refused() {
    let policy = "[{allow: {or: [{http_path: {starts_with: /public/}}]}}]";
    let parts = Parts::start(Some(policy)).await.unwrap();
    let host = format!("Host: app.localhost:{}\r\nAccept: */*\r\n", parts.port);
    assert_eq!(parts.status("GET /public/page", &host).await, "200");
    for path in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public//../admin",
        "/public/..%2fadmin",
        "/public/%61",
        "/./public/page",
        "/public/./page",
    ] {
        let status = parts.status(&format!("GET {path}"), &host).await;
        assert!(status.starts_with('4'), "{path}: {status}");
    }
    assert_eq!(parts.app.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_leaves_something_open_gets_no_yes() {
    let parts = Parts::start(Some(EVERYBODY)).await.unwrap();
    let host = format!("app.localhost:{}", parts.port);
    let whole = [
        ("x-forwarded-method", "GET"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", host.as_str()),
        ("x-forwarded-uri", "/"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    assert_eq!(parts.ask("/verify", &whole).await.unwrap().status, StatusCode::OK);
    for (index, (name, _)) in whole.iter().enumerate() {
        let mut rest = whole.to_vec();
        rest.remove(index);
        assert_eq!(parts.ask("/verify", &rest).await.unwrap().status, StatusCode::BAD_REQUEST, "{name}");
        assert!(!parts.ask("/verify/nginx", &rest).await.unwrap().status.is_success(), "{name}");
    }
    for (name, value, expected) in [
        ("x-forwarded-host", "nowhere.localhost", StatusCode::NOT_FOUND),
        ("x-forwarded-uri", "/.pomerium/user", StatusCode::FORBIDDEN),
        ("x-forwarded-proto", "http", StatusCode::BAD_REQUEST),
    ] {
        let changed = whole.map(|(n, v)| if n == name { (n, value) } else { (n, v) });
        assert_eq!(parts.ask("/verify", &changed).await.unwrap().status, expected, "{name}: {value}");
    }
    assert_eq!(parts.ask("/", &whole).await.unwrap().status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_trusted_may_ask_and_a_reload_says_who_they_are() {
    let app = App::start().await.unwrap();
    let (port, door) = (port::reserve().unwrap(), port::reserve().unwrap());
    let more = format!(
        "forward_auth_address: 127.0.0.1:{door}\nforward_auth_trusted_peers: [127.0.0.9, 10.0.0.0/8]\n"
    );
    let options = Options { front: Some(port), more: &more, ..Options::default() };
    let routes = [Route::web("app.localhost", app.address).policy(EVERYBODY)];
    let gateway = Box::pin(Gateway::start_with(&routes, &options)).await.unwrap();
    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    let ask = || {
        let request = Request::get(format!("http://127.0.0.1:{door}/verify"))
            .header("x-forwarded-method", "GET")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", format!("app.localhost:{port}"))
            .header("x-forwarded-uri", "/")
            .header("x-forwarded-for", "10.0.0.5");
        let request = request.body(Full::new(Bytes::new())).unwrap();
        Box::pin(async { send(&tls, request).await.unwrap() })
    };
    let page = ask().await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.text().contains("forward_auth_trusted_peers"), "{}", page.text());

    let text = std::fs::read_to_string(gateway.config()).unwrap();
    gateway.write_config(&text.replace("[127.0.0.9,", "[127.0.0.1,")).unwrap();
    gateway.reload().unwrap();
    gateway.log().line_with(&["configuration reloaded"]).await.unwrap();
    assert_eq!(ask().await.status, StatusCode::OK);

    // A socket is bound at the start; the log says so.
    let moved =
        text.replace(&format!("forward_auth_address: 127.0.0.1:{door}"), "forward_auth_address: 127.0.0.1:9");
    gateway.write_config(&moved).unwrap();
    gateway.reload().unwrap();
    gateway.log().line_with(&["takes effect with the next start", "forward_auth_address"]).await.unwrap();
}
