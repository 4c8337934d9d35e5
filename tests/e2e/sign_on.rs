//! Signing on where a redirect alone would not do: forms, frames, scripts, circles, and links with a fragment.

use bytes::Bytes;
use fantoccini::{Client, Locator};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::json;
use support::{
    app::{App, GREETING},
    browser::Browser,
    cli::{Cli, loopback_address},
    echo::{Echo, FAREWELL, exchange},
    gateway::{Gateway, Route},
    http::Page,
    namespace::inside,
    person::Person,
    process::Input,
};
use url::Url;

async fn parts() -> anyhow::Result<(App, Gateway)> {
    let app = App::start().await?;
    let routes = [Route::web("app.localhost", app.address), Route::web("other.localhost", app.address)];
    let gateway = Gateway::start(&routes).await?;
    Ok((app, gateway))
}

/// Fills in the identity provider's form.
async fn log_in(client: &Client, name: &str) -> anyhow::Result<()> {
    let field = client.wait().for_element(Locator::Css("input[name=login]")).await?;
    field.send_keys(name).await?;
    client.find(Locator::Css("button")).await?.click().await?;
    Ok(())
}

async fn greeted(client: &Client) -> anyhow::Result<()> {
    client.wait().for_element(Locator::XPath(&format!("//*[contains(., '{GREETING}')]"))).await?;
    Ok(())
}

/// A browser in which alice has signed in and sees the app.
async fn alice_at_the_app(gateway: &Gateway) -> anyhow::Result<Browser> {
    let browser = Browser::start(&gateway.authority).await?;
    browser.client.goto(gateway.url("app.localhost")?.as_str()).await?;
    log_in(&browser.client, "alice").await?;
    greeted(&browser.client).await?;
    Ok(browser)
}

