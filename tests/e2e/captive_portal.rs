//! A network that wants people to sign in on a page of its own before it lets anything through.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
};

use support::{
    authority::Authority,
    cli::{Cli, loopback_port},
    echo::{Echo, FAREWELL, exchange},
    gateway::{Gateway, Route},
    namespace::inside,
    network::{Far, NEAR},
    portal::Portal,
    process::{Input, Process},
    wait,
};
use tokio::process::Command;

const RESOLV_CONF: &str = "# nobody is asked\n";
const DESTINATION: &str = "echo.corp.test:7";
const HOST: &str = "authenticate.localhost";

/// A command of the client on the far machine.
fn far_away(far: &Far, cli: &Cli, words: &[&str]) -> anyhow::Result<Command> {
    let own = cli.by_itself(words)?;
    let own = own.as_std();
    let text = |word: &OsStr| word.to_string_lossy().into_owned();
    let all: Vec<String> = std::iter::once(own.get_program()).chain(own.get_args()).map(text).collect();
    let mut command = far.command(&all);
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Ok(command)
}

async fn status(cli: &Cli) -> serde_json::Value {
    let status = cli.said(&["status", "--json"]).await.unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["daemon"]["gateways"][0].clone()
}

/// Waits until the daemon's status has this page, or none.
async fn portal_in_status(cli: &Cli, page: Option<&str>) {
    let wanted = page.map_or(serde_json::Value::Null, Into::into);
    let look = async || (status(cli).await["portal"] == wanted).then_some(());
    wait::until("the portal in the status", look).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captive_portal_is_told_with_its_page_and_passed_as_soon_as_it_lets_through() {
    let story =
        "captive_portal::a_captive_portal_is_told_with_its_page_and_passed_as_soon_as_it_lets_through";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let mut cli = Cli::new(&gateway, "alice").unwrap();
    // Elsewhere than on loopback, `localhost` is not the gateway's.
    cli.speak_to(&gateway, HOST);
    let mut signing_in = cli.command(&["tcp", DESTINATION, "--listen", "-"]).unwrap();
    signing_in.stdin(Stdio::null()).output().await.unwrap();
    assert_eq!(cli.sign_ins(), 1, "{}", cli.trouble());

    let far = Far::new().await.unwrap();
    let wire = far.wire(0).await.unwrap();
    far.join(&wire).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let strangers = Authority::create(folder.path()).unwrap();
    let page =
        "HTTP/1.1 302 Found\r\nLocation: http://wifi.hotel.test/login?room=7\r\nContent-Length: 0\r\n\r\n";
    let at = (Ipv4Addr::LOCALHOST, gateway.port).into();
    let portal = Portal::hold(NEAR, at, &strangers, page).await.unwrap();
    let mut daemon = far_away(&far, &cli, &["daemon"]).unwrap();
    let daemon = Process::spawn("pomerium-cli daemon, far away", &mut daemon, Input::None).unwrap();
    daemon.errors.line_with("the daemon answers").await.unwrap();

    // A command, the status and the doctor say so, each in its way.
    let words = "this network wants you to sign in first";
    let told = cli.said(&["routes"]).await.unwrap_err().to_string();
    let open = "open http://wifi.hotel.test/login?room=7 in the browser";
    assert!(told.contains(words) && told.contains(open) && told.contains("not the gateway's"), "{told}");
    let told = cli.said(&["status"]).await.unwrap();
    assert!(told.contains(words) && told.contains(open) && told.contains("not connected"), "{told}");
    let examined = far_away(&far, &cli, &["doctor"]).unwrap().output().await.unwrap();
    let told = String::from_utf8_lossy(&examined.stdout);
    assert!(told.contains(words) && told.contains("Open http://wifi.hotel.test/login?room=7"), "{told}");

    // One that says it by its status (RFC 6585, 6).
    portal.answers("HTTP/1.1 511 Network Authentication Required\r\nContent-Length: 0\r\n\r\n");
    portal_in_status(&cli, Some(&format!("http://{HOST}/"))).await;

    // A stream that is asked for meanwhile waits for the person to be done there.
    let mut command = cli.plain(&["tcp", DESTINATION, "--listen", "127.0.0.1:0"]).unwrap();
    let client = Process::spawn("pomerium-cli tcp", &mut command, Input::None).unwrap();
    let port = loopback_port(&client, "").await.unwrap();
    let exchanged = exchange(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), b"hello");
    let let_through = async {
        let asked = async || (status(&cli).await["routes"][0]["streams"] == 1).then_some(());
        wait::until("the stream to be asked for", asked).await.unwrap();
        portal.lets_through();
    };
    let (exchanged, ()) =
        Box::pin(wait::within("a stream", async { tokio::join!(exchanged, let_through) })).await.unwrap();
    assert_eq!(exchanged.unwrap(), [b"hello", FAREWELL].concat(), "{}", client.errors.text());
    portal_in_status(&cli, None).await;
    assert_eq!(status(&cli).await["transport"], "tcp");

    let requests = portal.requests();
    assert!(!requests.is_empty());
    for request in requests {
        let request = request.to_ascii_lowercase();
        assert!(request.starts_with("get /.well-known/pomerium/captive-portal http/1.1\r\n"), "{request}");
        assert!(!request.contains("authorization") && !request.contains("cookie"), "{request}");
    }
    assert_eq!(cli.sign_ins(), 1);
}
