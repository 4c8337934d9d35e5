//! `services` and the doors for other programs.

use super::*;

const STORE: &str =
    "databroker_storage_type: file\ndatabroker_storage_connection_string: file:///var/lib/pomerium\n";

#[test]
fn doors_for_other_programs_are_closed_unless_named() {
    let settings = good("").settings;
    assert_eq!(settings.services, Services::All);
    assert!(settings.grpc.is_none() && settings.forward_auth.is_none());
    let parts = good("services: [proxy, authenticate, cache, authorize]\n").settings;
    assert_eq!(parts.services, Services::All);
}

#[test]
fn forward_auth_trusts_loopback_or_whom_the_operator_names() {
    let door = good("forward_auth_address: 127.0.0.1:5480\n").settings.forward_auth.unwrap();
    let trusts = |door: &ForwardAuthDoor, peer: &str| {
        let peer: std::net::IpAddr = peer.parse().unwrap();
        door.trusted_peers.iter().any(|network| network.contains(&peer))
    };
    assert!(trusts(&door, "127.0.0.2") && trusts(&door, "::1") && !trusts(&door, "10.0.0.5"));
    let text = "forward_auth_address: ':5480'\nforward_auth_trusted_peers: [10.0.0.5, 10.1.0.0/24]\n";
    let loaded = good(text);
    let door = loaded.settings.forward_auth.unwrap();
    assert!(trusts(&door, "10.0.0.5") && trusts(&door, "10.1.0.9"));
    assert!(!trusts(&door, "127.0.0.1") && !trusts(&door, "10.0.0.6"));
    assert!(
        loaded.warnings.iter().any(|warning| warning.key == "forward_auth_address"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn authorize_alone_has_a_door_over_tls_and_the_storage_of_another_process() {
    let secret = format!("shared_secret: {SECRET}\n");
    let settings = good(&format!("services: authorize\n{secret}")).settings;
    assert_eq!(settings.services, Services::Authorize);
    let door = settings.grpc.unwrap();
    assert_eq!((door.address.to_string().as_str(), door.tls), ("[::]:443", GrpcTls::Token));
    let text = minimal(&secret);
    let from_environment = read(&text, &[("SERVICES", "authorize")]).unwrap();
    assert_eq!(from_environment.settings.services, Services::Authorize);
}

#[test]
fn callers_over_grpc_prove_themselves_by_token_or_certificate() {
    let secret = format!("shared_secret: {SECRET}\n");
    let tls = |rest: &str| good(&format!("grpc_address: 127.0.0.1:5443\n{rest}")).settings.grpc.unwrap().tls;
    assert_eq!(tls(&secret), GrpcTls::None);
    assert_eq!(tls(&format!("{secret}grpc_insecure: false\n")), GrpcTls::Token);
    assert!(matches!(tls("grpc_client_ca_file: cert.pem\n"), GrpcTls::Mutual(roots) if roots.len() == 1));
}

#[test]
fn doors_that_would_let_strangers_in_are_refused() {
    let secret = format!("shared_secret: {SECRET}\n");
    for (rest, expected) in [
        (
            "forward_auth_address: ':5480'\n",
            "7:1: forward_auth_address: is not a loopback address: name the proxies",
        ),
        ("forward_auth_address: 5480\n", "forward_auth_address: expected a text"),
        ("forward_auth_trusted_peers: [10.0.0.5]\n", "has no effect without forward_auth_address"),
        (
            "forward_auth_address: ':1'\nforward_auth_trusted_peers: [proxy]\n",
            "expected addresses or networks",
        ),
        ("forward_auth_address: ':1'\nforward_auth_trusted_peers: [0.0.0.0/0]\n", "trusts every address"),
        ("services: [authorize, proxy]\n", "services: expected all, authenticate, authorize, proxy, or"),
        ("services: [proxy, databroker]\n", "services: expected all, authenticate, authorize, proxy, or"),
        ("services: databroker\n", "services: expected all, authenticate, authorize, proxy, or"),
        (
            "grpc_address: 127.0.0.1:1\n",
            "callers prove themselves with shared_secret: set it, or grpc_client_ca",
        ),
        ("grpc_address: 127.0.0.1:1\ngrpc_client_ca_file: none.pem\n", "grpc_client_ca_file: cannot read"),
        (
            "grpc_address: 127.0.0.1:1\ngrpc_insecure: true\ngrpc_client_ca_file: cert.pem\n",
            "grpc_insecure: must be false with grpc_client_ca",
        ),
        ("address: 127.0.0.1:1\ngrpc_address: 127.0.0.1:1\n", "grpc_address: must differ from address"),
        (
            "grpc_address: 127.0.0.1:1\nforward_auth_address: 127.0.0.1:1\n",
            "forward_auth_address: must differ from grpc_address",
        ),
        ("services: authorize\ndatabroker_storage_type: memory\n", "reads the sessions of another process"),
    ] {
        let rest =
            if expected.contains("shared_secret") { rest.to_owned() } else { format!("{rest}{secret}") };
        let errors = errors(&rest);
        assert!(errors.contains(expected), "{rest}\n{errors}");
    }
}

#[test]
fn a_proxy_that_asks_names_whom_and_how_it_trusts_them() {
    let asks = |rest: &str| {
        let loaded = good(&format!("services: proxy,authenticate\nshared_secret: {SECRET}\n{STORE}{rest}"));
        assert_eq!(loaded.settings.services, Services::AllButAuthorize);
        (loaded.settings.authorize_service.expect("somebody to ask"), loaded.warnings)
    };
    let (service, warnings) = asks("authorize_service_url: https://authorize.corp.example:5443\n");
    assert_eq!(service.urls[0].as_str(), "https://authorize.corp.example:5443/");
    assert_eq!((service.timeout, service.roots, warnings), (Duration::from_secs(10), None, vec![]));
    let (service, _) = asks(
        "authorize_service_urls: [https://a.corp.example, https://b.corp.example]\ngrpc_client_timeout: 500ms\n\
         certificate_authority_file: cert.pem\noverride_certificate_name: authorize.corp.example\n",
    );
    assert_eq!((service.urls.len(), service.timeout), (2, Duration::from_millis(500)));
    assert_eq!(service.certificate_name.as_deref(), Some("authorize.corp.example"));
    assert_eq!(service.roots.map(|roots| roots.len()), Some(1));
    let (service, warnings) = asks(
        "authorize_service_url: https://public.corp.example\nauthorize_internal_service_url: http://10.0.0.5:5443\n",
    );
    assert_eq!(service.urls[0].as_str(), "http://10.0.0.5:5443/", "the internal one goes before");
    assert!(warnings.iter().any(|warning| warning.message.contains("without TLS")), "{warnings:?}");
}

#[test]
fn one_file_may_serve_both_processes_and_says_nothing_to_one_that_is_both() {
    let rest = format!("shared_secret: {SECRET}\n{STORE}authorize_service_url: https://a.corp.example\n");
    let alone = read(&minimal(&rest), &[("SERVICES", "authorize")]).unwrap();
    assert_eq!((alone.settings.authorize_service, alone.warnings), (None, vec![]));
    let both = good(&rest);
    assert_eq!(both.settings.authorize_service, None);
    assert!(
        both.warnings.iter().any(|warning| warning.key == "authorize_service_url"),
        "{:?}",
        both.warnings
    );
}

#[test]
fn each_part_may_be_a_process_of_its_own() {
    let common = format!("shared_secret: {SECRET}\n{STORE}authorize_service_url: https://a.corp.example\n");
    let read = |services: &str| read(&minimal(&common), &[("SERVICES", services)]).unwrap();
    for (services, signs_in, proxies, asks) in [
        ("all", true, true, false),
        ("authenticate,databroker,proxy", true, true, true),
        ("authenticate", true, false, false),
        ("databroker,authenticate", true, false, false),
        ("proxy", false, true, true),
        ("authorize", false, false, false),
    ] {
        let settings = read(services).settings;
        let read = settings.services;
        assert_eq!((read.signs_in(), read.proxies()), (signs_in, proxies), "{services}");
        assert_eq!(settings.authorize_service.is_some(), asks, "{services}");
    }
}

#[test]
fn a_proxy_that_could_not_ask_does_not_start() {
    let split = format!("services: proxy,authenticate\n{STORE}");
    let with_secret = format!("{split}shared_secret: {SECRET}\n");
    for (rest, expected) in [
        (with_secret.clone(), "authorize_service_url: is missing"),
        (format!("{with_secret}authorize_service_urls: []\n"), "authorize_service_url: is missing"),
        (format!("{split}authorize_service_url: https://a.corp.example\n"), "shared_secret: is missing"),
        (format!("{with_secret}authorize_service_url: a.corp.example\n"), "expected a URL without a path"),
        (format!("{with_secret}authorize_service_url: https://a/b\n"), "expected a URL without a path"),
        (
            format!("{with_secret}authorize_service_url: https://me:secret@a\n"),
            "expected a URL without a path",
        ),
        (
            format!("{with_secret}authorize_service_url: https://a\nauthorize_service_urls: [https://b]\n"),
            "authorize_service_urls: says the same as authorize_service_url",
        ),
        (
            format!("{with_secret}authorize_service_url: https://a\ngrpc_client_timeout: 0\n"),
            "grpc_client_timeout: must not be 0",
        ),
        (
            format!("{with_secret}authorize_service_url: https://a\noverride_certificate_name: a b\n"),
            "override_certificate_name: must be a host name",
        ),
        (
            format!(
                "services: proxy,authenticate\nshared_secret: {SECRET}\ndatabroker_storage_type: memory\n\
                 authorize_service_url: https://a\n"
            ),
            "the authorize service reads the sessions of this process",
        ),
    ] {
        let errors = errors(&rest);
        assert!(errors.contains(expected), "{rest}\n{errors}");
        assert!(!errors.contains("secret@"), "{errors}");
    }
}
