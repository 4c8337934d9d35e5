use std::time::Duration;

use super::{super::facts::Provider, *};

/// A gateway behind nothing, where all is well.
fn healthy() -> Facts {
    Facts {
        sign_in_host: "auth.example".to_owned(),
        port: 443,
        speaks_quic: true,
        use_proxy_protocol: false,
        provider: Provider {
            issuer: "https://id.example".to_owned(),
            redirect: "https://auth.example/oauth2/callback".to_owned(),
            discovery: Ok(()),
            answer: Some(Answer::GoesOn),
            clock_ahead: Some(1),
        },
        addresses: Ok(vec![[203, 0, 113, 7].into()]),
        is_this_machine: true,
        here: Door::Ours,
        outside: Door::Ours,
        udp: Ok(Duration::from_millis(3)),
        buffers: Some((4 << 20, 4 << 20)),
        store: Store::Folder { path: "/var/lib/gateway".into(), opened: Ok(()) },
        certificates: vec![Certificate {
            name: "*.example".to_owned(),
            left: Some(80 * DAY_SECS),
            is_begun: true,
        }],
        has_autocert: false,
        uncovered: Vec::new(),
    }
}

#[test]
fn a_healthy_gateway_gets_good_marks_alone() {
    let findings = check(&healthy());
    assert!(findings.iter().all(|finding| finding.grade == Grade::Good), "{}", Finding::text(&findings));
}

#[test]
fn each_trouble_is_one_finding_with_its_next_step() {
    type Change = fn(&mut Facts);
    let cases: [(Change, &str, Grade, &str); 19] = [
        (|f| f.provider.discovery = Err("x".to_owned()), "provider", Grade::Bad, "idp_provider_url"),
        (
            |f| f.provider.answer = Some(Answer::NoSuchRedirect),
            "redirect address",
            Grade::Bad,
            "https://auth.example/oauth2/callback",
        ),
        (
            |f| f.provider.answer = Some(Answer::Refuses("x".to_owned())),
            "redirect address",
            Grade::Bad,
            "idp_client_id",
        ),
        (
            |f| f.provider.answer = Some(Answer::Silent("x".to_owned())),
            "redirect address",
            Grade::Weak,
            "browser",
        ),
        (|f| f.provider.clock_ahead = Some(-70), "clock", Grade::Bad, "timedatectl"),
        (|f| f.certificates[0].left = Some(-1), "certificate", Grade::Bad, "Renew"),
        (|f| f.certificates[0].left = Some(DAY_SECS), "certificate", Grade::Weak, "Renew"),
        (|f| f.certificates[0].is_begun = false, "certificate", Grade::Bad, "clock"),
        (|f| f.uncovered = vec!["db.example".to_owned()], "names", Grade::Bad, "autocert"),
        (|f| f.store = Store::Memory, "store", Grade::Weak, "databroker_storage_type"),
        (
            |f| f.store = Store::Folder { path: "/x".into(), opened: Err("denied".to_owned()) },
            "store",
            Grade::Bad,
            "user that the gateway runs as",
        ),
        (
            |f| f.store = Store::Postgres { opened: Err("refused".to_owned()) },
            "store",
            Grade::Bad,
            "databroker_storage_connection_string",
        ),
        (|f| f.here = Door::OtherCertificate, "this machine", Grade::Bad, "ss -ltnp"),
        (|f| f.outside = Door::Closed("refused".to_owned()), "way in", Grade::Bad, "firewalls"),
        (|f| f.outside = Door::OtherCertificate, "way in", Grade::Bad, "TCP mode"),
        (|f| f.outside = Door::NoTls("eof".to_owned()), "way in", Grade::Bad, "use_proxy_protocol: true"),
        (|f| f.is_this_machine = false, "clients' addresses", Grade::Weak, "PROXY header"),
        (|f| f.udp = Err("no answer".to_owned()), "UDP", Grade::Weak, "Open UDP 443"),
        (|f| f.speaks_quic = false, "UDP", Grade::Weak, "codec_type"),
    ];
    for (change, about, grade, step) in cases {
        let mut facts = healthy();
        change(&mut facts);
        let news: Vec<_> = check(&facts).into_iter().filter(|finding| finding.grade != Grade::Good).collect();
        let [finding] = news.as_slice() else { panic!("not one finding: {news:?}") };
        assert_eq!((finding.about, finding.grade), (about, grade), "{finding:?}");
        assert!(finding.to_do.as_ref().is_some_and(|to_do| to_do.contains(step)), "{finding:?}");
    }
}

#[test]
fn behind_a_balancer_its_header_is_what_is_looked_for() {
    let behind = Facts { use_proxy_protocol: true, is_this_machine: false, ..healthy() };
    assert_eq!(Finding::bad(&check(&behind)), 0);
    let cut = Facts { outside: Door::NoTls("eof".to_owned()), ..behind };
    let told = Finding::text(&check(&cut));
    assert!(told.contains("send-proxy-v2"), "{told}");
}

#[test]
fn a_host_that_autocert_cares_for_is_no_trouble() {
    let facts = Facts { has_autocert: true, uncovered: vec!["db.example".to_owned()], ..healthy() };
    assert_eq!(Finding::bad(&check(&facts)), 0);
}
