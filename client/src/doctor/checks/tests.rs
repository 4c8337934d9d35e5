use super::{
    super::facts::{Certificate, Device, Dns, Quic, Tunnel},
    *,
};

/// A machine on which all is well.
fn healthy() -> Facts {
    Facts {
        gateway: "https://gate.example".to_owned(),
        host: "gate.example".to_owned(),
        port: 443,
        dns: Dns { writer: Writer::Resolved, servers: vec![[127, 0, 0, 53].into()] },
        addresses: Seen::Got((vec![([203, 0, 113, 7], 443).into()], Duration::from_millis(12))),
        tunnels: Vec::new(),
        device: Some(Device { name: "wlan0".to_owned(), mtu: Some(1500) }),
        tcp: Seen::Got(Duration::from_millis(20)),
        certificate: Seen::Got(Certificate { left: Some(60 * DAY_SECS) }),
        clock_ahead: Some(0),
        is_gateway: Some(true),
        portal: None,
        udp: Seen::Got(Quic { took: Duration::from_millis(22), mtu: 1452 }),
        buffers: Some(Buffers { receive: 4 << 20, send: 4 << 20 }),
        proxies: Vec::new(),
        no_proxy: None,
        daemon: None,
        keyring: Seen::Got(()),
        person: Some("alice@corp.example".to_owned()),
    }
}

/// The one finding that differs from those of a healthy machine.
fn only_news(change: impl FnOnce(&mut Facts)) -> Finding {
    let mut facts = healthy();
    change(&mut facts);
    let bad: Vec<Finding> =
        check(&facts).into_iter().filter(|finding| finding.grade != Grade::Good).collect();
    let [finding] = bad.try_into().unwrap_or_else(|all: Vec<_>| panic!("not one finding: {all:?}"));
    finding
}

#[test]
fn a_healthy_machine_gets_good_marks_alone() {
    let findings = check(&healthy());
    assert!(findings.iter().all(|finding| finding.grade == Grade::Good), "{}", Finding::text(&findings));
    assert!(Finding::text(&findings).ends_with("Nothing is in the way.\n"));
}

#[test]
fn each_trouble_is_one_finding_with_its_next_step() {
    type Change = fn(&mut Facts);
    let cases: [(Change, &str, Grade, &str); 20] = [
        (
            |f| f.portal = Some("http://wifi.example/".to_owned()),
            "captive portal",
            Grade::Bad,
            "Open http://wifi.example/",
        ),
        (|f| f.dns.writer = Writer::Missing, "name servers", Grade::Bad, "systemd-resolved"),
        (|f| f.dns.writer = Writer::Ours, "name servers", Grade::Weak, "pomerium-cli repair"),
        (|f| f.dns.servers.clear(), "name servers", Grade::Bad, "nameserver"),
        (|f| f.addresses = Seen::Failed("unknown".to_owned()), "name", Grade::Bad, "nslookup gate.example"),
        (|f| f.addresses = Seen::Got((Vec::new(), Duration::from_secs(2))), "name", Grade::Weak, "slow"),
        (
            |f| {
                f.tunnels = vec![Tunnel { name: "wg0".to_owned(), kind: "wireguard" }];
                f.device = Some(Device { name: "wg0".to_owned(), mtu: Some(1420) });
            },
            "other VPN",
            Grade::Weak,
            "except the gateway",
        ),
        (|f| f.tcp = Seen::Failed("timed out".to_owned()), "TCP", Grade::Bad, "this network blocks it"),
        (
            |f| f.certificate = Seen::Failed("expired".to_owned()),
            "certificate",
            Grade::Bad,
            "--alternate-ca-path",
        ),
        (
            |f| f.certificate = Seen::Got(Certificate { left: Some(DAY_SECS) }),
            "certificate",
            Grade::Weak,
            "renewed",
        ),
        (|f| f.is_gateway = Some(false), "gateway", Grade::Bad, "Wi-Fi"),
        (|f| f.clock_ahead = Some(-31), "clock", Grade::Weak, "timedatectl"),
        (|f| f.clock_ahead = Some(4000), "clock", Grade::Bad, "timedatectl"),
        (|f| f.udp = Seen::Failed("no answer".to_owned()), "UDP", Grade::Weak, "UDP to port 443"),
        (
            |f| f.udp = Seen::Got(Quic { took: Duration::ZERO, mtu: 1200 }),
            "packet size",
            Grade::Weak,
            "narrow",
        ),
        (
            |f| f.buffers = Some(Buffers { receive: 425_984, send: 4 << 20 }),
            "socket buffers",
            Grade::Weak,
            "rmem_max",
        ),
        (
            |f| f.proxies = vec![("https_proxy".to_owned(), "x".to_owned())],
            "proxy variables",
            Grade::Weak,
            "no_proxy",
        ),
        (|f| f.daemon = Some("0.0.9".to_owned()), "daemon", Grade::Weak, "restart"),
        (|f| f.keyring = Seen::Failed("it is locked".to_owned()), "keyring", Grade::Weak, "Unlock"),
        (|f| f.person = None, "session", Grade::Weak, "pomerium-cli login https://gate.example"),
    ];
    for (change, about, grade, step) in cases {
        let finding = only_news(change);
        assert_eq!((finding.about, finding.grade), (about, grade), "{finding:?}");
        assert!(finding.to_do.as_ref().is_some_and(|to_do| to_do.contains(step)), "{finding:?}");
    }
}

#[test]
fn a_narrow_device_is_told_by_its_name() {
    let finding = only_news(|facts| facts.device = Some(Device { name: "ppp0".to_owned(), mtu: Some(1200) }));
    assert!(finding.says.contains("ppp0") && finding.to_do.unwrap().contains("ip link set ppp0"));
}

#[test]
fn what_does_no_harm_is_not_complained_of() {
    let mut facts = healthy();
    facts.tunnels = vec![Tunnel { name: "tun3".to_owned(), kind: "tun" }];
    facts.proxies = vec![("http_proxy".to_owned(), "http://me:secret@proxy:3128".to_owned())];
    facts.no_proxy = Some("corp.example, 127.0.0.1".to_owned());
    let told = Finding::text(&check(&facts));
    assert!(
        told.contains("tun3 (tun), not on the way") && told.ends_with("Nothing is in the way.\n"),
        "{told}"
    );
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn without_a_network_the_first_bad_line_is_the_cause() {
    let facts = Facts { host: "gate.example".to_owned(), ..Facts::default() };
    let findings = check(&facts);
    assert_eq!(findings[0].about, "name servers");
    let told =
        Finding::text(&check(&Facts { addresses: Seen::Failed("no".to_owned()), ..healthy_but_cut() }));
    let first = told.lines().find(|line| line.starts_with("BAD")).unwrap();
    assert!(first.contains("gate.example has no address"), "{told}");
    assert!(told.contains("not tried, for what it needs failed"), "{told}");
}

fn healthy_but_cut() -> Facts {
    let blank = Facts::default();
    Facts {
        tcp: blank.tcp,
        certificate: blank.certificate,
        udp: blank.udp,
        is_gateway: None,
        clock_ahead: None,
        device: None,
        ..healthy()
    }
}
