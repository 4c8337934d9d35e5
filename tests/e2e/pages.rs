//! The gateway's own pages in a real browser: what they show, what they end, and how they look.

use std::path::PathBuf;

use fantoccini::{Client, Locator};
use serde_json::json;
use support::{
    app::{App, GREETING},
    browser::Browser,
    gateway::{Gateway, Options, Route},
};
use url::Url;

/// What the operator gave.
pub(crate) const BRANDING: &str =
    "branding: {title: Corp Access, primary_color: '#0b6e4f', darkmode_primary_color: '#5fd3a8'}\n";

async fn parts() -> anyhow::Result<(App, Gateway, Browser)> {
    let app = App::start().await?;
    let options = Options { more: BRANDING, ..Options::default() };
    let routes = [Route::web("app.localhost", app.address), Route::web("wiki.localhost", app.address)];
    let gateway = Gateway::start_with(&routes, &options).await?;
    let browser = Browser::start(&gateway.authority).await?;
    Ok((app, gateway, browser))
}

pub(crate) fn page(gateway: &Gateway, host: &str, path: &str) -> Url {
    gateway.url(host).and_then(|url| Ok(url.join(path)?)).expect("host and path make a URL")
}

/// Opens the person's page of the app's host, by way of the identity provider.
pub(crate) async fn sign_in(gateway: &Gateway, client: &Client, name: &str) -> anyhow::Result<()> {
    let you = page(gateway, "app.localhost", "/.pomerium/");
    client.goto(you.as_str()).await?;
    let field = client.wait().for_element(Locator::Css("input[name=login]")).await?;
    field.send_keys(name).await?;
    client.find(Locator::Css("button")).await?.click().await?;
    client.wait().for_url(&you).await?;
    Ok(())
}

