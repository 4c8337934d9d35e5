//! What somebody gets whom policy does not let in, and what strangers get.

use http::{HeaderMap, Method, header};
use support::{
    app::{App, GREETING},
    cli::Cli,
    echo::Echo,
    gateway::{Gateway, Route},
    http::raw,
    person::Person,
    port,
    process::Input,
    token,
};

const DESTINATION: &str = "echo.corp.test:7";

/// The status of a `CONNECT`, with a token or without one.
async fn connect(gateway: &Gateway, destination: &str, token: Option<&str>) -> anyhow::Result<String> {
    let tls = gateway.authority.client_config(&[b"http/1.1"])?;
    let credential = token.map(|t| format!("Authorization: Pomerium {t}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n{credential}\r\n");
    let (head, _stream) = raw(&tls, gateway.port, "localhost", &request).await?;
    Ok(head.split_whitespace().nth(1).unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn bob_is_told_which_rule_refused_him_and_the_log_says_why() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "bob").unwrap();
    let mut client = cli.spawn(&["tcp", DESTINATION, "--listen", "-"], Input::Pipe).unwrap();
    let status = client.wait().await.unwrap();
    assert_eq!(status.code(), Some(77), "{}\n{}", client.errors.text(), cli.trouble());
    assert!(client.errors.text().contains("email-unauthorized"), "{}", client.errors.text());
    let line = gateway.log().line_with(&["authorize check", "bob@corp.example"]).await.unwrap();
    assert!(line.contains("email-unauthorized"), "{line}");
    assert_eq!(echo.dials(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_are_no_tokens() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let real = alice.token(&gateway.url("localhost").unwrap()).await.unwrap();
    let claims = token::claims(&real).unwrap();
    let changed = |name: &str, value: serde_json::Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let key = &support::gateway::SHARED_SECRET;
    assert_eq!(connect(&gateway, DESTINATION, Some(&real)).await.unwrap(), "200");
    // The gateway answers when the connection is made, which is before the service accepts it.
    echo.dialled(1).await.unwrap();
    for (what, forged) in [
        ("nothing", String::new()),
        ("no JWT", "x.y.z".to_owned()),
        ("no signature", token::unsigned(&claims)),
        ("a foreign key", token::signed(&claims, b"another key of thirty-two bytes!")),
        ("expired", token::signed(&changed("exp", 1.into()), key)),
        ("another audience", token::signed(&changed("aud", serde_json::json!(["elsewhere.test"])), key)),
        ("an unknown session", token::signed(&changed("jti", "no-such-session".into()), key)),
    ] {
        assert_eq!(connect(&gateway, DESTINATION, Some(&forged)).await.unwrap(), "401", "{what}");
    }
    assert_eq!(connect(&gateway, DESTINATION, None).await.unwrap(), "401", "a stranger");
    assert_eq!(echo.dials(), 1, "nothing more was dialled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_route_is_never_dialled() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let real = alice.token(&gateway.url("localhost").unwrap()).await.unwrap();
    let address = echo.address.to_string();
    for destination in
        ["echo.corp.test:8", "other.corp.test:7", &address, "localhost:22", "169.254.169.254:80"]
    {
        let status = connect(&gateway, destination, Some(&real)).await.unwrap();
        assert!(matches!(status.as_str(), "403" | "404"), "{destination}: {status}");
    }
    assert_eq!(echo.dials(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_headers_from_outside_never_reach_the_app() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::web("app.localhost", app.address)]).await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let url = gateway.url("app.localhost").unwrap();
    assert!(alice.open(&url).await.unwrap().text().contains(GREETING));

    let mut headers = HeaderMap::new();
    for name in
        ["x-pomerium-claim-email", "x-pomerium-jwt-assertion", "x-pomerium-anything", "x-forwarded-for"]
    {
        headers.insert(name, "mallory@evil.test".parse().unwrap());
    }
    headers.insert(header::ACCEPT, "*/*".parse().unwrap());
    let page = alice.request(Method::GET, &url, headers, bytes::Bytes::new()).await.unwrap();
    let text = page.text();
    assert!(text.contains("alice@corp.example") && text.contains("x-pomerium-jwt-assertion"), "{text}");
    assert!(!text.contains("mallory") && !text.contains("_pomerium"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_contradict_each_other_are_refused() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::web("app.localhost", app.address)]).await.unwrap();
    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    let port = gateway.port;
    for (server_name, request, statuses) in [
        ("other.localhost", format!("GET / HTTP/1.1\r\nHost: app.localhost:{port}\r\n\r\n"), ["421", "400"]),
        (
            "app.localhost",
            format!("GET https://app.localhost:{port}/ HTTP/1.1\r\nHost: other.localhost:{port}\r\n\r\n"),
            ["400", "421"],
        ),
        ("app.localhost", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), ["400", "400"]),
        ("app.localhost", "GET / HTTP/1.1\r\n\r\n".to_owned(), ["400", "400"]),
    ] {
        let (head, _stream) = raw(&tls, port, server_name, &request).await.unwrap();
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{request}: {head}");
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_leads_nobody_out_of_its_prefix() {
    let app = App::start().await.unwrap();
    let route = Route::web("app.localhost", app.address).policy("[{allow: {and: [{accept: true}]}}]");
    let route = route.with("prefix: /public").with("prefix_rewrite: /static");
    let gateway = Gateway::start(&[route]).await.unwrap();
    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    for (path, status) in [
        ("/public/x", "200"),
        ("/public../admin", "400"),
        ("/public/..;/admin", "400"),
        ("/public%2e%2e/admin", "400"),
        ("/public/%2e%2e/admin", "404"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: app.localhost:{}\r\n\r\n", gateway.port);
        let (head, _stream) = raw(&tls, gateway.port, "app.localhost", &request).await.unwrap();
        assert_eq!(head.split_whitespace().nth(1), Some(status), "{path}: {head}");
    }
    assert_eq!(app.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_opens_no_websocket_even_from_a_sibling_behind_the_gateway() {
    let app = App::start().await.unwrap();
    let named = Route::web("app.localhost", app.address)
        .with("websocket_origins: [https://portal.test:8443]")
        .with("prefix: /named/")
        .with("prefix_rewrite: /");
    let routes =
        [named, Route::web("app.localhost", app.address), Route::web("other.localhost", app.address)];
    let gateway = Gateway::start(&routes).await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    let port = gateway.port;
    let [own, sibling, other_port] = [("app", port), ("other", port), ("app", 1)]
        .map(|(name, port)| format!("https://{name}.localhost:{port}"));
    let token = alice.token(&gateway.url("app.localhost").unwrap()).await.unwrap();
    for (path, origin, status) in [
        ("/socket", own.as_str(), "101"),
        ("/socket", &sibling, "400"),
        ("/socket", &other_port, "400"),
        ("/socket", "https://evil.test", "400"),
        ("/socket", "null", "400"),
        ("/named/socket", "https://portal.test:8443", "101"),
        ("/named/socket", &own, "101"),
        ("/named/socket", "https://portal.test", "400"),
        ("/named/socket", &sibling, "400"),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: app.localhost:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {origin}\r\n\
             Cookie: _pomerium={token}\r\n\r\n"
        );
        let (head, _stream) = raw(&tls, port, "app.localhost", &request).await.unwrap();
        assert_eq!(head.split_whitespace().nth(1), Some(status), "{origin} to {path}: {head}");
    }
    assert_eq!(app.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_too_early_is_told_until_when_to_wait() {
    let echo = Echo::start().await.unwrap();
    let soon = jiff::Timestamp::now() + std::time::Duration::from_secs(3600);
    let policy = format!(
        "[{{allow: {{and: [{{email: {{is: alice@corp.example}}}}, {{date: {{after: \"{soon}\"}}}}]}}}}]"
    );
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address).policy(&policy)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let mut client = cli.spawn(&["tcp", DESTINATION, "--listen", "-"], Input::Pipe).unwrap();
    let status = client.wait().await.unwrap();
    assert_eq!(status.code(), Some(77), "{}\n{}", client.errors.text(), cli.trouble());
    let said = client.errors.text();
    assert!(said.contains("date-unauthorized") && said.contains("Wait until 2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_gateways_own_workings_is_shown_to_strangers() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::web("app.localhost", app.address)]).await.unwrap();
    let stranger = Person::new("nobody", &gateway.authority).unwrap();
    for path in ["/debug/pprof/", "/debug/vars", "/metrics", "/stats", "/config_dump", "/.pomerium/jwt"] {
        for host in ["authenticate.localhost", "localhost"] {
            let page = stranger.get(&gateway.url(host).unwrap().join(path).unwrap()).await.unwrap();
            assert!(matches!(page.status.as_u16(), 302 | 401 | 404), "{host}{path}: {}", page.status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_in_a_path_lead_nobody_past_a_route_or_a_rule() {
    let app = App::start().await.unwrap();
    let everybody = "[{allow: {and: [{accept: true}]}}]";
    let admin = Route::web("app.localhost", app.address).with("prefix: /admin/");
    let open = Route::web("app.localhost", app.address).policy(
        "[{allow: {and: [{accept: true}]}, deny: {or: [{http_path: {starts_with: /files/secret}}]}}]",
    );
    let other = Route::web("other.localhost", app.address).policy(everybody);
    let gateway = Gateway::start(&[admin, open, other]).await.unwrap();
    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    let port = gateway.port;
    for (host, path, status) in [
        ("app.localhost", "/admin/secret", "401"),
        ("app.localhost", "/admin;x/secret", "400"),
        ("app.localhost", "/admin%3bx/secret", "400"),
        ("app.localhost", "/admin;/secret;y", "400"),
        ("app.localhost", "/files;x/secret", "400"),
        ("app.localhost", "/files;x/public", "200"),
        ("app.localhost", "/page;jsessionid=1", "200"),
        ("app.localhost", "/.pomerium;x/", "400"),
        ("other.localhost", "/admin;x/secret", "200"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\n\r\n");
        let (head, _stream) = raw(&tls, port, host, &request).await.unwrap();
        assert_eq!(head.split_whitespace().nth(1), Some(status), "{host}{path}: {head}");
    }
    assert_eq!(app.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_ends_with_a_status_that_its_client_reads() {
    let app = App::start().await.unwrap();
    let nobody = port::reserve().unwrap();
    let gateway = Gateway::start(&[
        Route::web("app.localhost", format!("127.0.0.1:{nobody}"))
            .policy("[{allow: {and: [{accept: true}]}}]")
            .with("prefix: /down/"),
        Route::web("app.localhost", app.address),
    ])
    .await
    .unwrap();
    let bob = Person::new("bob", &gateway.authority).unwrap();
    bob.open(&gateway.url("app.localhost").unwrap().join("/.pomerium/").unwrap()).await.unwrap();
    let stranger = Person::new("stranger", &gateway.authority).unwrap();
    for (who, host, path, status, code) in [
        (&stranger, "app.localhost", "/shop.Orders/List", 401, "16"),
        (&bob, "app.localhost", "/shop.Orders/List", 403, "7"),
        (&stranger, "other.localhost", "/shop.Orders/List", 404, "12"),
        (&stranger, "app.localhost", "/down/shop.Orders/List", 502, "14"),
    ] {
        for (sent, answered) in [
            ("application/grpc", "application/grpc+json"),
            ("application/grpc-web+proto", "application/grpc-web+json"),
        ] {
            let url = gateway.url(host).unwrap().join(path).unwrap();
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, sent.parse().unwrap())]);
            let page = who.request(Method::POST, &url, headers, bytes::Bytes::new()).await.unwrap();
            let said = |name: &str| page.headers.get(name).map_or("", |value| value.to_str().unwrap());
            assert_eq!((page.status.as_u16(), said("grpc-status")), (status, code), "{host}{path} {sent}");
            assert_eq!(said("content-type"), answered);
            assert!(
                page.body.is_empty() && !said("grpc-message").is_empty() && !said("x-request-id").is_empty()
            );
        }
    }
    assert_eq!(app.requests(), 0);
}
