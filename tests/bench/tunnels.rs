//! Measures ways into a network side by side: TUN mode and a forward of the client, beside `wireguard-go`, `boringtun-cli`,
//! `ssh -L` and no tunnel at all; on a cable, and on a path of 40 ms that loses a packet in a hundred.
//!
//! Runs on the machine with the apps (`tunnels.sh` makes it); the other machine is [`support::network::Far`].
#![forbid(unsafe_code)]

#[path = "tunnels/measure.rs"]
mod measure;
#[path = "tunnels/ways.rs"]
mod ways;

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Context as _;
use support::{
    network::{Far, Weather, Wire},
    process::{Input, Process},
    wait::until,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
    task::JoinSet,
};

use measure::Figures;
use ways::Way;

/// 20 ms either way.
const BAD: Weather = Weather { delay: Duration::from_millis(20), lost_percent: 1, ..Weather::FINE };

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    if let [_, word, host, port, count] = &words[..]
        && word == measure::ASK
    {
        return measure::ask_many(host, port.parse()?, count.parse()?).await;
    }
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ways::ASK_PORT)).await?;
    let mut server = JoinSet::new();
    server.spawn(answer(listener));
    for (weather, name) in [(None, "a cable"), (Some(BAD), "40 ms there and back, 1 % lost each way")] {
        Box::pin(compare(weather, name, seconds)).await.with_context(|| name)?;
    }
    Ok(())
}

/// All ways, one after the other.
#[expect(clippy::print_stdout, reason = "the measurements are what this program is for")]
async fn compare(weather: Option<Weather>, name: &str, seconds: u64) -> anyhow::Result<()> {
    println!(
        "\n{name}; Mbit/s of {seconds} s, processor seconds per GiB, first octet of a new stream (median, ms)\n"
    );
    println!(
        "| way | 1 up | 8 up | 1 down | 8 down | s/GiB | open |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    let far = Far::new().await?;
    let _wire = join(&far, weather).await?;
    for way in Way::ALL {
        // Its own: what the one before left of a test would keep a server busy.
        let free = until("the port of iperf3", async || {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, ways::IPERF_PORT)).await.ok()
        });
        drop(free.await?);
        let mut iperf = Command::new("iperf3");
        iperf.args(["-s", "-p", &ways::IPERF_PORT.to_string()]);
        let _iperf = Process::spawn("iperf3 -s", &mut iperf, Input::None)?;
        let figures = async {
            let up = way.up(&far).await?;
            measure::all(&far, &up, seconds).await
        };
        let figures: Figures = Box::pin(figures).await.with_context(|| way.name())?;
        let [one_up, eight_up, one_down, eight_down] = figures.rates;
        println!(
            "| {} | {one_up:.0} | {eight_up:.0} | {one_down:.0} | {eight_down:.0} | {:.1} | {:.2} |",
            way.name(),
            figures.processor_seconds_per_gibibyte,
            figures.opening.as_secs_f64() * 1e3
        );
    }
    Ok(())
}

/// Connects the far machine: by a cable, or by a wire with weather, which lasts as long as it is held.
async fn join(far: &Far, weather: Option<Weather>) -> anyhow::Result<Option<Wire>> {
    let Some(weather) = weather else {
        far.cable().await?;
        return Ok(None);
    };
    let wire = far.wire(0).await?;
    far.join(&wire).await?;
    wire.weather(weather);
    Ok(Some(wire))
}

/// Answers an octet with one.
async fn answer(listener: TcpListener) {
    let mut streams = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        // One that breaks off shows at its other end.
        streams.spawn(async move {
            let octet = stream.read_u8().await?;
            stream.write_u8(octet).await
        });
        while streams.try_join_next().is_some() {}
    }
}