/// The status that this page's script gets for a form; 0 where the browser does not tell it.
pub(crate) async fn post(client: &Client, to: &Url, form: &str) -> anyhow::Result<serde_json::Value> {
    let script = "const [to, body, done] = arguments; const headers = {'content-type': 'application/x-www-form-urlencoded'}; \
                  fetch(to, {method: 'POST', mode: 'no-cors', credentials: 'include', headers, body}) \
                  .then((answer) => done(answer.status), (error) => done(String(error)));";
    Ok(client.execute_async(script, vec![json!(to.as_str()), json!(form)]).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_ends_a_session_on_the_sign_in_host_and_nobody_does_it_for_them() {
    const END: &str = "form[action='/.pomerium/sessions/end'] button";
    let (_app, gateway, browser) = parts().await.unwrap();
    let lost = Browser::start(&gateway.authority).await.unwrap();
    sign_in(&gateway, &lost.client, "alice").await.unwrap();
    let app = gateway.url("app.localhost").unwrap();
    lost.client.goto(app.as_str()).await.unwrap();
    assert!(lost.client.source().await.unwrap().contains(GREETING));

    let client = &browser.client;
    sign_in(&gateway, client, "alice").await.unwrap();
    let account = page(&gateway, "authenticate.localhost", "/.pomerium/");
    let end = page(&gateway, "authenticate.localhost", "/.pomerium/sessions/end");
    client.goto(account.as_str()).await.unwrap();
    let id = client.find(Locator::Css(END)).await.unwrap().attr("value").await.unwrap().unwrap();
    // The account's own page lets no script speak to anybody; the one of devices speaks to this host.
    client.goto(page(&gateway, "authenticate.localhost", "/.pomerium/devices").as_str()).await.unwrap();
    assert_eq!(post(client, &end, "id=somebody-elses").await.unwrap(), 400);

    // An app that has turned on its users knows the id, and has their cookies sent along.
    client.goto(app.as_str()).await.unwrap();
    post(client, &end, &format!("id={id}")).await.unwrap();
    lost.client.goto(app.as_str()).await.unwrap();
    assert!(lost.client.source().await.unwrap().contains(GREETING), "the session goes on");

    client.goto(account.as_str()).await.unwrap();
    let button = client.find(Locator::Css(END)).await.unwrap();
    assert_eq!(button.attr("value").await.unwrap().as_deref(), Some(id.as_str()));
    button.click().await.unwrap();
    // This browser alone is left.
    client.wait().for_element(Locator::XPath("//ul[@class='items'][count(li)=1]")).await.unwrap();
    lost.client.goto(app.as_str()).await.unwrap();
    let source = lost.client.source().await.unwrap();
    lost.close().await.unwrap();
    browser.close().await.unwrap();
    assert!(!source.contains(GREETING), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_portal_shows_what_is_usable_and_finds_it() {
    let (_app, gateway, browser) = parts().await.unwrap();
    let client = &browser.client;
    sign_in(&gateway, client, "alice").await.unwrap();
    client.goto(page(&gateway, "app.localhost", "/.pomerium/routes").as_str()).await.unwrap();
    let shown =
        "return [...document.querySelectorAll('.routes > li')].filter((route) => !route.hidden).length";
    assert_eq!(client.execute(shown, vec![]).await.unwrap(), 2);
    client.find(Locator::Css("input[name=q]")).await.unwrap().send_keys("wiki").await.unwrap();
    assert_eq!(client.execute(shown, vec![]).await.unwrap(), 1, "the script finds it");
    client.goto(page(&gateway, "app.localhost", "/.pomerium/routes?q=nothing").as_str()).await.unwrap();
    assert_eq!(client.execute(shown, vec![]).await.unwrap(), 0, "and so does the gateway");
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bar_of_the_sign_in_host_leads_to_the_apps_and_the_button_of_an_app_signs_out() {
    let (_app, gateway, browser) = parts().await.unwrap();
    let client = &browser.client;
    sign_in(&gateway, client, "alice").await.unwrap();
    client.goto(page(&gateway, "authenticate.localhost", "/.pomerium/").as_str()).await.unwrap();
    client.find(Locator::LinkText("Apps")).await.unwrap().click().await.unwrap();
    client.wait().for_element(Locator::Css(".routes a[href*='wiki.localhost']")).await.unwrap();

    client.goto(page(&gateway, "app.localhost", "/.pomerium/").as_str()).await.unwrap();
    client.find(Locator::LinkText("Sign out")).await.unwrap().click().await.unwrap();
    // The identity provider asks, as the last of those who sign out.
    client.wait().for_element(Locator::Css("button[name=logout]")).await.unwrap();
    browser.close().await.unwrap();
}

/// Pictures of the page as it is on phones and desks, by day and by night, for `docs/screenshots`; everybody must be able to
/// use each.
pub(crate) async fn picture(browser: &Browser, name: &str) -> anyhow::Result<()> {
    for (width, is_dark) in [(390, false), (390, true), (1280, false), (1280, true)] {
        browser.look_as(width, is_dark).await?;
        let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let over = browser.client.execute(wide, vec![]).await?;
        assert_eq!(over, 0, "{name} does not fit into {width} pixels");
        let faults = browser.accessibility_faults().await?;
        assert!(faults.is_empty(), "{name}, {width} pixels, dark: {is_dark}: {}", faults.join("\n"));
        if let Some(folder) = std::env::var_os("SCREENSHOTS") {
            let scheme = if is_dark { "dark" } else { "light" };
            let file = PathBuf::from(folder).join(format!("{name}-{width}-{scheme}.png"));
            std::fs::write(file, browser.client.screenshot().await?)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_fits_phones_and_desks_in_the_operators_colours() {
    let (_app, gateway, browser) = parts().await.unwrap();
    let client = &browser.client;
    sign_in(&gateway, client, "alice").await.unwrap();
    picture(&browser, "you").await.unwrap();
    let title = client.title().await.unwrap();
    assert!(title.ends_with("Corp Access"), "{title}");
    for (name, host, path) in [
        ("apps", "app.localhost", "/.pomerium/routes"),
        ("account", "authenticate.localhost", "/.pomerium/"),
        ("devices", "authenticate.localhost", "/.pomerium/devices"),
        ("sign-out", "authenticate.localhost", "/.pomerium/sign_out"),
        ("error", "app.localhost", "/.pomerium/no-such-page"),
        ("device-code", "authenticate.localhost", "/.pomerium/device"),
        ("signed-out", "authenticate.localhost", "/.pomerium/signed_out"),
    ] {
        client.goto(page(&gateway, host, path).as_str()).await.unwrap();
        picture(&browser, name).await.unwrap();
    }
    browser.look_as(1280, false).await.unwrap();
    client.goto(page(&gateway, "authenticate.localhost", "/.pomerium/").as_str()).await.unwrap();
    let color = "return getComputedStyle(document.querySelector('.button')).backgroundColor";
    assert_eq!(client.execute(color, vec![]).await.unwrap(), "rgb(11, 110, 79)");
    ask_for_a_program(&gateway, client).await.unwrap();
    picture(&browser, "hand-off").await.unwrap();
    browser.close().await.unwrap();
}

/// A program asks to be signed in: the sign-in host asks its person.
async fn ask_for_a_program(gateway: &Gateway, client: &Client) -> anyhow::Result<()> {
    let mut login = page(gateway, "app.localhost", "/.pomerium/api/v1/login");
    login.query_pairs_mut().append_pair("pomerium_redirect_uri", "http://127.0.0.1:5555/");
    client.goto(login.as_str()).await?;
    let link = client.find(Locator::Css("body")).await?.text().await?;
    client.goto(&link).await?;
    client.wait().for_element(Locator::Css("form[action='/.pomerium/continue']")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_fits_phones_and_desks() {
    let (_app, gateway, browser) = parts().await.unwrap();
    let client = &browser.client;
    sign_in(&gateway, client, "bob").await.unwrap();
    client.goto(gateway.url("app.localhost").unwrap().as_str()).await.unwrap();
    picture(&browser, "denied").await.unwrap();
    browser.prefer("de").await.unwrap();
    client.refresh().await.unwrap();
    let german = client.find(Locator::Css("html[lang=de] h1")).await.unwrap().text().await.unwrap();
    assert_eq!(german, "Nicht erlaubt");
    picture(&browser, "denied-de").await.unwrap();
    browser.prefer("en").await.unwrap();
    client.delete_all_cookies().await.unwrap();
    let send = "const form = document.createElement('form'); form.method = 'post'; form.action = arguments[0]; \
                document.body.append(form); form.submit();";
    let save = page(&gateway, "app.localhost", "/save");
    client.execute(send, vec![json!(save.as_str())]).await.unwrap();
    client.wait().for_element(Locator::XPath("//h1[contains(., 'did not arrive')]")).await.unwrap();
    picture(&browser, "lost-form").await.unwrap();
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frame_and_a_browser_in_a_circle_get_fits_phones_and_desks() {
    let app = App::start().await.unwrap();
    let options = Options { more: BRANDING, ..Options::default() };
    let routes = ["app.localhost", "other.localhost"].map(|host| Route::web(host, app.address));
    let gateway = Gateway::start_with(&routes, &options).await.unwrap();
    let browser = Browser::start(&gateway.authority).await.unwrap();
    let client = &browser.client;
    sign_in(&gateway, client, "alice").await.unwrap();
    let app = gateway.url("app.localhost").unwrap();
    client.goto(app.as_str()).await.unwrap();
    let frame = "const frame = document.createElement('iframe'); frame.src = arguments[0]; \
                 frame.style = 'position: fixed; inset: 0; width: 100%; height: 100%; border: 0; background: Canvas'; \
                 document.body.append(frame);";
    let other = gateway.url("other.localhost").unwrap();
    client.execute(frame, vec![json!(other.as_str())]).await.unwrap();
    client.find(Locator::Css("iframe")).await.unwrap().enter_frame().await.unwrap();
    client.wait().for_element(Locator::LinkText("Open the app")).await.unwrap();
    // The page around it is not the gateway's.
    picture(&browser, "frame").await.unwrap();
    client.clone().enter_parent_frame().await.unwrap();

    // As the gateway counts it, where no other cookie comes back.
    client.delete_all_cookies().await.unwrap();
    let count = "document.cookie = '__Host-_pomerium_landings=8; path=/; secure';";
    client.execute(count, vec![]).await.unwrap();
    client.goto(app.as_str()).await.unwrap();
    client.wait().for_element(Locator::LinkText("Try again")).await.unwrap();
    picture(&browser, "circle").await.unwrap();
    browser.close().await.unwrap();
}
