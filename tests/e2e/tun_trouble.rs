//! TUN mode where something is wrong: a full disk, a device that is taken away, packets that no honest machine sends.

use std::path::Path;

use support::{
    echo::FAREWELL,
    namespace::{inside, ip},
    process::{Input, run},
    wait,
};

use crate::tun::{
    DESTINATION, FILE, Parts, RESOLV_CONF, addresses, connected, echoed, name_server, parts, status,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_the_list_of_name_servers_whole() {
    let story = "tun_trouble::a_full_disk_leaves_the_list_of_name_servers_whole";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let Parts { cli, gateway, echo: _echo } = parts().await.unwrap();
    // Two pages, and the list fills the first one to its last octet.
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    run("mount", &["-t", "tmpfs", "-o", "size=8k", "tmpfs", &at]).await.unwrap();
    let list = format!("{RESOLV_CONF}#{}\n", "x".repeat(4096 - RESOLV_CONF.len() - 2));
    let (file, rest) = (folder.path().join("resolv.conf"), folder.path().join("rest"));
    std::fs::write(&file, &list).unwrap();
    std::fs::write(&rest, [0; 4096]).unwrap();
    run("mount", &["--bind", &file.display().to_string(), FILE]).await.unwrap();

    let mut client = cli.spawn(&["connect", "--tun"], Input::None).unwrap();
    assert!(!client.wait().await.unwrap().success());
    let said = client.errors.text();
    assert!(said.contains("cannot change /etc/resolv.conf") && said.contains("No space left"), "{said}");
    assert_eq!(std::fs::read_to_string(FILE).unwrap(), list);
    assert!(ip(&["link", "show", "pomerium0"]).await.is_err());

    // With room it goes, and goes back though the disk has filled up since.
    std::fs::remove_file(&rest).unwrap();
    let mut client = connected(&cli).await.unwrap();
    assert!(std::fs::read_to_string(FILE).unwrap().contains("100.64.0.2"));
    client.signal("INT").unwrap();
    assert!(client.wait().await.unwrap().success());
    assert_eq!(std::fs::read_to_string(FILE).unwrap(), list);
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_leaves_a_list_that_is_whole() {
    let story = "tun_trouble::a_kill_at_any_moment_leaves_a_list_that_is_whole";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let Parts { cli, gateway, echo: _echo } = parts().await.unwrap();
    let mut first = connected(&cli).await.unwrap();
    let changed = std::fs::read_to_string(FILE).unwrap();
    first.signal("INT").unwrap();
    first.wait().await.unwrap();
    // Empty lines at the end say nothing.
    let is_whole = |text: &str| [RESOLV_CONF, &changed].iter().any(|one| one.trim_end() == text.trim_end());
    let device = Path::new("/sys/class/net/pomerium0");
    for killed_by in 0..12 {
        let mut client = cli.spawn(&["connect", "--tun"], Input::None).unwrap();
        let mut seen = 0;
        // Looked at without a pause, and killed a few looks after the device is there: before, while or after the list is changed.
        while seen < killed_by * 2_000 && client.is_running() {
            seen += i32::from(device.exists());
        }
        client.kill().await.unwrap();
        let text = std::fs::read_to_string(FILE).unwrap();
        assert!(is_whole(&text), "{text}");
        cli.said(&["repair"]).await.unwrap();
        assert_eq!(std::fs::read_to_string(FILE).unwrap().trim_end(), RESOLV_CONF.trim_end());
        // An `ip` that was just being started may hold it for a moment more.
        wait::until("no device", async || (!device.exists()).then_some(())).await.unwrap();
    }
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_taken_away_is_told_and_names_are_asked_for_as_before() {
    let story = "tun_trouble::a_device_that_is_taken_away_is_told_and_names_are_asked_for_as_before";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let Parts { cli, gateway, echo: _echo } = parts().await.unwrap();
    let _names = name_server("127.0.0.53").await.unwrap();
    let mut client = connected(&cli).await.unwrap();
    ip(&["link", "del", "pomerium0"]).await.unwrap();
    assert!(!client.wait().await.unwrap().success());
    let said = client.errors.text();
    assert!(said.contains("the network device is gone"), "{said}");
    assert_eq!(std::fs::read_to_string(FILE).unwrap(), RESOLV_CONF);

    let held = cli.daemon_with(&["--tun"], None).unwrap();
    held.errors.line_with("the daemon answers").await.unwrap();
    cli.said(&["connect", "--tun"]).await.unwrap();
    ip(&["link", "del", "pomerium0"]).await.unwrap();
    let trouble =
        wait::until("the trouble", async || status(&cli).await.ok()?["trouble"].as_str().map(str::to_owned));
    let trouble = trouble.await.unwrap();
    assert!(trouble.contains("the network device is gone"), "{trouble}");
    assert_eq!(std::fs::read_to_string(FILE).unwrap(), RESOLV_CONF);
    cli.said(&["connect", "--tun"]).await.unwrap();
    let to = addresses(DESTINATION).await.unwrap()[0];
    assert_eq!(echoed(to, b"again").await.unwrap(), [b"again", FAREWELL].concat());
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_no_honest_machine_sends_are_dropped_and_counted() {
    let story = "tun_trouble::packets_that_no_honest_machine_sends_are_dropped_and_counted";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let Parts { cli, gateway, echo } = parts().await.unwrap();
    let _names = name_server("127.0.0.53").await.unwrap();
    let held = cli.daemon_with(&["--tun"], None).unwrap();
    held.errors.line_with("the daemon answers").await.unwrap();
    cli.said(&["connect", "--tun"]).await.unwrap();
    let to = *addresses(DESTINATION).await.unwrap().iter().find(|to| to.is_ipv4()).unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/bad_packets.py");
    let (address, program) = (to.ip().to_string(), program.display().to_string());
    run("/usr/bin/python3", &[&program, "pomerium0", &address, "7"]).await.unwrap();

    let dropped = wait::until("all of them counted", async || {
        let dropped = status(&cli).await.ok()?["dropped"].clone();
        dropped["too many half-open connections"].as_u64().map(|_| dropped)
    });
    // Those came last.
    let dropped = dropped.await.unwrap();
    for (reason, count) in [("fragment", 10), ("bad checksum", 20), ("martian", 30), ("truncated", 40)] {
        assert!(dropped[reason].as_u64().is_some_and(|counted| counted >= count), "{reason}: {dropped}");
    }
    assert!(dropped["foreign destination"].as_u64().is_none_or(|count| count < 100), "{dropped}");
    assert!(echo.0.dials() < 3000, "{} of 5000 strangers were let through", echo.0.dials());

    // An honest one still gets through, and a person can read it all.
    wait::until("an echo", async || echoed(to, b"honest").await.ok()).await.unwrap();
    let told = cli.said(&["status"]).await.unwrap();
    assert!(told.contains("TUN mode on pomerium0") && told.contains("10 fragment"), "{told}");
    drop(gateway);
}
