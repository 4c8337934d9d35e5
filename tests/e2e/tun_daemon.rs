//! TUN mode in the daemon: switched by commands, seen in `status`, gone with it; and names through systemd-resolved.

use std::net::IpAddr;

use support::{
    cli::{Cli, as_person},
    echo::FAREWELL,
    namespace::{inside, ip},
    network::Far,
    process::{Process, run},
    resolved::Resolved,
    wait,
};
use tokio::process::Command;

use crate::tun::{
    DESTINATION, FILE, OUTSIDE_NAME, Parts, RESOLV_CONF, addresses, echoed, follows_the_list, name_server,
    parts, status, watched,
};

/// A daemon that may have the device.
async fn daemon(cli: &Cli, system_bus: Option<&str>) -> anyhow::Result<Process> {
    let daemon = cli.daemon_with(&["--tun"], system_bus)?;
    daemon.errors.line_with("the daemon answers").await?;
    Ok(daemon)
}

async fn reaches(text: &[u8]) {
    let to = wait::until("an address", async || addresses(DESTINATION).await.ok()?.pop()).await.unwrap();
    assert_eq!(echoed(to, text).await.unwrap(), [text, FAREWELL].concat());
}

fn resolv_conf() -> String {
    std::fs::read_to_string(FILE).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_switch_the_daemons_device_and_status_tells_of_it() {
    let story = "tun_daemon::commands_switch_the_daemons_device_and_status_tells_of_it";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let Parts { cli, gateway, echo: _echo } = parts().await.unwrap();
    let _names = name_server("127.0.0.53").await.unwrap();
    // One without the device: the command says so, and would go by itself.
    let mut plain = cli.daemon().unwrap();
    plain.errors.line_with("the daemon answers").await.unwrap();
    let off = cli.said(&["connect", "--tun", "--off"]).await.unwrap_err().to_string();
    assert!(off.contains("no daemon with a network device") && off.contains("daemon --tun"), "{off}");
    plain.signal("TERM").unwrap();
    plain.wait().await.unwrap();

    let mut held = daemon(&cli, None).await.unwrap();
    assert_eq!(status(&cli).await.unwrap()["gateway"], serde_json::Value::Null, "nobody is signed in");
    let on = cli.said(&["connect", "--tun"]).await.unwrap();
    let said = format!("on pomerium0 for https://localhost:{}: 1 hosts, asked for by {FILE}", gateway.port);
    assert!(on.contains(&said), "{on}");
    assert_eq!(cli.sign_ins(), 1);
    reaches(b"by name").await;
    let told = status(&cli).await.unwrap();
    assert_eq!((&told["hosts"], &told["asked_by"]), (&1.into(), &FILE.into()), "{told}");
    // The same again changes nothing; a name that is no route is told, and changes nothing either.
    let device = ip(&["link", "show", "pomerium0"]).await.unwrap();
    cli.said(&["connect", "--tun"]).await.unwrap();
    assert_eq!(ip(&["link", "show", "pomerium0"]).await.unwrap(), device);
    let unknown = cli.said(&["connect", "--tun", "nothing"]).await.unwrap_err().to_string();
    assert!(unknown.contains("no TCP route is called nothing"), "{unknown}");
    reaches(b"still").await;

    cli.said(&["connect", "--tun", "--off"]).await.unwrap();
    assert_eq!(resolv_conf(), RESOLV_CONF);
    assert!(ip(&["link", "show", "pomerium0"]).await.is_err());
    cli.said(&["connect", "--tun", DESTINATION, "--no-dns"]).await.unwrap();
    assert_eq!(resolv_conf(), RESOLV_CONF);
    cli.said(&["connect", "--tun"]).await.unwrap();
    reaches(b"again").await;

    held.signal("TERM").unwrap();
    assert!(held.wait().await.unwrap().success());
    assert_eq!(resolv_conf(), RESOLV_CONF);
    assert!(ip(&["link", "show", "pomerium0"]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_is_on_again_or_leaves_no_trace_after_a_restart() {
    let story = "tun_daemon::a_daemon_that_is_killed_is_on_again_or_leaves_no_trace_after_a_restart";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let Parts { cli, gateway, echo: _echo } = parts().await.unwrap();
    let _names = name_server("127.0.0.53").await.unwrap();
    let routes = ip(&["route", "show", "table", "all"]).await.unwrap();
    let mut held = daemon(&cli, None).await.unwrap();
    cli.said(&["connect", "--tun"]).await.unwrap();
    reaches(b"before").await;

    held.kill().await.unwrap();
    assert_eq!(ip(&["route", "show", "table", "all"]).await.unwrap(), routes);
    assert!(resolv_conf().contains("100.64.0.2"), "what a kill leaves");
    // Whoever is signed in needs to do nothing.
    let mut held = daemon(&cli, None).await.unwrap();
    held.errors.line_with("TUN mode is on").await.unwrap();
    reaches(b"after").await;
    assert_eq!(cli.sign_ins(), 1);

    held.kill().await.unwrap();
    let repaired = cli.said(&["repair"]).await.unwrap();
    assert!(repaired.starts_with("Repaired"), "{repaired}");
    assert_eq!(resolv_conf(), RESOLV_CONF);
    assert_eq!(ip(&["route", "show", "table", "all"]).await.unwrap(), routes);

    // Whoever is not gets the list of name servers as it was, and no window of a browser.
    let mut held = daemon(&cli, None).await.unwrap();
    held.errors.line_with("TUN mode is on").await.unwrap();
    held.kill().await.unwrap();
    cli.log_out().await.unwrap();
    assert!(resolv_conf().contains("100.64.0.2"));
    let _held = daemon(&cli, None).await.unwrap();
    assert_eq!(resolv_conf(), RESOLV_CONF);
    assert_eq!(status(&cli).await.unwrap()["gateway"], serde_json::Value::Null);
    assert_eq!(cli.sign_ins(), 1);
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemons_device_follows_the_gateways_list_and_systemd_resolved_asks_for_it() {
    let story = "tun_daemon::the_daemons_device_follows_the_gateways_list_and_systemd_resolved_asks_for_it";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let _names = name_server("127.0.0.55").await.unwrap();
    let far = Far::new().await.unwrap();
    let _wire = far.wire(0).await.unwrap();
    let resolved = Resolved::start([127, 0, 0, 55].into()).await.unwrap();
    let parts = parts().await.unwrap();
    let _held = daemon(&parts.cli, Some(&resolved.bus)).await.unwrap();
    let on = parts.cli.said(&["connect", "--tun"]).await.unwrap();
    assert!(on.contains("asked for by systemd-resolved"), "{on}");
    follows_the_list(&parts).await;
    assert_eq!(status(&parts.cli).await.unwrap()["hosts"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_without_rights_needs_one_privilege_which_goes_no_further() {
    let story = "tun_daemon::a_person_without_rights_needs_one_privilege_which_goes_no_further";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let Parts { cli, gateway, echo: _echo } = parts().await.unwrap();
    cli.give_away().await.unwrap();
    // As udev makes it; in containers it is root's.
    let folder = tempfile::tempdir().unwrap();
    let (at, device) = (folder.path().display().to_string(), folder.path().join("tun").display().to_string());
    run("mount", &["-t", "tmpfs", "tmpfs", &at]).await.unwrap();
    run("mknod", &["-m", "666", &device, "c", "10", "200"]).await.unwrap();
    run("mount", &["--bind", &device, "/dev/net/tun"]).await.unwrap();
    let mut held = cli.daemon_of_person(None).unwrap();
    held.errors.line_with("the daemon answers").await.unwrap();
    let asked = async |words: &[&str]| {
        let mut command = as_person(&cli.plain(words).unwrap(), &[]);
        let output = wait::within("a command", command.output()).await.unwrap().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    // The list of name servers is root's: said, and nothing is left half done.
    let (is_on, told) = asked(&["connect", "--tun"]).await;
    assert!(!is_on && told.contains("cannot change /etc/resolv.conf") && told.contains("--no-dns"), "{told}");
    assert!(ip(&["link", "show", "pomerium0"]).await.is_err());
    let (is_on, told) = asked(&["connect", "--tun", "--no-dns"]).await;
    assert!(is_on && told.contains("asked for by nobody (--no-dns)"), "{told} {}", cli.trouble());
    let found = Command::new("dig").args(["@100.64.0.2", "+short", "echo.corp.test"]).output().await.unwrap();
    let to: IpAddr = String::from_utf8(found.stdout).unwrap().trim().parse().unwrap();
    assert_eq!(echoed((to, 7).into(), b"mine").await.unwrap(), [&b"mine"[..], FAREWELL].concat());

    // It has the one privilege and no other, and no program that it starts has any.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", held.id().unwrap())).unwrap();
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let of = |set: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert_eq!(
            (of("CapPrm:"), of("CapEff:"), of("CapBnd:"), of("CapAmb:")),
            (1 << 12, 1 << 12, 1 << 12, 0)
        );
    }
    // Another user of the machine cannot switch it, not even root.
    let error = cli.said(&["connect", "--tun", "--off"]).await.unwrap_err().to_string();
    assert!(error.contains("no daemon with a network device"), "{error}");
    let (is_off, told) = asked(&["connect", "--tun", "--off"]).await;
    assert!(is_off, "{told}");

    // systemd-resolved has polkit decide, and where there is none, only root may change what it asks.
    held.kill().await.unwrap();
    let resolved = Resolved::start([127, 0, 0, 55].into()).await.unwrap();
    let held = cli.daemon_of_person(Some(&resolved.bus)).unwrap();
    held.errors.line_with("the daemon answers").await.unwrap();
    let (is_on, told) = asked(&["connect", "--tun"]).await;
    assert!(!is_on && told.contains("systemd-resolved does not take our name server"), "{told}");
    assert!(told.contains("polkit") && ip(&["link", "show", "pomerium0"]).await.is_err(), "{told}");
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_resolved_asks_at_the_device_for_our_hosts_and_elsewhere_for_all_others() {
    let story = "tun_daemon::systemd_resolved_asks_at_the_device_for_our_hosts_and_elsewhere_for_all_others";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let _names = name_server("127.0.0.55").await.unwrap();
    // It asks nobody on a machine without a network.
    let far = Far::new().await.unwrap();
    let _wire = far.wire(0).await.unwrap();
    let mut resolved = Resolved::start([127, 0, 0, 55].into()).await.unwrap();
    let outside = async || {
        wait::until("a name outside", async || addresses(&format!("{OUTSIDE_NAME}:80")).await.ok()).await
    };
    outside().await.unwrap();
    let Parts { cli, gateway, echo: _echo } = parts().await.unwrap();
    let mut held = daemon(&cli, Some(&resolved.bus)).await.unwrap();
    let on = cli.said(&["connect", "--tun"]).await.unwrap();
    assert!(on.contains("asked for by systemd-resolved"), "{on}");
    assert_eq!(resolv_conf(), RESOLV_CONF, "the list of name servers is not touched");
    let ours = watched("pomerium0").await.unwrap();
    outside().await.unwrap();
    reaches(b"by resolved").await;
    ours.output.line_with("echo.corp.test").await.unwrap();
    assert_eq!(ours.output.count(OUTSIDE_NAME), 0, "{}", ours.output.text());

    // Started anew it has forgotten the device, and is told again.
    resolved.restart().await.unwrap();
    reaches(b"after its restart").await;

    // Killed: the device is gone, and what it was told of it.
    held.kill().await.unwrap();
    wait::until("no address", async || addresses(DESTINATION).await.is_err().then_some(())).await.unwrap();
    outside().await.unwrap();
    let mut held = daemon(&cli, Some(&resolved.bus)).await.unwrap();
    reaches(b"again").await;
    cli.said(&["connect", "--tun", "--off"]).await.unwrap();
    assert!(addresses(DESTINATION).await.is_err());
    held.signal("TERM").unwrap();
    assert!(held.wait().await.unwrap().success());
    drop(gateway);
}
