//! What was allowed stays allowed only as long as the reasons for it hold.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use serde_json::json;
use support::{
    app::App,
    cli::Cli,
    crowd::Crowd,
    echo::Echo,
    gateway::{Gateway, Options, Route},
    http::raw,
    person::Person,
    process::Process,
    wait,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

const DESTINATION: &str = "echo.corp.test:7";

/// Whoever is in the group `staff`.
const STAFF: &str = "[{allow: {and: [{groups: {has: staff}}]}}]";

/// More than all buffers on the way together.
const DOWNLOAD: usize = 1 << 30;

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

    alice.sign_out(&url).await.unwrap();
    assert_eq!(read_all(&mut tunnel).await.unwrap(), 0, "nothing but the end");
    let got = read_all(&mut download).await.unwrap();
    assert!(got < DOWNLOAD, "the whole download came");
    gateway.log().line_with(&["stream ended", "\"reason\":\"session\""]).await.unwrap();
    gateway.log().line_with(&["an answer was cut", "\"reason\":\"session\""]).await.unwrap();
}

/// A client of alice's with live streams, through a gateway whose route has this policy.
async fn live(policy: &str, options: &Options<'_>) -> anyhow::Result<Live> {
    let echo = Echo::start().await?;
    let route = Route::tcp(DESTINATION, echo.address).policy(policy);
    let gateway = Gateway::start_with(std::slice::from_ref(&route), options).await?;
    let cli = Cli::new(&gateway, "alice")?;
    let (client, port) = cli.listen(DESTINATION).await?;
    let crowd = Crowd::open(port, 3).await?;
    Ok(Live { gateway, cli, crowd, route, _client: client, _echo: echo })
}

struct Live {
    gateway: Gateway,
    cli: Cli,
    crowd: Crowd,
    route: Route,
    _client: Process,
    _echo: Echo,
}

impl Live {
    /// All streams end, for this reason in the words of the log.
    async fn ends_for(self, reason: &str) -> Gateway {
        self.crowd.ends().await.unwrap();
        let reason = format!("\"reason\":\"{reason}\"");
        self.gateway.log().line_with(&["stream ended", &reason]).await.unwrap();
        self.gateway
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_what_the_client_has_open() {
    let live = live(STAFF, &Options::default()).await.unwrap();
    live.cli.log_out().await.unwrap();
    live.ends_for("session").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_policy_ends_what_it_no_longer_allows() {
    let mut live = live(STAFF, &Options::default()).await.unwrap();
    let routes = |policy| [live.route.clone().policy(policy)];
    live.gateway.write_routes(&routes("[{allow: {and: [{groups: {has: staff}}, {accept: true}]}}]")).unwrap();
    live.gateway.reload().unwrap();
    live.gateway.log().line_with(&["configuration reloaded"]).await.unwrap();
    assert!(live.crowd.is_whole(), "what is still allowed lives on");
    live.gateway.write_routes(&routes("[{allow: {and: [{groups: {has: admins}}]}}]")).unwrap();
    live.gateway.reload().unwrap();
    live.ends_for("policy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_the_provider_drops_ends_what_it_allowed() {
    // Just above the minute that the gateway refreshes ahead: the first refresh comes within seconds.
    let options = Options { token_life: Duration::from_secs(62), ..Options::default() };
    let live = live(STAFF, &options).await.unwrap();
    live.gateway.change_person("alice", &json!({"groups": ["visitors"]})).await.unwrap();
    live.ends_for("policy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_working_hours_ends_what_they_allowed() {
    let mut live = live(STAFF, &Options::default()).await.unwrap();
    // A few seconds: the streams must be seen to live under the new policy first.
    let now = Timestamp::now();
    let time = |at: Timestamp| at.to_zoned_datetime(TimeZone::UTC).strftime("%H:%M:%S").to_string();
    let (begin, end) = (time(now - Duration::from_secs(3600)), time(now + Duration::from_secs(4)));
    let hours = format!("{{timezone: UTC, after: \"{begin}\", before: \"{end}\"}}");
    let policy = format!("[{{allow: {{and: [{{time_of_day: {hours}}}]}}}}]");
    live.gateway.write_routes(&[live.route.clone().policy(&policy)]).unwrap();
    live.gateway.reload().unwrap();
    live.gateway.log().line_with(&["configuration reloaded"]).await.unwrap();
    assert!(live.crowd.is_whole(), "it is not {end} yet");
    live.ends_for("policy").await;
}
