use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use http::{HeaderValue, header};

use super::*;
use crate::{
    config::{ProviderQuirks, SameSite, SignOutPage},
    session::{SessionId, UserId, demand::SignInDemand},
    store::ProviderTokens,
};

mod browser_device;
mod consent;
mod hand_over_code;
mod idp;
mod logout;
mod peers;
mod programs;
mod renewal;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

const NOW: u64 = 1_700_000_000;

/// A browser: it keeps cookies by host and sends them back.
#[derive(Default)]
struct Browser {
    cookies: BTreeMap<(String, String), String>,
}

impl Browser {
    fn headers(&self, url: &Url) -> HeaderMap {
        let host = url.host_str().unwrap();
        let pairs: Vec<String> = self
            .cookies
            .iter()
            .filter(|((owner, _), _)| owner == host)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let mut headers = HeaderMap::new();
        if !pairs.is_empty() {
            headers.insert(header::COOKIE, pairs.join("; ").parse().unwrap());
        }
        headers
    }

    fn keep(&mut self, url: &Url, response: &Response<Bytes>) {
        for line in response.headers().get_all(header::SET_COOKIE) {
            let line = line.to_str().unwrap();
            assert!(
                line.contains("; Path=/;") && line.contains("; Secure") && line.contains("; HttpOnly"),
                "{line}"
            );
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert((url.host_str().unwrap().to_owned(), name.to_owned()), value.to_owned());
        }
    }

    async fn get(&mut self, service: &Authenticate, url: &Url, now: SystemTime) -> Response<Bytes> {
        let headers = self.headers(url);
        let req = AuthRequest { method: &Method::GET, url, headers: &headers, form: Bytes::new(), key: None };
        let response = if url.host_str() == Some("authenticate.example.com") {
            service.handle_authenticate_host(req, now).await
        } else {
            service.handle_route_host(req, now).await.unwrap()
        };
        self.keep(url, &response);
        response
    }

    /// Sends a form of the page at `url` (from its own origin, unless `origin` says otherwise).
    async fn post(
        &mut self,
        service: &Authenticate,
        url: &Url,
        fields: &[(&str, &str)],
        origin: Option<&'static str>,
        now: SystemTime,
    ) -> Response<Bytes> {
        let mut headers = self.headers(url);
        let own = HeaderValue::from_str(&url.origin().ascii_serialization()).unwrap();
        headers.insert(header::ORIGIN, origin.map_or(own, HeaderValue::from_static));
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let form = Bytes::from(form.finish());
        let req = AuthRequest { method: &Method::POST, url, headers: &headers, form, key: None };
        let response = match service.handle_route_host(req.clone(), now).await {
            Some(response) => response,
            None => service.handle_authenticate_host(req, now).await,
        };
        self.keep(url, &response);
        response
    }

    /// Says "continue" to a question of the sign-in host.
    async fn go_on(
        &mut self,
        service: &Authenticate,
        question: &Response<Bytes>,
        now: SystemTime,
    ) -> Response<Bytes> {
        let to = url("https://authenticate.example.com/.pomerium/continue");
        self.post(service, &to, &[("ticket", &ticket(question))], None, now).await
    }

    /// Opens an app without a session.
    fn begin(&mut self, service: &Authenticate, url: &Url, now: SystemTime) -> Url {
        self.begin_for(service, url, &SignInDemand::default(), now)
    }

    /// The same, where the route asks something of the sign-in.
    fn begin_for(
        &mut self,
        service: &Authenticate,
        url: &Url,
        demand: &SignInDemand,
        now: SystemTime,
    ) -> Url {
        let response = service.sign_in_response(url, &self.headers(url), demand, now).unwrap();
        self.keep(url, &response);
        location(&response)
    }
}

/// The hidden field of a question.
fn ticket(question: &Response<Bytes>) -> String {
    let page = std::str::from_utf8(question.body()).unwrap();
    let (_, rest) =
        page.split_once("name=\"ticket\" value=\"").unwrap_or_else(|| panic!("no question: {page}"));
    rest.split('"').next().unwrap().to_owned()
}

