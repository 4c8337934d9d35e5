//! Networks as they are: a machine that moves, a network that is gone for a while, one that loses packets, one without UDP.
//!
//! Each story has ssh on the far machine, whose `cat` sends back what it gets, all through one connection of the client.

use std::time::Duration;

use anyhow::ensure;
use support::{
    cat::{Cat, PAUSE},
    cli::{Cli, loopback_port},
    gateway::{Gateway, Route},
    namespace::inside,
    network::{Far, Weather, Wire, signed_in},
    process::{Input, Process},
    sshd::Sshd,
    wait,
};
use tokio::time::{Instant, sleep};

const RESOLV_CONF: &str = "# nobody is asked\n";
const DESTINATION: &str = "ssh.corp.test:22";

/// On a network that carries little.
const LONG_PAUSE: Duration = Duration::from_millis(200);

/// Both machines: the gateway, and the client with a port that leads to ssh.
struct Parts {
    sshd: Sshd,
    gateway: Gateway,
    cli: Cli,
    far: Far,
    wires: [Wire; 2],
    client: Process,
    port: u16,
}

async fn parts() -> anyhow::Result<Parts> {
    let sshd = Sshd::start().await?;
    let (gateway, cli) = signed_in(&[Route::tcp(DESTINATION, sshd.address)], DESTINATION).await?;
    let far = Far::new().await?;
    let wires = [far.wire(0).await?, far.wire(1).await?];
    far.join(&wires[0]).await?;
    let mut command = far.command(&cli.words(&["tcp", DESTINATION, "--listen", "127.0.0.1:0"])?);
    cli.environment(&mut command);
    command.env("RUST_LOG", "pomerium_cli=debug");
    let client = Process::spawn("pomerium-cli, far away", &mut command, Input::None)?;
    let port = loopback_port(&client, "").await?;
    Ok(Parts { sshd, gateway, cli, far, wires, client, port })
}

impl Parts {
    fn ssh(&self, words: &[&str]) -> tokio::process::Command {
        let mut all = vec!["ssh".to_owned(), "-p".to_owned(), self.port.to_string()];
        all.extend(self.sshd.client_options("ssh.corp.test"));
        all.push("root@127.0.0.1".to_owned());
        all.extend(words.iter().map(|&word| word.to_owned()));
        self.far.command(&all)
    }

    async fn transfer(&self, pause: Duration) -> anyhow::Result<Cat> {
        Cat::begin(self.ssh(&["cat"]), pause).await
    }

    /// A second stream, from its beginning to its end.
    async fn second_stream(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let output = wait::within("a second ssh", self.ssh(&["echo", "inside"]).output()).await??;
        ensure!(output.stdout == b"inside\n", "{}", String::from_utf8_lossy(&output.stderr));
        Ok(began.elapsed())
    }
}

