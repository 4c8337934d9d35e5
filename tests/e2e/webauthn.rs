//! A browser as a device: Chromium with an authenticator of its own.

use fantoccini::{Client, Locator};
use support::{
    app::{App, GREETING},
    browser::Browser,
    gateway::{Gateway, Route},
    wait,
};

use crate::{devices::device, pages::picture};

const APPROVED_DEVICE: &str =
    "[{allow: {and: [{email: {is: alice@corp.example}}, {device: {approved: true}}]}}]";

/// Waits for a page that says `text`.
async fn says(client: &Client, text: &str) -> anyhow::Result<()> {
    let look = async || client.source().await.is_ok_and(|source| source.contains(text)).then_some(());
    match wait::until(text, look).await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(client.source().await.unwrap_or_default())),
    }
}

async fn click(client: &Client, css: &str) -> anyhow::Result<()> {
    Ok(client.wait().for_element(Locator::Css(css)).await?.click().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_for_approved_devices_opens_in_a_browser_that_is_one() {
    let app = App::start().await.unwrap();
    let route = Route::web("app.localhost", app.address).policy(APPROVED_DEVICE);
    let gateway = Gateway::start(&[route]).await.unwrap();
    let browser = Browser::start(&gateway.authority).await.unwrap();
    browser.add_authenticator().await.unwrap();
    let client = &browser.client;
    let url = gateway.url("app.localhost").unwrap();

    // Signed in, but on what device?
    client.goto(url.as_str()).await.unwrap();
    let field = client.wait().for_element(Locator::Css("input[name=login]")).await.unwrap();
    field.send_keys("alice").await.unwrap();
    click(client, "button").await.unwrap();
    says(client, "No browser of yours is known here").await.unwrap();
    assert_eq!(app.requests(), 0);

    click(client, "a[href='/.pomerium/devices']").await.unwrap();
    let name = client.wait().for_element(Locator::Css("input[name=name]")).await.unwrap();
    name.send_keys("Alice's laptop").await.unwrap();
    click(client, "button[data-ceremony=create]").await.unwrap();
    says(client, "waiting for approval").await.unwrap();

    // Shown, but not approved.
    client.goto(url.as_str()).await.unwrap();
    says(client, "Show that it is").await.unwrap();
    picture(&browser, "device-proof").await.unwrap();
    click(client, "button[data-ceremony=get]").await.unwrap();
    says(client, "device-unauthorized").await.unwrap();
    assert_eq!(app.requests(), 0);

    let list = device(&gateway, &["list"]).await;
    let id = list.lines().find(|line| line.contains("Alice's laptop")).unwrap().split(' ').next().unwrap();
    device(&gateway, &["approve", "--", id]).await;
    let opened = async || {
        client.goto(url.as_str()).await.ok()?;
        client.source().await.is_ok_and(|source| source.contains(GREETING)).then_some(())
    };
    wait::until("the app", opened).await.unwrap();
    device(&gateway, &["remove", "--", id]).await;
    let closed = async || {
        client.goto(url.as_str()).await.ok()?;
        client.source().await.is_ok_and(|source| source.contains("No browser of yours")).then_some(())
    };
    wait::until("the end of the device", closed).await.unwrap();
    browser.close().await.unwrap();
}
