//! What a route makes of a request: the path, host and headers that its app sees, or the answer where there is no app.

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde_json::Value;
use support::{
    app::App,
    gateway::{Gateway, Route},
    http::Page,
    person::Person,
};

const HOST: &str = "app.localhost";
const EVERYBODY: &str = "[{allow: {and: [{accept: true}]}}]";

struct Story {
    gateway: Gateway,
    stranger: Person,
}

impl Story {
    async fn begin(routes: &[Route]) -> Self {
        let gateway = Gateway::start(routes).await.unwrap();
        let stranger = Person::new("stranger", &gateway.authority).unwrap();
        Self { gateway, stranger }
    }

    async fn ask(&self, path: &str, headers: &[(&'static str, &str)]) -> Page {
        let url = self.gateway.url(HOST).unwrap().join(path).unwrap();
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        self.stranger.request(Method::GET, &url, headers, Bytes::new()).await.unwrap()
    }

    /// What the app saw.
    async fn seen(&self, path: &str, headers: &[(&'static str, &str)]) -> Value {
        let page = self.ask(path, headers).await;
        assert!(page.status.is_success(), "{path}: {} {}", page.status, page.text());
        serde_json::from_slice(&page.body).unwrap()
    }

    fn here(&self) -> String {
        format!("{HOST}:{}", self.gateway.port)
    }
}

fn to(app: &App, lines: &[&str]) -> Route {
    let route = Route::web(HOST, app.address).policy(EVERYBODY);
    lines.iter().fold(route, |route, line| route.with(line))
}

/// Lines of a route, and what is asked for beside what the app sees.
type Rewrite<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

#[tokio::test(flavor = "multi_thread")]
async fn an_app_sees_the_path_that_its_route_makes() {
    let app = App::start().await.unwrap();
    let cases: &[Rewrite<'_>] = &[
        (
            &["prefix: /plain", "prefix_rewrite: /v1"],
            &[
                ("/plain/x?q=1&r", "/v1/x?q=1&r"),
                ("/plain", "/v1"),
                ("/plain/", "/v1/"),
                ("/plainer", "/v1/er"),
            ],
        ),
        (&["prefix: /slash/", "prefix_rewrite: /"], &[("/slash/x", "/x"), ("/slash/", "/")]),
        (&["prefix: /longer", "prefix_rewrite: /v1/"], &[("/longer/x", "/v1/x"), ("/longer", "/v1/")]),
        (&["prefix: /shorter/", "prefix_rewrite: /v1"], &[("/shorter/x", "/v1/x")]),
        (&["path: /exact", "prefix_rewrite: /other"], &[("/exact?q", "/other?q")]),
        (
            &[
                "regex: /users/.*",
                r"regex_rewrite_pattern: ^/users/([0-9]+)/(.*)$",
                r"regex_rewrite_substitution: /u/\2/\1",
            ],
            &[("/users/7/a/b?q=%2f", "/u/a/b/7?q=%2f"), ("/users/none", "/users/none")],
        ),
    ];
    let mut routes: Vec<Route> = cases.iter().map(|(lines, _)| to(&app, lines)).collect();
    routes.push(to(&app, &["prefix: /based"]).to(&format!("http://{}/base", app.address)));
    routes.push(to(&app, &[]));
    let story = Story::begin(&routes).await;
    let others = [("/based/x", "/base/x"), ("/as/it/is?", "/as/it/is"), ("/x%C3%B6", "/x%C3%B6")];
    for (asked, expected) in cases.iter().flat_map(|(_, pairs)| pairs.iter()).chain(&others) {
        assert_eq!(story.seen(asked, &[]).await["target"], *expected, "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_sees_the_host_that_its_route_names() {
    let app = App::start().await.unwrap();
    let story = Story::begin(&[
        to(&app, &["prefix: /preserved", "preserve_host_header: true"]),
        to(&app, &["prefix: /literal", "host_rewrite: inner.example:81"]),
        to(&app, &["prefix: /header", "host_rewrite_header: X-Tenant"]),
        to(
            &app,
            &[
                "prefix: /path/",
                r"host_path_regex_rewrite_pattern: ^/path/([a-z]+)/.*$",
                r"host_path_regex_rewrite_substitution: \1.example",
            ],
        ),
        to(&app, &[]),
    ])
    .await;
    let (here, there) = (story.here(), app.address.to_string());
    let tenant = ("x-tenant", "blue.example");
    for (path, expected) in [
        ("/", there.as_str()),
        ("/preserved", &here),
        ("/literal", "inner.example:81"),
        ("/header", "blue.example"),
        ("/path/green/x", "green.example"),
    ] {
        let seen = story.seen(path, &[tenant]).await;
        assert_eq!(seen["headers"]["host"][0], expected, "{path}");
        assert_eq!(seen["headers"]["x-forwarded-host"][0], here.as_str(), "{path}");
    }
    assert_eq!(story.ask("/header", &[]).await.status, 400, "the header is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_route_sets_beats_what_it_removes() {
    let app = App::start().await.unwrap();
    let story = Story::begin(&[to(
        &app,
        &[
            "remove_request_headers: [X-Debug, X-Both, X-Forwarded-Host, X-Forwarded-For]",
            "set_request_headers: {X-Both: gateway, X-New: gateway}",
        ],
    )])
    .await;
    let sent = [("x-debug", "1"), ("x-both", "client"), ("x-kept", "client"), ("x-new", "client")];
    let headers = &story.seen("/", &sent).await["headers"];
    for name in ["x-debug", "x-forwarded-host", "x-forwarded-for"] {
        assert_eq!(headers[name], Value::Null, "{name}");
    }
    for (name, value) in [("x-both", "gateway"), ("x-new", "gateway"), ("x-kept", "client")] {
        assert_eq!(headers[name], serde_json::json!([value]), "{name}");
    }
    assert_eq!(headers["x-forwarded-proto"][0], "https");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_leads_where_it_says_and_only_those_whom_policy_lets() {
    let app = App::start().await.unwrap();
    let cases = [
        ("/secure", "{https_redirect: true}", "/secure?q=1", 301, "https://HERE/secure?q=1"),
        ("/scheme", "{scheme_redirect: http}", "/scheme", 301, "http://HERE/scheme"),
        ("/host", "{host_redirect: new.example}", "/host/x?q", 301, "https://new.example/host/x?q"),
        (
            "/both",
            "{host_redirect: new.example, port_redirect: 81}",
            "/both",
            301,
            "https://new.example:81/both",
        ),
        ("/port", "{port_redirect: 81}", "/port", 301, "https://app.localhost:81/port"),
        ("/whole", "{path_redirect: /new, response_code: 302}", "/whole/x?q=1", 302, "https://HERE/new?q=1"),
        (
            "/bare",
            "{path_redirect: /new, strip_query: true, response_code: 308}",
            "/bare?q=1",
            308,
            "https://HERE/new",
        ),
        ("/front", "{prefix_rewrite: /back, response_code: 307}", "/front/x?q", 307, "https://HERE/back/x?q"),
        ("/see", "{path_redirect: /done, response_code: 303}", "/see", 303, "https://HERE/done"),
        ("/token", "{path_redirect: /t}", "/token?a=1&pomerium_session=x", 301, "https://HERE/t?a=1"),
    ];
    let mut routes: Vec<Route> = cases
        .iter()
        .map(|(prefix, redirect, ..)| {
            let route = Route::without_app(HOST, &format!("redirect: {redirect}"));
            route
                .policy(EVERYBODY)
                .with(&format!("prefix: {prefix}"))
                .with("set_response_headers: {X-Of: route}")
        })
        .collect();
    let closed = |path: &str, leads: &str| Route::without_app(HOST, leads).with(&format!("path: {path}"));
    routes.push(closed("/closed", "redirect: {host_redirect: secret.example}"));
    routes.push(closed("/told", "response: {status: 200, body: secret}"));
    let story = Story::begin(&routes).await;
    for (_, redirect, path, status, expected) in cases {
        let page = story.ask(path, &[]).await;
        let location = page.headers.get(header::LOCATION).map(|value| value.to_str().unwrap().to_owned());
        let expected = expected.replace("HERE", &story.here());
        assert_eq!((page.status.as_u16(), location), (status, Some(expected)), "{redirect}");
        assert_eq!(page.headers["x-of"], "route");
    }
    for path in ["/closed", "/told"] {
        let page = story.ask(path, &[("accept", "application/json")]).await;
        assert_eq!(page.status, 401, "{path}");
        assert!(!page.text().contains("secret") && !page.headers.contains_key(header::LOCATION), "{page:?}");
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_answer_is_sent_as_text_whatever_is_asked() {
    let route = Route::without_app(HOST, "response: {status: 503, body: '<b>down</b> for repairs'}");
    let bare = Route::without_app(HOST, "response: {status: 204}").policy(EVERYBODY).with("path: /bare");
    let story = Story::begin(&[bare, route.policy(EVERYBODY)]).await;
    let page = story.ask("/any/path", &[("accept", "text/html")]).await;
    assert_eq!((page.status.as_u16(), &*page.text()), (503, "<b>down</b> for repairs"));
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(page.headers["x-frame-options"], "SAMEORIGIN");
    let bare = story.ask("/bare", &[]).await;
    assert_eq!((bare.status.as_u16(), bare.body.len()), (204, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_for_some_methods_leaves_the_others_to_the_next() {
    let app = App::start().await.unwrap();
    let read = to(&app, &["methods: [GET, HEAD]", "set_request_headers: {x-route: read}"]);
    let write =
        Route::web(HOST, app.address).with("methods: [POST]").with("set_request_headers: {x-route: write}");
    let story = Story::begin(&[read, write]).await;
    let url = story.gateway.url(HOST).unwrap();
    let ask = async |who: &Person, method: &Method| {
        who.request(method.clone(), &url, HeaderMap::new(), Bytes::new()).await.unwrap()
    };
    for (method, status) in [(Method::GET, 200), (Method::HEAD, 200), (Method::POST, 401), (Method::PUT, 404)]
    {
        assert_eq!(ask(&story.stranger, &method).await.status, status, "{method}");
    }
    let alice = Person::new("alice", &story.gateway.authority).unwrap();
    alice.open(&url.join("/.pomerium/").unwrap()).await.unwrap();
    for (method, route) in [(Method::GET, "read"), (Method::POST, "write")] {
        let seen: Value = serde_json::from_slice(&ask(&alice, &method).await.body).unwrap();
        assert_eq!(seen["headers"]["x-route"][0], route, "{method}");
    }
    assert_eq!(ask(&alice, &Method::DELETE).await.status, 404);
}
