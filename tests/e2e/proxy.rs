//! One local port for all routes, spoken to by `curl` as people do.

use std::net::SocketAddr;

use support::{
    app::{App, GREETING},
    cli::{Cli, loopback_port},
    gateway::{Gateway, Route},
    process::{Input, Process},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

const ROUTE: &str = "http://app.corp.test:8080";
/// What `curl` ends with when a SOCKS server says no.
const CURL_SOCKS_REFUSED: i32 = 97;

async fn proxy(cli: &Cli) -> (Process, SocketAddr) {
    let process = cli.spawn(&["proxy", "--listen", "127.0.0.1:0"], Input::None).unwrap();
    let port = loopback_port(&process, "socks5h").await.unwrap();
    (process, ([127, 0, 0, 1], port).into())
}

/// What `curl` printed, and its exit code.
async fn curl(words: &[&str]) -> (String, Option<i32>) {
    let output = Command::new("curl").args(["-sS", "--max-time", "60"]).args(words).output().await.unwrap();
    let told = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&told).into_owned(), output.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_reaches_the_routes_by_socks_and_by_http_and_nothing_else() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp("app.corp.test:8080", app.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (process, local) = proxy(&cli).await;
    let (http, socks) = (format!("http://{local}"), local.to_string());

    for way in [&["--socks5-hostname", &socks][..], &["-x", &http], &["-x", &http, "-p"]] {
        let (told, code) = curl(&[way, &[&format!("{ROUTE}/page?x=1")]].concat()).await;
        assert!(code == Some(0) && told.contains(GREETING), "{way:?}: {told} {}", cli.trouble());
        let is_clean = told.contains("\"/page?x=1\"") && !told.to_lowercase().contains("proxy-connection");
        assert!(is_clean, "the app sees an ordinary request: {told}");
    }
    // Two requests on one connection are asked for one by one.
    let (told, _) =
        curl(&["-x", &http, &format!("{ROUTE}/1"), &format!("{ROUTE}/2"), "http://other.test:1/"]).await;
    assert!(told.contains("\"/1\"") && told.contains("\"/2\""), "{told}");
    assert!(told.contains("other.test:1 is none of the gateway's TCP routes"), "{told}");
    let body = "x".repeat(100_000);
    let (told, _) = curl(&["-x", &http, "-d", &body, &format!("{ROUTE}/upload")]).await;
    assert!(told.contains("100000"), "{told}");

    let before = app.requests();
    let direct = format!("http://{}/", app.address);
    for elsewhere in [direct.as_str(), "http://app.corp.test:8081/", "http://example.com/"] {
        let (told, code) = curl(&["-f", "-x", &http, elsewhere]).await;
        assert!(code == Some(22) && told.contains("403"), "{elsewhere}: {code:?} {told}");
        let (told, code) = curl(&["-x", &http, "-p", elsewhere]).await;
        assert!(code != Some(0) && told.contains("403"), "{elsewhere}: {code:?} {told}");
        let (told, code) = curl(&["--socks5-hostname", &socks, elsewhere]).await;
        assert_eq!(code, Some(CURL_SOCKS_REFUSED), "{elsewhere}: {told}");
    }
    assert_eq!((app.requests(), cli.sign_ins()), (before, 1));
    process.output.line_with("example.com:80 is none of the gateway's TCP routes").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pac_file_names_the_routes_and_is_for_no_page_to_read() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp("app.corp.test:8080", app.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_process, local) = proxy(&cli).await;
    let (told, code) = curl(&["-i", &format!("http://{local}/proxy.pac")]).await;
    assert!(code == Some(0) && told.contains(r#"{"app.corp.test:8080":1}"#), "{told}");
    assert!(told.contains(&format!("SOCKS5 {local}; PROXY {local}")), "{told}");
    let head = told.to_lowercase();
    assert!(head.contains("x-content-type-options: nosniff") && head.contains("proxy-autoconfig"), "{told}");

    // A page whose name was made to lead here, and a page that tries the proxy as if it were a web server.
    let (told, _) = curl(&["-H", "Host: rebound.example", &format!("http://{local}/proxy.pac")]).await;
    assert!(!told.contains("app.corp.test"), "{told}");
    let (told, _) = curl(&["-H", "Host: app.corp.test:8080", &format!("http://{local}/")]).await;
    assert!(!told.contains(GREETING), "{told}");
    assert_eq!(app.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_machine_and_a_person_without_the_route_get_nothing() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp("app.corp.test:8080", app.address)]).await.unwrap();
    let alice = Cli::new(&gateway, "alice").unwrap();
    let (process, local) = proxy(&alice).await;
    for way in [["--socks5-hostname", &local.to_string()], ["-x", &format!("http://{local}")]] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--clear-groups", "curl", "-sS", "--max-time", "60"]);
        let output = command.args(way).arg(ROUTE).output().await.unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
    process.errors.line_with("a process of another user was turned away").await.unwrap();

    let bob = Cli::new(&gateway, "bob").unwrap();
    let (process, local) = proxy(&bob).await;
    let (told, code) = curl(&["-f", "-x", &format!("http://{local}"), ROUTE]).await;
    assert!(code == Some(22) && told.contains("403"), "{told} {}", bob.trouble());
    process.output.line_with("app.corp.test:8080").await.unwrap();
    assert_eq!(app.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_does_not_look_whole() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp("app.corp.test:8080", app.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (process, local) = proxy(&cli).await;
    let mut tunnel = TcpStream::connect(local).await.unwrap();
    tunnel
        .write_all(b"CONNECT app.corp.test:8080 HTTP/1.1\r\nHost: app.corp.test:8080\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tunnel.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 200 ") && !head.contains("content-length"), "{head}");
    // More than all buffers on the way hold, so that the app is in the middle of it.
    tunnel.write_all(b"GET /download?1000000000 HTTP/1.1\r\nHost: app\r\n\r\n").await.unwrap();
    tunnel.read_exact(&mut [0; 1024]).await.unwrap();
    process.signal("TERM").unwrap();
    process.output.line_with("draining").await.unwrap();
    process.signal("TERM").unwrap();
    let mut rest = Vec::new();
    let ended = tunnel.read_to_end(&mut rest).await;
    assert!(ended.is_err(), "{} bytes came, and then a clean end", rest.len());
}