fn tell(story: &str, figures: &str) {
    eprintln!("{story}: {figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_goes_on_when_the_machine_changes_address_and_interface() {
    let story = "network::ssh_goes_on_when_the_machine_changes_address_and_interface";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let parts = parts().await.unwrap();
    let transfer = parts.transfer(PAUSE).await.unwrap();
    let mut waits = Vec::new();
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        transfer.first_octet().await.unwrap();
        parts.far.leave(&parts.wires[from]).await.unwrap();
        parts.far.join(&parts.wires[to]).await.unwrap();
        waits.push(transfer.first_octet().await.unwrap());
    }
    let (sent, lost) = transfer.finish().await.unwrap();
    tell("after a change of address", &format!("first octet after {waits:?}; {lost} of {sent} octets lost"));
    assert_eq!(lost, 0);
    assert!(waits.iter().all(|wait| *wait < Duration::from_secs(5)), "{waits:?}");
    assert_eq!(parts.gateway.log().count("quic connection opened"), 2, "sign-in, and one for all of this");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_goes_on_after_twenty_seconds_without_a_network() {
    let story = "network::ssh_goes_on_after_twenty_seconds_without_a_network";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let parts = parts().await.unwrap();
    let delay = Weather { delay: Duration::from_millis(40), ..Weather::FINE };
    parts.wires[0].weather(delay);
    let transfer = parts.transfer(PAUSE).await.unwrap();
    transfer.first_octet().await.unwrap();
    parts.wires[0].weather(Weather::DEAD);
    // This is the story, not a wait for something.
    sleep(Duration::from_secs(20)).await;
    parts.wires[0].weather(delay);
    let wait = transfer.first_octet().await.unwrap();
    let (sent, lost) = transfer.finish().await.unwrap();
    tell(
        "after 20 s without a network",
        &format!("first octet after {wait:?}; {lost} of {sent} octets lost"),
    );
    assert_eq!(lost, 0);
    assert!(wait < Duration::from_secs(10), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_goes_on_where_packets_are_lost_late_and_out_of_order() {
    let story = "network::ssh_goes_on_where_packets_are_lost_late_and_out_of_order";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let parts = parts().await.unwrap();
    let bad = Weather {
        delay: Duration::from_millis(80),
        lost_percent: 5,
        overtaking_percent: 25,
        ..Weather::FINE
    };
    parts.wires[0].weather(bad);
    let transfer = parts.transfer(LONG_PAUSE).await.unwrap();
    transfer.returned(256 * 1024).await.unwrap();
    let (sent, lost) = transfer.finish().await.unwrap();
    tell("with 5 % loss, 80 ms and reordering", &format!("{lost} of {sent} octets lost"));
    assert_eq!(lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_streams_go_by_tcp_where_udp_is_cut_off_and_the_old_one_is_not_lost() {
    let story = "network::new_streams_go_by_tcp_where_udp_is_cut_off_and_the_old_one_is_not_lost";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let parts = parts().await.unwrap();
    let transfer = parts.transfer(PAUSE).await.unwrap();
    transfer.first_octet().await.unwrap();
    parts.wires[0].weather(Weather { udp: false, ..Weather::FINE });
    let first = parts.second_stream().await.unwrap();
    let second = parts.second_stream().await.unwrap();
    parts.client.errors.line_with("using TLS over TCP").await.unwrap();
    parts.wires[0].weather(Weather::FINE);
    let wait = transfer.first_octet().await.unwrap();
    let (sent, lost) = transfer.finish().await.unwrap();
    tell(
        "without UDP",
        &format!(
            "ssh by TCP took {first:?}, then {second:?}; the old stream went on {wait:?} after UDP came back; {lost} of {sent} octets lost"
        ),
    );
    assert_eq!(lost, 0);
    assert!(first < Duration::from_secs(10) && second < Duration::from_secs(5), "{first:?}, {second:?}");
    assert_eq!(parts.cli.sign_ins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_moves_to_tcp_where_udp_is_cut_off_in_the_middle() {
    let story = "network::ssh_moves_to_tcp_where_udp_is_cut_off_in_the_middle";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let parts = parts().await.unwrap();
    let transfer = parts.transfer(PAUSE).await.unwrap();
    transfer.first_octet().await.unwrap();
    parts.wires[0].weather(Weather { udp: false, ..Weather::FINE });
    let wait = transfer.first_octet().await.unwrap();
    parts.gateway.log().line_with(&["stream attached", "\"protocol\":\"h1\""]).await.unwrap();
    let (sent, lost) = transfer.finish().await.unwrap();
    tell("moved to TCP", &format!("first octet after {wait:?}; {lost} of {sent} octets lost"));
    assert_eq!(lost, 0);
    assert!(wait < Duration::from_secs(20), "{wait:?}");
    assert_eq!(parts.cli.sign_ins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_by_tcp_goes_on_when_the_machine_changes_address_and_interface() {
    let story = "network::ssh_by_tcp_goes_on_when_the_machine_changes_address_and_interface";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let parts = parts().await.unwrap();
    parts.wires.iter().for_each(|wire| wire.weather(Weather { udp: false, ..Weather::FINE }));
    let transfer = parts.transfer(PAUSE).await.unwrap();
    transfer.first_octet().await.unwrap();
    parts.far.leave(&parts.wires[0]).await.unwrap();
    parts.far.join(&parts.wires[1]).await.unwrap();
    let wait = transfer.first_octet().await.unwrap();
    let (sent, lost) = transfer.finish().await.unwrap();
    tell(
        "a change of address under TCP",
        &format!("first octet after {wait:?}; {lost} of {sent} octets lost"),
    );
    assert_eq!(lost, 0);
    parts.gateway.log().line_with(&["stream attached"]).await.unwrap();
    assert_eq!(parts.cli.sign_ins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_goes_on_after_a_network_that_was_gone_for_longer_than_any_connection_lives() {
    let story = "network::ssh_goes_on_after_a_network_that_was_gone_for_longer_than_any_connection_lives";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let parts = parts().await.unwrap();
    let transfer = parts.transfer(PAUSE).await.unwrap();
    transfer.first_octet().await.unwrap();
    parts.wires[0].weather(Weather::DEAD);
    // This is the story, not a wait for something: both ends give the connection up.
    sleep(Duration::from_secs(75)).await;
    parts.gateway.log().line_with(&["stream parked"]).await.unwrap();
    parts.wires[0].weather(Weather::FINE);
    let wait = transfer.first_octet().await.unwrap();
    let (sent, lost) = transfer.finish().await.unwrap();
    tell(
        "after a network that was long gone",
        &format!("first octet after {wait:?}; {lost} of {sent} octets lost"),
    );
    assert_eq!(lost, 0);
    parts.gateway.log().line_with(&["stream attached"]).await.unwrap();
    assert_eq!(parts.cli.sign_ins(), 1);
}
