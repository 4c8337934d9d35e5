//! What was allowed stays allowed only as long as the reasons for it hold.

use support::{
    app::App,
    echo::Echo,
    gateway::{Gateway, Route},
    http::raw,
    person::Person,
    wait,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

const DESTINATION: &str = "echo.corp.test:7";

/// More than all buffers on the way together.
const DOWNLOAD: usize = 1 << 30;

/// Signs out in the browser, by the link and the button of the page.
async fn sign_out(person: &Person, gateway: &Gateway) -> anyhow::Result<()> {
    let url = gateway.url("app.localhost")?.join("/.pomerium/sign_out")?;
    let page = person.open(&url).await?;
    anyhow::ensure!(page.status.is_success(), "{} answered {}", page.url, page.status);
    Ok(())
}

/// Reads until the other side ends it, and tells how much came.
async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<usize> {
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            total += count;
        }
    };
    wait::within("the end", reading).await?;
    Ok(total)
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_cuts_a_download_and_a_tunnel() {
    let (app, echo) = (App::start().await.unwrap(), Echo::start().await.unwrap());
    let routes = [Route::web("app.localhost", app.address), Route::tcp(DESTINATION, echo.address)];
    let gateway = Gateway::start(&routes).await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let url = gateway.url("app.localhost").unwrap();
    alice.open(&url).await.unwrap();
    let cookie = alice.cookie(&url, "_pomerium").unwrap();
    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();

    let get = format!(
        "GET /download?{DOWNLOAD} HTTP/1.1\r\nHost: app.localhost:{}\r\nCookie: _pomerium={cookie}\r\n\r\n",
        gateway.port
    );
    let (head, mut download) = raw(&tls, gateway.port, "app.localhost", &get).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let connect = format!(
        "CONNECT {DESTINATION} HTTP/1.1\r\nHost: {DESTINATION}\r\nAuthorization: Pomerium {cookie}\r\n\r\n"
    );
    let (head, mut tunnel) = raw(&tls, gateway.port, "app.localhost", &connect).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    tunnel.write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    wait::within("an echo", tunnel.read_exact(&mut hello)).await.unwrap().unwrap();

    sign_out(&alice, &gateway).await.unwrap();
    assert_eq!(read_all(&mut tunnel).await.unwrap(), 0, "nothing but the end");
    let got = read_all(&mut download).await.unwrap();
    assert!(got < DOWNLOAD, "the whole download came");
    gateway.log().line_with(&["stream ended", "\"reason\":\"session\""]).await.unwrap();
    gateway.log().line_with(&["an answer was cut", "\"reason\":\"session\""]).await.unwrap();
}
