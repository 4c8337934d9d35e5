//! The real parts answer by themselves: when a story fails, these say whether the product is to blame.

use std::time::Duration;

use support::{
    app::{App, GREETING},
    authority::Authority,
    browser::Browser,
    echo::{Echo, FAREWELL},
    oidc::Oidc,
    person::Person,
    postgres::Postgres,
    sshd::Sshd,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};
use url::Url;

#[tokio::test]
async fn the_identity_provider_signs_alice_in() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let oidc = Oidc::start(1, Duration::from_secs(600), &authority.root).await.unwrap();
    let alice = Person::new("alice", &authority).unwrap();
    let discovery = format!("{}/.well-known/openid-configuration", oidc.issuer).parse().unwrap();
    let text = alice.get(&discovery).await.unwrap().text();
    assert!(text.contains("\"end_session_endpoint\"") && text.contains("\"S256\""), "{text}");

    let back = "https://authenticate.localhost:1/oauth2/callback";
    let mut authorize = Url::parse(&format!("{}/auth", oidc.issuer)).unwrap();
    authorize.query_pairs_mut().extend_pairs([
        ("client_id", "pomerium"),
        ("response_type", "code"),
        ("scope", "openid email groups offline_access"),
        ("redirect_uri", back),
        ("code_challenge", "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"),
        ("code_challenge_method", "S256"),
        ("state", "the-state"),
    ]);
    let end = alice.open_until(&authorize, |url| url.as_str().starts_with(back)).await.unwrap();
    assert!(end.query_pairs().any(|(name, _)| name == "code"), "{end}");
}

#[tokio::test]
async fn the_ssh_server_lets_the_user_of_the_tests_in() {
    let sshd = Sshd::start().await.unwrap();
    let output = Command::new("ssh")
        .args(sshd.client_options("ssh.corp.test"))
        .args(["-p", &sshd.address.port().to_string(), "root@127.0.0.1", "echo", "inside"])
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "inside\n", "{errors}\n{}", sshd.log.text());
}

#[tokio::test]
async fn the_database_answers() {
    let postgres = Postgres::start().await.unwrap();
    assert_eq!(postgres.execute("select 1").await.unwrap(), "1");
}

#[tokio::test]
async fn the_browser_shows_the_app() {
    let app = App::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let browser = Browser::start(&Authority::create(folder.path()).unwrap()).await.unwrap();
    browser.client.goto(&format!("http://app.localhost:{}/", app.address.port())).await.unwrap();
    let source = browser.client.source().await.unwrap();
    browser.close().await.unwrap();
    assert!(source.contains(GREETING), "{source}");
}

#[tokio::test]
async fn the_echo_service_answers_after_the_client_has_finished() {
    let echo = Echo::start().await.unwrap();
    let mut stream = TcpStream::connect(echo.address).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [b"hello", FAREWELL].concat());
    assert_eq!(echo.dials(), 1);
}