fn location(response: &Response<Bytes>) -> Url {
    assert_eq!(response.status(), StatusCode::FOUND, "{:?}", response.body());
    response.headers()[header::LOCATION].to_str().unwrap().parse().unwrap()
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

fn config(issuer: &str) -> AuthenticateConfig {
    AuthenticateConfig {
        authenticate_url: url("https://authenticate.example.com"),
        signout_redirect_url: None,
        programmatic_redirect_domains: vec!["localhost".into(), "tools.example.com".into()],
        cookie: CookieSettings {
            name: "_pomerium".into(),
            domain: None,
            http_only: true,
            expire: Some(Duration::from_secs(3600)),
            expire_at: None,
            same_site: SameSite::Lax,
        },
        identity_provider: IdentityProvider {
            issuer: url(issuer),
            client_id: "gateway".into(),
            client_secret: Some(Secret::new("client-secret".into())),
            scopes: vec!["openid".into(), "email".into()],
            request_params: vec![],
            unreachable_grace: Duration::from_secs(900),
            quirks: ProviderQuirks {
                groups_claim: "groups",
                answers_by_form: false,
                has_many_tenants: false,
                sign_out: SignOutPage::Discovered,
            },
        },
        unreachable_grace: Duration::from_secs(900),
        workload_issuers: vec![],
        device_proof_life: Duration::from_secs(1800),
        peer_terms: Some(peers::terms()),
        look: Look::default(),
        extra_roots: vec![],
        shared_secret: Secret::new([1; 32]),
        cookie_secret: Secret::new([2; 32]),
        is_our_host: Arc::new(|host| is_named(host) || host.ends_with(".apps.example.com")),
        is_named_host: Arc::new(is_named),
    }
}

fn is_named(host: &str) -> bool {
    matches!(host, "app.example.com" | "other.example.com" | "authenticate.example.com")
}

async fn service() -> Authenticate {
    Authenticate::new(config("http://127.0.0.1:1"), Store::in_memory().await.unwrap()).unwrap()
}

/// A browser that is signed in at the sign-in host.
async fn signed_in(service: &Authenticate) -> Browser {
    let session = Session {
        id: SessionId::new("s1"),
        user_id: UserId::new("alice"),
        idp_id: service.idp_id.clone(),
        email: "alice@example.com".into(),
        name: "Alice".into(),
        groups: vec![],
        claims: [].into(),
        issued_at: at(NOW),
        expires_at: at(NOW + 3600),
        bound_to: None,
        vouched_until: None,
        proof: None,
    };
    let tokens = ProviderTokens {
        access: Secret::new("a".into()),
        refresh: None,
        id_token: Secret::new("i".into()),
        access_expires_at: None,
    };
    service.store.put_session(&session, &tokens).await.unwrap();
    let handle = service.handle_key.mint(&session, &[service.sign_in_audience()], at(NOW)).unwrap();
    let mut browser = Browser::default();
    let place = ("authenticate.example.com".to_owned(), "_pomerium_authenticate".to_owned());
    browser.cookies.insert(place, handle.expose().clone());
    browser
}

#[tokio::test]
async fn a_hand_over_signs_in_one_host_in_one_browser_once() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let app = url("https://app.example.com/x?a=1");
    let sign_in = browser.begin(&service, &app, at(NOW));
    let hand_over = location(&browser.get(&service, &sign_in, at(NOW)).await);
    assert_eq!((hand_over.host_str(), hand_over.path()), (Some("app.example.com"), "/.pomerium/callback/"));

    // The thief of the URL is in another browser, and does not use it up.
    let stolen = Browser::default().get(&service, &hand_over, at(NOW)).await;
    assert_eq!(stolen.status(), StatusCode::BAD_REQUEST);
    assert!(!stolen.headers().contains_key(header::SET_COOKIE));
    let late = browser.get(&service, &hand_over, at(NOW + 61)).await;
    assert_eq!(late.status(), StatusCode::BAD_REQUEST);

    assert_eq!(location(&browser.get(&service, &hand_over, at(NOW + 1)).await), app);
    let thief = browser.cookies.iter().filter(|((_, name), _)| name.starts_with("__Host-"));
    let mut thief = Browser { cookies: thief.map(|(place, value)| (place.clone(), value.clone())).collect() };
    for later in [at(NOW + 2), at(NOW + 60) + Duration::from_millis(900)] {
        let replayed = thief.get(&service, &hand_over, later).await;
        assert_eq!(replayed.status(), StatusCode::BAD_REQUEST, "it begins no second session");
        assert!(!replayed.headers().contains_key(header::SET_COOKIE));
    }
    let back_button = browser.get(&service, &hand_over, at(NOW + 2)).await;
    assert_eq!(location(&back_button), app, "who is signed in goes on");
    assert!(!back_button.headers().contains_key(header::SET_COOKIE));

    let headers = browser.headers(&app);
    let session = service
        .session_of(&headers, None, Some("app.example.com"), None, at(NOW + 3))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(session.email, "alice@example.com");
    assert_eq!(
        service.session_of(&headers, None, Some("other.example.com"), None, at(NOW + 3)).await.unwrap(),
        None
    );
    service.store.end_session(&session.id).await.unwrap();
    let ended = service.resolve(&headers, None, Some("app.example.com"), None, at(NOW + 3)).await.unwrap();
    assert_eq!(ended, Resolved::Invalid(CredentialSource::Cookie, InvalidCredential::Ended));
}

