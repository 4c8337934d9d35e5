//! What the doctors find, on this machine and against real parts.

use serde_json::Value;
use support::{
    app::App,
    authority::Authority,
    cli::Cli,
    gateway::{Gateway, Options, Route, binary},
    port,
};

/// The exit code and the findings of `pomerium-cli doctor` for a gateway.
async fn findings(cli: &Cli, gateway: &str, more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut command = cli.plain(&["doctor", gateway, "--json"]).unwrap();
    let output =
        command.args(more).env("https_proxy", "http://me:secret@proxy.test:1").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("secret"), "{text}");
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

fn grade<'a>(findings: &'a [Value], about: &str) -> &'a str {
    let finding = findings.iter().find(|finding| finding["about"] == about);
    finding.unwrap_or_else(|| panic!("nothing about {about}: {findings:?}"))["grade"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_finds_what_is_in_the_way() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::web("app.localhost", app.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let url = format!("https://localhost:{}", gateway.port);
    let root = gateway.authority.root.display().to_string();
    let (code, all) = findings(&cli, &url, &["--alternate-ca-path", &root]).await;
    assert_eq!(code, Some(0), "{all:?}");
    for about in ["name", "TCP", "certificate", "gateway", "clock", "UDP", "packet size"] {
        assert_eq!(grade(&all, about), "good", "{all:?}");
    }
    assert_eq!((grade(&all, "session"), grade(&all, "proxy variables")), ("weak", "weak"), "{all:?}");
    assert_eq!(cli.sign_ins(), 0, "nobody is signed in by looking");

    let other = tempfile::tempdir().unwrap();
    let other = Authority::create(other.path()).unwrap();
    let (code, all) = findings(&cli, &url, &["--alternate-ca-path", &other.root.display().to_string()]).await;
    assert_eq!((code, grade(&all, "certificate")), (Some(69), "bad"), "{all:?}");

    let nobody = port::reserve().unwrap();
    let (code, all) = findings(&cli, &format!("https://localhost:{nobody}"), &[]).await;
    assert_eq!((code, grade(&all, "TCP"), grade(&all, "certificate")), (Some(69), "bad", "weak"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_udp_is_weak_and_no_more() {
    let app = App::start().await.unwrap();
    let options = Options { more: "codec_type: http1\n", ..Options::default() };
    let gateway = Gateway::start_with(&[Route::web("app.localhost", app.address)], &options).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let root = gateway.authority.root.display().to_string();
    let url = format!("https://localhost:{}", gateway.port);
    let (code, all) = findings(&cli, &url, &["--alternate-ca-path", &root]).await;
    assert_eq!((code, grade(&all, "UDP"), grade(&all, "TCP")), (Some(0), "weak", "good"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_names_nobody_and_opens_nothing() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp("app.corp.test:8080", app.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let daemon = cli.daemon().unwrap();
    daemon.errors.line_with("the daemon answers").await.unwrap();
    let saved = cli.plain(&["connect", "--save"]).unwrap().output().await.unwrap();
    assert!(saved.status.success(), "{saved:?}");
    let file = cli.cache().with_file_name("report.tar.gz");
    let mut command = cli.plain(&["bug-report", "--output"]).unwrap();
    let written = command.arg(&file).output().await.unwrap();
    assert!(written.status.success(), "{written:?}");
    let mut unpack = tokio::process::Command::new("tar");
    let report = unpack.arg("-xzOf").arg(&file).output().await.unwrap();
    let report = String::from_utf8(report.stdout).unwrap();
    for named in ["app.corp.test", "alice", "eyJ", cli.cache().parent().unwrap().to_str().unwrap()] {
        assert!(!report.contains(named), "{named}: {report}");
    }
    // What helps is there: the daemon's state, the forward and its port, what the doctor says.
    for helpful in ["\"transport\": \"quic\"", "[host-1]:8080", "socket buffers", "127."] {
        assert!(report.contains(helpful), "{helpful}: {report}");
    }
}

/// The exit code and the findings of `pomerium-gateway doctor` beside a gateway, with its configuration changed.
async fn of_gateway(gateway: &Gateway, change: impl Fn(String) -> String) -> (Option<i32>, Vec<Value>) {
    let text = std::fs::read_to_string(gateway.config()).unwrap();
    let file = gateway.folder().join("doctor.yaml");
    std::fs::write(&file, change(text)).unwrap();
    let mut command = tokio::process::Command::new(binary("pomerium-gateway").unwrap());
    command.args(["doctor", "--json", "--config"]).arg(file).current_dir(gateway.folder());
    let output = command.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found = serde_json::from_str(&text);
    (
        output.status.code(),
        found.unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_finds_what_keeps_people_out() {
    let app = App::start().await.unwrap();
    let mut gateway = Gateway::start(&[Route::web("app.localhost", app.address)]).await.unwrap();
    // The name of the sign-in host, as a name server of the tests' would have it.
    let local = |text: String| text.replace("https://authenticate.localhost", "https://localhost");
    let (_, all) = of_gateway(&gateway, local).await;
    for about in [
        "provider",
        "certificate",
        "store",
        "this machine",
        "public name",
        "way in",
        "clients' addresses",
        "UDP",
    ] {
        assert_eq!(grade(&all, about), "good", "{all:?}");
    }
    // The provider knows the redirect address of the other name alone.
    assert_eq!(grade(&all, "redirect address"), "bad", "{all:?}");
    let registered = |text: String| text;
    let (_, all) = of_gateway(&gateway, registered).await;
    assert_eq!((grade(&all, "redirect address"), grade(&all, "clock")), ("good", "good"), "{all:?}");

    // A balancer that sends no PROXY header, where one is expected.
    let proxied = |text: String| local(text) + "use_proxy_protocol: true\n";
    let (code, all) = of_gateway(&gateway, proxied).await;
    assert_eq!((code, grade(&all, "this machine")), (Some(1), "bad"), "{all:?}");

    let nobody = port::reserve().unwrap();
    let issuer = gateway.oidc.issuer.clone();
    let away = |text: String| local(text).replace(&issuer, &format!("http://127.0.0.1:{nobody}"));
    let (code, all) = of_gateway(&gateway, away).await;
    assert_eq!((code, grade(&all, "provider")), (Some(1), "bad"), "{all:?}");

    gateway.stop().await.unwrap();
    let (code, all) = of_gateway(&gateway, local).await;
    assert_eq!((code, grade(&all, "this machine"), grade(&all, "UDP")), (Some(1), "bad", "weak"), "{all:?}");
}