/// What `person` gets for a request with these headers.
async fn ask(person: &Person, method: Method, url: &Url, pairs: &[(&str, &str)]) -> anyhow::Result<Page> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(name.parse::<HeaderName>()?, HeaderValue::from_str(value)?);
    }
    person.request(method, url, headers, Bytes::from_static(b"a=b")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_without_a_session_is_explained_and_sent_again_after_signing_in() {
    let (app, gateway) = parts().await.unwrap();
    let browser = alice_at_the_app(&gateway).await.unwrap();
    let client = &browser.client;
    // The session ends while a form is being filled in.
    client.delete_all_cookies().await.unwrap();
    let before = app.requests();
    let send = "const form = document.createElement('form'); form.method = 'post'; form.action = '/save'; \
                document.body.append(form); form.submit();";
    client.execute(send, vec![]).await.unwrap();
    client.wait().for_element(Locator::XPath("//h1[contains(., 'did not arrive')]")).await.unwrap();
    assert_eq!(app.requests(), before, "it did not reach the app");

    let form = client.window().await.unwrap();
    client.find(Locator::LinkText("Sign in")).await.unwrap().click().await.unwrap();
    let tab = loop {
        let windows = client.windows().await.unwrap();
        if let Some(tab) = windows.into_iter().find(|window| *window != form) {
            break tab;
        }
    };
    client.switch_to_window(tab).await.unwrap();
    // The provider may still know her, and then asks nothing.
    let you = gateway.url("app.localhost").unwrap().join("/.pomerium/").unwrap();
    let arrived = client.wait().for_url(&you);
    tokio::select! {
        arrived = arrived => arrived.unwrap(),
        _ = async { log_in(client, "alice").await.unwrap(); std::future::pending::<()>().await } => {}
    }
    client.switch_to_window(form).await.unwrap();
    client.refresh().await.unwrap();
    greeted(client).await.unwrap();
    let source = client.source().await.unwrap();
    assert!(source.contains("POST") && source.contains("/save"), "{source}");
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_another_site_shows_the_way_to_a_tab() {
    let (_app, gateway) = parts().await.unwrap();
    let browser = alice_at_the_app(&gateway).await.unwrap();
    let client = &browser.client;
    let other = gateway.url("other.localhost").unwrap();
    let frame = "const frame = document.createElement('iframe'); frame.src = arguments[0]; document.body.append(frame);";
    client.execute(frame, vec![json!(other.as_str())]).await.unwrap();
    client.wait().for_element(Locator::Css("iframe")).await.unwrap().enter_frame().await.unwrap();
    let link = client.wait().for_element(Locator::LinkText("Open the app")).await.unwrap();
    assert_eq!(link.attr("href").await.unwrap().as_deref(), Some(other.as_str()));
    assert_eq!(link.attr("target").await.unwrap().as_deref(), Some("_blank"));
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_keeps_its_fragment_where_nobody_has_to_type() {
    let (_app, gateway) = parts().await.unwrap();
    let browser = alice_at_the_app(&gateway).await.unwrap();
    let client = &browser.client;
    let deep = gateway.url("other.localhost").unwrap().join("/page?id=7#part-3").unwrap();
    client.goto(deep.as_str()).await.unwrap();
    greeted(client).await.unwrap();
    assert_eq!(client.current_url().await.unwrap(), deep);
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_told_where_people_sign_in_and_nobody_is_redirected_who_cannot_follow() {
    let (app, gateway) = parts().await.unwrap();
    let stranger = Person::new("alice", &gateway.authority).unwrap();
    let url = gateway.url("app.localhost").unwrap().join("/api").unwrap();
    const PAGE: (&str, &str) = ("accept", "text/html,*/*;q=0.8");
    for script in
        [("sec-fetch-mode", "cors"), ("x-requested-with", "XMLHttpRequest"), ("accept", "application/json")]
    {
        let page = ask(&stranger, Method::GET, &url, &[PAGE, script]).await.unwrap();
        assert_eq!(page.status, 401, "{script:?}");
        assert!(!page.headers.contains_key(header::SET_COOKIE), "nothing is begun");
        let told: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        assert_eq!(told["type"], "urn:pomerium:problem:sign-in-required");
        assert_eq!(told["sign_in_url"], url.join("/.pomerium/").unwrap().as_str());
    }
    let posted = ask(&stranger, Method::POST, &url, &[PAGE, ("sec-fetch-mode", "navigate")]).await.unwrap();
    assert_eq!(posted.status, 401);
    assert!(posted.text().contains("What you sent did not arrive"), "{}", posted.text());
    let navigation = [PAGE, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(ask(&stranger, Method::GET, &url, &navigation).await.unwrap().status, 302);
    assert_eq!(app.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_loses_its_session_is_told_what_to_mend() {
    let (app, gateway) = parts().await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap().losing("_pomerium");
    let mut page = alice.get(&gateway.url("app.localhost").unwrap()).await.unwrap();
    // A browser follows some twenty redirects at once, and then the person tries again.
    for _ in 0..10 {
        if page.status == 401 {
            break;
        }
        page = alice.open(&gateway.url("app.localhost").unwrap()).await.unwrap_or(page);
    }
    assert_eq!(page.status, 401, "{}", page.text());
    let text = page.text();
    assert!(text.contains("round in circles") && text.contains("_pomerium"), "{text}");
    assert_eq!(app.requests(), 0);
}

/// Tabs share their cookies: each sign-in that was begun ends, in whatever order people come back to them.
#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_begun_in_several_tabs_of_one_browser_all_end() {
    let (_app, gateway) = parts().await.unwrap();
    let [app, other] = ["app.localhost", "other.localhost"].map(|host| gateway.url(host).unwrap());
    let wanted = [app.join("/one").unwrap(), app.join("/two").unwrap(), other.join("/three").unwrap()];
    let is_provider = |url: &Url| url.as_str().starts_with(&gateway.oidc.issuer);
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let alice = Person::new("alice", &gateway.authority).unwrap();
        let mut tabs = Vec::new();
        for url in &wanted {
            tabs.push(alice.open_until(url, is_provider).await.unwrap());
        }
        for tab in order {
            let page = alice.open(&tabs[tab]).await.unwrap();
            assert_eq!(page.url, wanted[tab], "{order:?}: {}", page.text());
            assert!(page.text().contains(GREETING), "{order:?}: {}", page.text());
        }
        // A tab that was left behind, and is tried again, does no harm.
        let again = alice.open(&tabs[0]).await.unwrap();
        assert!(!again.status.is_server_error(), "{}", again.text());
        assert!(alice.open(&wanted[1]).await.unwrap().text().contains(GREETING));
    }
}

/// As in the README: people know the sign-in host, and name it to their client.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_told_the_sign_in_host_does_everything_there() {
    let story = "sign_on::a_client_that_is_told_the_sign_in_host_does_everything_there";
    if !inside(story, "# nobody is asked\n").await.unwrap() {
        return;
    }
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp("echo.corp.test:7", echo.address)]).await.unwrap();
    let mut cli = Cli::new(&gateway, "alice").unwrap();
    cli.speak_to(&gateway, "authenticate.localhost");
    let said = async |words: &[&str]| {
        let output = cli.by_itself(words).unwrap().output().await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {errors} {}", cli.trouble());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&["login"]).await.contains("alice"));
    assert!(said(&["routes"]).await.contains("echo.corp.test:7"));
    let client = cli.spawn(&["connect"], Input::None).unwrap();
    let port = loopback_address(&client, "echo.corp.test:7").await.unwrap();
    assert_eq!(exchange(port, b"hello").await.unwrap(), [b"hello", FAREWELL].concat());
    gateway.log().line_with(&["http-request", "/.pomerium/api/v1/events"]).await.unwrap();
    assert!(said(&["logout"]).await.contains("Signed out"));
    gateway.log().line_with(&["a session was ended by its person"]).await.unwrap();
    assert_eq!(cli.sign_ins(), 1);
}
