//! Measures how soon live streams end when the reason they were allowed goes away: from the change to each stream's end
//! as the program behind the client sees it.
#![forbid(unsafe_code)]

use std::time::Duration;

use jiff::{Timestamp, Unit, tz::TimeZone};
use serde_json::json;
use support::{
    cli::Cli,
    crowd::Crowd,
    echo::Echo,
    gateway::{Gateway, Options, Route},
    process::Process,
    wait::until,
};
use tokio::time::Instant;

/// What the gateway logs of a report.
const REPORTED: &str = "a device reported its state";

const DESTINATION: &str = "bench.corp.test:9";

/// Whoever is in the group `staff`.
const STAFF: &str = "[{allow: {and: [{groups: {has: staff}}]}}]";

/// Whoever is on a device that locks its screen.
const LOCKED: &str = "[{allow: {and: [{posture/screen_lock: 1}]}}]";

/// Whoever is in a group that nobody is in.
const ADMINS: &str = "[{allow: {and: [{groups: {has: admins}}]}}]";

struct Live {
    gateway: Gateway,
    cli: Cli,
    crowd: Crowd,
    route: Route,
    _client: Process,
    _echo: Echo,
}

async fn live(streams: usize, options: &Options<'_>) -> anyhow::Result<Live> {
    live_by(STAFF, streams, options).await
}

async fn live_by(policy: &str, streams: usize, options: &Options<'_>) -> anyhow::Result<Live> {
    let echo = Echo::start().await?;
    let route = Route::tcp(DESTINATION, echo.address).policy(policy);
    let gateway = Box::pin(Gateway::start_with(std::slice::from_ref(&route), options)).await?;
    let cli = Cli::new(&gateway, "alice")?;
    let (client, port) = cli.listen(DESTINATION).await?;
    let crowd = Crowd::open(port, streams).await?;
    Ok(Live { gateway, cli, crowd, route, _client: client, _echo: echo })
}

/// The person ends the session of this machine: from the command's beginning.
async fn logged_out(streams: usize) -> anyhow::Result<Vec<Duration>> {
    let live = live(streams, &Options::default()).await?;
    let change = Instant::now();
    let (left, ends) = tokio::join!(live.cli.log_out(), live.crowd.ends());
    left?;
    Ok(since(change, &ends?))
}

/// The operator changes the policy and sends SIGHUP: from the signal.
async fn policy_changed(streams: usize) -> anyhow::Result<Vec<Duration>> {
    let live = live(streams, &Options::default()).await?;
    live.gateway.write_routes(&[live.route.clone().policy(ADMINS)])?;
    live.gateway.reload()?;
    let change = Instant::now();
    Ok(since(change, &live.crowd.ends().await?))
}

/// The provider drops a group: from the moment at which it has told so on a refresh.
async fn group_dropped(streams: usize) -> anyhow::Result<Vec<Duration>> {
    let options = Options { token_life: Duration::from_secs(75), ..Options::default() };
    let live = live(streams, &options).await?;
    live.gateway.change_person("alice", &json!({"groups": ["visitors"]})).await?;
    live.gateway.oidc.process.output.line_with("granted refresh_token").await?;
    let change = Instant::now();
    Ok(since(change, &live.crowd.ends().await?))
}

/// The device stops locking its screen: from the moment at which its report has come.
async fn posture_bad(streams: usize) -> anyhow::Result<Vec<Duration>> {
    let live = live_by(LOCKED, streams, &Options::default()).await?;
    let reports = live.gateway.log().count(REPORTED);
    live.cli.lock_screen(false)?;
    until("the device's report", async || (live.gateway.log().count(REPORTED) > reports).then_some(()))
        .await?;
    let change = Instant::now();
    Ok(since(change, &live.crowd.ends().await?))
}

/// Working hours end: from the second at which they do.
async fn hours_over(streams: usize) -> anyhow::Result<Vec<Duration>> {
    let live = live(streams, &Options::default()).await?;
    let now = Timestamp::now();
    let end = (now + Duration::from_secs(5)).round(Unit::Second)?;
    let time = |at: Timestamp| at.to_zoned_datetime(TimeZone::UTC).strftime("%H:%M:%S").to_string();
    let (begin, before) = (time(now - Duration::from_secs(3600)), time(end));
    let hours = format!("{{timezone: UTC, after: \"{begin}\", before: \"{before}\"}}");
    let policy = format!("[{{allow: {{and: [{{time_of_day: {hours}}}]}}}}]");
    live.gateway.write_routes(&[live.route.clone().policy(&policy)])?;
    live.gateway.reload()?;
    let change = Instant::now() + Duration::try_from(end.duration_since(Timestamp::now()))?;
    Ok(since(change, &live.crowd.ends().await?))
}

fn since(change: Instant, ends: &[Instant]) -> Vec<Duration> {
    ends.iter().map(|end| end.saturating_duration_since(change)).collect()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let streams: usize = std::env::var("BENCH_STREAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    print_head(streams);
    print_row("logged out", &Box::pin(logged_out(streams)).await?);
    print_row("policy changed", &Box::pin(policy_changed(streams)).await?);
    print_row("hours over", &Box::pin(hours_over(streams)).await?);
    print_row("posture bad", &Box::pin(posture_bad(streams)).await?);
    print_row("group dropped", &Box::pin(group_dropped(streams)).await?);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn print_head(streams: usize) {
    println!("{streams} live streams; milliseconds from the change to a stream's end\n");
    println!("{:16} {:>8} {:>8} {:>8}", "change", "median", "p99", "last");
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn print_row(name: &str, sorted: &[Duration]) {
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted.get(rank).map_or(0, Duration::as_millis)
    };
    println!("{name:16} {:>8} {:>8} {:>8}", at(50), at(99), at(100));
}