#[tokio::test]
async fn a_strict_cookie_is_set_on_a_page_that_leads_on_itself() {
    let mut config = config("http://127.0.0.1:1");
    config.cookie.same_site = SameSite::Strict;
    let service = Authenticate::new(config, Store::in_memory().await.unwrap()).unwrap();
    let mut browser = signed_in(&service).await;
    let app = url("https://app.example.com/x?a=1");
    let sign_in = browser.begin(&service, &app, at(NOW));
    let hand_over = location(&browser.get(&service, &sign_in, at(NOW)).await);
    let landed = browser.get(&service, &hand_over, at(NOW)).await;
    assert_eq!(landed.status(), StatusCode::OK, "a redirect would leave the cookie behind");
    assert_eq!(landed.headers()[header::REFRESH], "0; url=https://app.example.com/x?a=1");
    let set = |name: &str, session: &Session| {
        let handle = Secret::new("handle".to_owned());
        service.session_cookie(name, &handle, session, at(NOW)).unwrap().to_str().unwrap().to_owned()
    };
    let session = service.store.session(&SessionId::new("s1")).await.unwrap().unwrap();
    assert!(set("_pomerium", &session).ends_with("; SameSite=Strict"));
    let of_sign_in = set(&service.sign_in_cookie_name(), &session);
    assert!(of_sign_in.ends_with("; SameSite=Lax"), "people come there from other sites: {of_sign_in}");
}

#[tokio::test]
async fn cookies_that_a_sibling_domain_planted_do_not_hide_ours() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let app = url("https://app.example.com/");
    let plant = |headers: &HeaderMap, name: &str, count: usize| {
        let own = headers[header::COOKIE].to_str().unwrap();
        let planted = format!("{name}={}; ", "x".repeat(43)).repeat(count);
        HeaderMap::from_iter([(header::COOKIE, format!("{planted}{own}").parse().unwrap())])
    };
    let get = async |url: &Url, headers: &HeaderMap| {
        let req = AuthRequest { method: &Method::GET, url, headers, form: Bytes::new(), key: None };
        if url.host_str() == Some("authenticate.example.com") {
            service.handle_authenticate_host(req, at(NOW)).await
        } else {
            service.handle_route_host(req, at(NOW)).await.unwrap()
        }
    };
    let sign_in = browser.begin(&service, &app, at(NOW));
    let headers = plant(&browser.headers(&sign_in), "_pomerium_authenticate", 7);
    let hand_over = location(&get(&sign_in, &headers).await);
    let headers = plant(&browser.headers(&hand_over), "__Host-_pomerium_login", 7);
    let landed = get(&hand_over, &headers).await;
    assert_eq!(location(&landed), app);
    browser.keep(&app, &landed);
    for (count, is_found) in [(7, true), (8, false)] {
        let headers = plant(&browser.headers(&app), "_pomerium", count);
        let resolved = service.resolve(&headers, None, app.host_str(), None, at(NOW)).await.unwrap();
        assert_eq!(matches!(resolved, Resolved::Valid(..)), is_found, "{count} planted");
    }
}

#[tokio::test]
async fn a_browser_whose_session_does_not_count_is_not_sent_round_for_ever() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let app = url("https://app.example.com/");
    let mut rounds = 0;
    while !service.goes_in_circles(&browser.headers(&app)) {
        let sign_in = browser.begin(&service, &app, at(NOW));
        let hand_over = location(&browser.get(&service, &sign_in, at(NOW)).await);
        assert_eq!(location(&browser.get(&service, &hand_over, at(NOW)).await), app);
        rounds += 1;
        assert!(rounds < 20, "no end");
    }
    assert!(rounds > 5, "a few tabs at once are no circle");
    let other = url("https://other.example.com/");
    assert!(!service.goes_in_circles(&browser.headers(&other)), "each host counts for itself");
    let line = forget_landings();
    assert!(line.to_str().unwrap().contains("Max-Age=0"), "the page begins anew: {line:?}");
}

