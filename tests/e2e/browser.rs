//! The whole way in a real browser.

use fantoccini::Locator;
use support::{
    app::{App, GREETING},
    browser::Browser,
    gateway::{Gateway, Options, Route},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
};

async fn parts() -> anyhow::Result<(App, Gateway, Browser)> {
    let app = App::start().await?;
    let gateway = Gateway::start(&[Route::web("app.localhost", app.address)]).await?;
    let browser = Browser::start(&gateway.authority).await?;
    Ok((app, gateway, browser))
}

/// Opens the app and signs in at the identity provider.
async fn sign_in(gateway: &Gateway, browser: &Browser, name: &str) -> anyhow::Result<String> {
    let client = &browser.client;
    client.goto(gateway.url("app.localhost")?.as_str()).await?;
    let field = client.wait().for_element(Locator::Css("input[name=login]")).await?;
    field.send_keys(name).await?;
    client.find(Locator::Css("button")).await?.click().await?;
    client.wait().for_url(&gateway.url("app.localhost")?).await?;
    Ok(client.source().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn alice_signs_in_sees_the_app_and_signs_out() {
    let (_app, gateway, browser) = parts().await.unwrap();
    let source = sign_in(&gateway, &browser, "alice").await.unwrap();
    assert!(source.contains(GREETING) && source.contains("alice@corp.example"), "{source}");

    let client = &browser.client;
    let sign_out = gateway.url("app.localhost").unwrap().join("/.pomerium/sign_out").unwrap();
    client.goto(sign_out.as_str()).await.unwrap();
    // The gateway ends this browser's session without asking; the identity provider asks.
    client.wait().for_element(Locator::Css("button[name=logout]")).await.unwrap().click().await.unwrap();
    let signed_out = gateway.url("authenticate.localhost").unwrap().join("/.pomerium/signed_out").unwrap();
    client.wait().for_url(&signed_out).await.unwrap();
    client.goto(gateway.url("app.localhost").unwrap().as_str()).await.unwrap();
    let url = client.current_url().await.unwrap();
    assert!(url.as_str().starts_with(&gateway.oidc.issuer), "after signing out the app is at {url}");
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bob_gets_a_page_that_says_why() {
    let (app, gateway, browser) = parts().await.unwrap();
    let source = sign_in(&gateway, &browser, "bob").await.unwrap();
    browser.close().await.unwrap();
    assert!(source.contains("bob@corp.example") && source.contains("email-unauthorized"), "{source}");
    assert!(!source.contains(GREETING), "{source}");
    assert_eq!(app.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_cookie_signs_in_as_well() {
    let app = App::start().await.unwrap();
    let options = Options { more: "cookie_same_site: strict\n", ..Options::default() };
    let routes = [Route::web("app.localhost", app.address)];
    let gateway = Gateway::start_with(&routes, &options).await.unwrap();
    let browser = Browser::start(&gateway.authority).await.unwrap();
    let client = &browser.client;
    client.goto(gateway.url("app.localhost").unwrap().as_str()).await.unwrap();
    let field = client.wait().for_element(Locator::Css("input[name=login]")).await.unwrap();
    field.send_keys("alice").await.unwrap();
    client.find(Locator::Css("button")).await.unwrap().click().await.unwrap();
    let shown = client.wait().for_element(Locator::XPath(&format!("//*[contains(., '{GREETING}')]"))).await;
    let url = client.current_url().await.unwrap();
    browser.close().await.unwrap();
    assert!(shown.is_ok(), "the browser ended at {url}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_its_token_when_the_person_says_continue() {
    let (_app, gateway, browser) = parts().await.unwrap();
    sign_in(&gateway, &browser, "alice").await.unwrap();
    let client = &browser.client;
    let program = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut login = gateway.url("app.localhost").unwrap().join("/.pomerium/api/v1/login").unwrap();
    let listens_at = format!("http://{}/", program.local_addr().unwrap());
    login.query_pairs_mut().append_pair("pomerium_redirect_uri", &listens_at);
    client.goto(login.as_str()).await.unwrap();
    let link = client.find(Locator::Css("body")).await.unwrap().text().await.unwrap();
    client.goto(&link).await.unwrap();
    let button =
        client.wait().for_element(Locator::Css("form[action='/.pomerium/continue'] button")).await.unwrap();
    let page = client.source().await.unwrap();
    assert!(page.contains("alice@corp.example") && page.contains(listens_at.trim_end_matches('/')), "{page}");
    // The browser waits for the program's answer, and the click for the browser.
    let (clicked, line) = tokio::join!(button.click(), async {
        let (stream, _) = program.accept().await.unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        line
    });
    clicked.unwrap();
    browser.close().await.unwrap();
    assert!(line.starts_with("GET /?pomerium_jwt="), "{line}");
}
