//! The sign-in itself, as somebody would abuse it.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use support::{
    app::{App, GREETING},
    gateway::{Gateway, Route},
    person::Person,
};
use url::Url;

async fn parts() -> anyhow::Result<(App, Gateway)> {
    let app = App::start().await?;
    let gateway = Gateway::start(&[Route::web("app.localhost", app.address)]).await?;
    Ok((app, gateway))
}

fn callback(gateway: &Gateway, query: &str) -> anyhow::Result<Url> {
    let mut url = gateway.url("authenticate.localhost")?.join("/oauth2/callback")?;
    url.set_query(Some(query));
    Ok(url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_nobody_began_sets_nothing() {
    let (_app, gateway) = parts().await.unwrap();
    let mallory = Person::new("bob", &gateway.authority).unwrap();
    for query in ["", "code=x", "state=x", "code=x&state=x", "code=x&state=AAAA%3D%3D"] {
        let page = mallory.get(&callback(&gateway, query).unwrap()).await.unwrap();
        assert_eq!(page.status, 400, "{query}");
        assert!(!page.headers.contains_key(header::SET_COOKIE), "{query}: {:?}", page.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_works_once_and_in_one_browser() {
    let (_app, gateway) = parts().await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let is_callback = |url: &Url| url.path() == "/oauth2/callback";
    let back = alice.open_until(&gateway.url("app.localhost").unwrap(), is_callback).await.unwrap();

    let victim = Person::new("bob", &gateway.authority).unwrap();
    let page = victim.get(&back).await.unwrap();
    assert_eq!(page.status, 400, "another browser: {}", page.text());
    assert!(!page.headers.contains_key(header::SET_COOKIE));

    assert!(alice.get(&back).await.unwrap().status.is_redirection());
    // The back button: it begins nothing, and who is signed in goes on.
    let again = alice.get(&back).await.unwrap();
    assert!(!again.headers.contains_key(header::SET_COOKIE));
    let end = alice.open(&again.location().unwrap().unwrap()).await.unwrap();
    assert!(end.text().contains(GREETING), "{}", end.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_to_no_foreign_host() {
    let (_app, gateway) = parts().await.unwrap();
    let mallory = Person::new("bob", &gateway.authority).unwrap();
    for target in [
        "https://evil.test/",
        "http://127.0.0.1.evil.test/",
        "javascript:alert(1)",
        "//evil.test",
        "http://localhost@evil.test/",
    ] {
        let mut url = gateway.url("app.localhost").unwrap().join("/.pomerium/api/v1/login").unwrap();
        url.query_pairs_mut().append_pair("pomerium_redirect_uri", target);
        let page = mallory.get(&url).await.unwrap();
        assert_eq!(page.status, 400, "{target}: {}", page.text());
        assert!(!page.headers.contains_key(header::SET_COOKIE), "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_sign_in_address_is_refused() {
    let (_app, gateway) = parts().await.unwrap();
    let mallory = Person::new("bob", &gateway.authority).unwrap();
    let mut url = gateway.url("authenticate.localhost").unwrap().join("/.pomerium/sign_in").unwrap();
    url.query_pairs_mut().append_pair("pomerium_redirect_uri", "https://evil.test/");
    let page = mallory.get(&url).await.unwrap();
    assert_eq!(page.status, 400, "{}", page.text());
    assert!(!page.headers.contains_key(header::SET_COOKIE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_another_site_planted_beside_ones_own_is_nobodys() {
    let (_app, gateway) = parts().await.unwrap();
    let url = gateway.url("app.localhost").unwrap();
    let everybody = "[{allow: {and: [{authenticated_user: true}]}}]";
    let (alice, mallory) =
        (Person::new("alice", &gateway.authority).unwrap(), Person::new("bob", &gateway.authority).unwrap());
    let app = App::start().await.unwrap();
    gateway.write_routes(&[Route::web("app.localhost", app.address).policy(everybody)]).unwrap();
    gateway.reload().unwrap();
    gateway.log().line_with(&["configuration reloaded"]).await.unwrap();
    let mut cookies = Vec::new();
    for person in [&alice, &mallory] {
        assert!(person.open(&url).await.unwrap().text().contains(GREETING));
        cookies.push(format!("_pomerium={}", person.cookie(&url, "_pomerium").unwrap()));
    }
    let browser = Person::new("nobody", &gateway.authority).unwrap();
    let ask = async |cookies: &[&str]| {
        let headers = HeaderMap::from_iter([(header::COOKIE, cookies.join("; ").parse().unwrap())]);
        browser.request(Method::GET, &url, headers, Bytes::new()).await.unwrap()
    };
    let [own, planted] = [cookies[0].as_str(), cookies[1].as_str()];
    assert_eq!(ask(&[own]).await.status, 200);
    assert_eq!(ask(&[own, own]).await.status, 200, "the same person twice");
    for both in [[own, planted], [planted, own]] {
        let page = ask(&both).await;
        assert!(page.status == 302 && !page.text().contains(GREETING), "{}: {}", page.status, page.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_out_leads_to_no_place_that_a_link_names() {
    let (_app, gateway) = parts().await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    alice.open(&gateway.url("app.localhost").unwrap()).await.unwrap();
    for host in ["app.localhost", "authenticate.localhost"] {
        let mut url = gateway.url(host).unwrap().join("/.pomerium/sign_out").unwrap();
        url.query_pairs_mut().append_pair("pomerium_redirect_uri", "https://evil.test/");
        let elsewhere = alice.open_until(&url, |target| target.host_str() == Some("evil.test")).await;
        assert!(elsewhere.is_err(), "{host}: {elsewhere:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_copied_from_the_browsers_history_gives_nobody_a_token() {
    // RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let (_app, gateway) = parts().await.unwrap();
    let origin = gateway.url("app.localhost").unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let mallory = Person::new("bob", &gateway.authority).unwrap();
    let carried = async || {
        let mut ask = origin.join("/.pomerium/api/v1/login").unwrap();
        ask.query_pairs_mut()
            .append_pair("pomerium_redirect_uri", "http://127.0.0.1:9/")
            .append_pair("pomerium_code_challenge", CHALLENGE);
        let sign_in = Url::parse(alice.get(&ask).await.unwrap().text().trim()).unwrap();
        let back = alice.open_until(&sign_in, |url| url.port() == Some(9)).await.unwrap();
        assert!(!back.as_str().contains("pomerium_jwt"), "{back}");
        back.query_pairs().find(|(name, _)| name == "pomerium_code").unwrap().1.into_owned()
    };
    let trade = async |person: &Person, code: &str, verifier: &str| {
        let form = format!("grant_type=authorization_code&code={code}&code_verifier={verifier}");
        let headers = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        )]);
        let url = origin.join("/.pomerium/api/v1/token").unwrap();
        person.request(Method::POST, &url, headers, form.into()).await.unwrap()
    };

    let stolen = carried().await;
    let as_token = HeaderMap::from_iter([(
        header::AUTHORIZATION,
        HeaderValue::from_str(&format!("Pomerium {stolen}")).unwrap(),
    )]);
    let page = mallory.request(Method::GET, &origin, as_token, Bytes::new()).await.unwrap();
    assert_eq!(page.status, 401, "{}", page.text());
    let page = trade(&mallory, &stolen, CHALLENGE).await;
    assert!(page.status == 400 && !page.text().contains("access_token"), "{}", page.text());
    let page = trade(&alice, &stolen, VERIFIER).await;
    assert_eq!(page.status, 400, "a code that somebody else had is void: {}", page.text());
    gateway.log().line_with(&["WARN", "shown by a process that did not ask for it"]).await.unwrap();

    let own = carried().await;
    let page = trade(&alice, &own, VERIFIER).await;
    assert!(page.status == 200 && page.text().contains("access_token"), "{}", page.text());
    assert_eq!(trade(&alice, &own, VERIFIER).await.status, 400, "once");
}