#[tokio::test]
async fn in_a_frame_nobody_is_sent_to_the_provider_and_a_session_goes_on_unseen() {
    let service = service().await;
    let app = url("https://app.example.com/");
    let mut stranger = Browser::default();
    let mut alice = signed_in(&service).await;
    for (browser, status) in [(&mut stranger, StatusCode::UNAUTHORIZED), (&mut alice, StatusCode::FOUND)] {
        let sign_in = browser.begin(&service, &app, at(NOW));
        let mut headers = browser.headers(&sign_in);
        headers.insert("sec-fetch-dest", HeaderValue::from_static("iframe"));
        let (method, form) = (&Method::GET, Bytes::new());
        let req = AuthRequest { method, url: &sign_in, headers: &headers, form, key: None };
        let response = service.handle_authenticate_host(req, at(NOW)).await;
        assert_eq!(response.status(), status);
        if status == StatusCode::UNAUTHORIZED {
            let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(!policy.contains("frame-ancestors"), "the page shows in the frame: {policy}");
            let page = std::str::from_utf8(response.body()).unwrap();
            assert!(page.contains(r#"href="https://app.example.com/" target="_blank""#), "{page}");
        }
    }
}

#[tokio::test]
async fn nobody_is_sent_to_a_host_or_port_that_is_not_ours() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    for target in [
        "https://evil.example/",
        "http://app.example.com/",
        "https://app.example.com:9999/",
        "https://user@app.example.com/",
        "https://app.example.com.evil.example/",
        "javascript:alert(1)",
    ] {
        let sign_in = service.sign_in_redirect(&url(target), "binding", &SignInDemand::default(), at(NOW));
        let response = browser.get(&service, &sign_in, at(NOW)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{target}");
        assert!(!response.headers().contains_key(header::SET_COOKIE));
        assert!(!response.headers().contains_key(header::LOCATION));
    }
}

#[tokio::test]
async fn an_unsigned_a_changed_and_an_old_sign_in_link_are_refused() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let good = service.sign_in_redirect(
        &url("https://app.example.com/"),
        "binding",
        &SignInDemand::default(),
        at(NOW),
    );
    let changed = url(&good.as_str().replace("app.example.com", "other.example.com"));
    let unsigned = url(
        "https://authenticate.example.com/.pomerium/sign_in?pomerium_redirect_uri=https://app.example.com/",
    );
    for (link, now) in [(changed, NOW), (unsigned, NOW), (good, NOW + 361)] {
        assert_eq!(browser.get(&service, &link, at(now)).await.status(), StatusCode::BAD_REQUEST, "{link}");
    }
}

#[tokio::test]
async fn a_program_gets_its_handle_on_loopback_only_and_no_cookie_is_set() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let ask = |target: &str| {
        let mut login = url("https://app.example.com/.pomerium/api/v1/login");
        login.query_pairs_mut().append_pair("pomerium_redirect_uri", target);
        login
    };
    for target in [
        "https://evil.example/",
        "http://evil.example/",
        "http://tools.example.com/",
        "http://localhost.evil.example/",
    ] {
        let response = browser.get(&service, &ask(target), at(NOW)).await;
        assert_eq!(
            (response.status(), response.body().as_ref()),
            (StatusCode::BAD_REQUEST, &b"invalid redirect uri"[..])
        );
    }
    let missing =
        browser.get(&service, &url("https://app.example.com/.pomerium/api/v1/login"), at(NOW)).await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    let foreign = url(&ask("http://127.0.0.1:5555").as_str().replace("app.example.com", "evil.example"));
    assert_eq!(browser.get(&service, &foreign, at(NOW)).await.status(), StatusCode::BAD_REQUEST);

    let response = browser.get(&service, &ask("http://127.0.0.1:5555"), at(NOW)).await;
    let sign_in = url(std::str::from_utf8(response.body()).unwrap());
    let question = browser.get(&service, &sign_in, at(NOW)).await;
    let hand_over = location(&browser.go_on(&service, &question, at(NOW)).await);
    let response = Browser::default().get(&service, &hand_over, at(NOW)).await;
    assert!(!response.headers().contains_key(header::SET_COOKIE));
    let back = location(&response);
    assert_eq!((back.host_str(), back.port()), (Some("127.0.0.1"), Some(5555)));
    let (_, handle) = back.query_pairs().find(|(name, _)| name == "pomerium_jwt").unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Pomerium {handle}")).unwrap());
    assert!(
        service.session_of(&headers, None, Some("app.example.com"), None, at(NOW)).await.unwrap().is_some()
    );
    assert!(service.session_of(&headers, None, None, None, at(NOW)).await.unwrap().is_some());
    assert_eq!(Browser::default().get(&service, &hand_over, at(NOW)).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn another_sites_page_cannot_sign_anybody_out() {
    let service = service().await;
    let browser = signed_in(&service).await;
    let sign_out = url("https://authenticate.example.com/.pomerium/sign_out");
    let mut headers = browser.headers(&sign_out);
    let asked = AuthRequest {
        method: &Method::GET,
        url: &sign_out,
        headers: &headers,
        form: Bytes::new(),
        key: None,
    };
    assert_eq!(service.handle_authenticate_host(asked, at(NOW)).await.status(), StatusCode::OK);
    for (name, value) in
        [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site"), ("x", "y")]
    {
        let mut headers = headers.clone();
        headers.insert(name, HeaderValue::from_static(value));
        let req = AuthRequest {
            method: &Method::POST,
            url: &sign_out,
            headers: &headers,
            form: Bytes::new(),
            key: None,
        };
        assert_eq!(service.handle_authenticate_host(req, at(NOW)).await.status(), StatusCode::BAD_REQUEST);
    }
    assert!(service.store.session(&SessionId::new("s1")).await.unwrap().is_some());
    headers.insert(header::ORIGIN, HeaderValue::from_static("https://authenticate.example.com"));
    let req = AuthRequest {
        method: &Method::POST,
        url: &sign_out,
        headers: &headers,
        form: Bytes::new(),
        key: None,
    };
    let response = service.handle_authenticate_host(req, at(NOW)).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    assert!(response.headers()[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(service.store.session(&SessionId::new("s1")).await.unwrap(), None);
}

#[tokio::test]
async fn a_link_of_somebody_else_signs_nobody_out_unasked() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    // The host of any app signs such a link for whoever asks: here for a stranger without a session.
    let asked = url("https://app.example.com/.pomerium/sign_out");
    let link = location(&Browser::default().get(&service, &asked, at(NOW)).await);
    let response = browser.get(&service, &link, at(NOW)).await;
    assert_eq!(response.status(), StatusCode::OK, "a question, not a deed");
    assert!(service.store.session(&SessionId::new("s1")).await.unwrap().is_some());
}

#[tokio::test]
async fn no_handle_of_an_app_opens_the_sign_in_host_nor_the_other_way_round() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let place = ("authenticate.example.com".to_owned(), "_pomerium_authenticate".to_owned());
    let of_sign_in = browser.cookies[&place].clone();
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Pomerium {of_sign_in}").parse().unwrap());
    for host in ["app.example.com", "authenticate.example.com"] {
        let found = service.session_of(&headers, None, Some(host), None, at(NOW)).await.unwrap();
        assert_eq!(found, None, "the sign-in cookie at {host}");
    }
    let session = service.store.session(&SessionId::new("s1")).await.unwrap().unwrap();
    let hosts = ["authenticate.example.com".to_owned(), "app.example.com".to_owned()];
    let of_app = service.handle_key.mint(&session, &hosts, at(NOW)).unwrap();
    browser.cookies.insert(place, of_app.expose().clone());
    let sign_in_host = url("https://authenticate.example.com/.pomerium/");
    let headers = browser.headers(&sign_in_host);
    let (method, form) = (&Method::GET, Bytes::new());
    let req = AuthRequest { method, url: &sign_in_host, headers: &headers, form, key: None };
    assert_eq!(service.sign_in_host_session(&req, at(NOW)).await.unwrap(), None);
}

#[test]
fn a_shared_cookie_domain_covers_itself_and_what_is_below() {
    assert!(is_within("app.example.com", "example.com") && is_within("example.com", ".example.com"));
    assert!(
        !is_within("badexample.com", "example.com")
            && !is_within("example.com", "")
            && !is_within("com", "example.com")
    );
}
