use super::*;

#[test]
fn wireguard_is_off_unless_it_has_an_address() {
    assert!(good("").settings.wireguard.is_none());
    let loaded = good("wireguard_session_grace: 5m\n");
    assert!(loaded.settings.wireguard.is_none());
    assert!(loaded.warnings[0].to_string().contains("has no effect without wireguard_address"));
}

#[test]
fn what_is_not_said_of_wireguard_follows_from_the_rest() {
    let settings = good("wireguard_address: ':51820'\n").settings.wireguard.unwrap();
    assert_eq!(settings.endpoint.to_string(), "auth.corp.example:51820");
    assert_eq!(settings.networks.gateway().v4.to_string(), "100.64.0.1");
    assert_eq!((settings.peers_per_user.get(), settings.session_grace), (5, Duration::ZERO));
    assert!(settings.private_key.is_none() && settings.other_dns.is_empty());

    let settings = good(&format!(
        "wireguard_address: '127.0.0.1:51820'\nwireguard_endpoint: VPN.corp.example:443\n\
         wireguard_addresses: ['fd12::/64', 10.7.0.0/16]\nwireguard_peers_per_user: 2\nwireguard_dns: 9.9.9.9\n\
         wireguard_private_key: {SECRET}\nwireguard_session_grace: 30m\n"
    ))
    .settings
    .wireguard
    .unwrap();
    assert_eq!(settings.endpoint.to_string(), "vpn.corp.example:443");
    let (v4, v6) = settings.networks.towards_gateway();
    assert_eq!((v4.to_string(), v6.to_string()), ("10.7.0.0/17".into(), "fd12::/65".into()));
    assert_eq!(settings.other_dns, [std::net::Ipv4Addr::new(9, 9, 9, 9)]);
    assert_eq!((settings.peers_per_user.get(), settings.session_grace), (2, Duration::from_secs(1800)));
    assert_eq!(format!("{:?}", settings.private_key.unwrap()), "[secret]");
}

#[test]
fn nonsense_of_wireguard_is_named_with_what_to_do() {
    for (rest, expected) in [
        ("wireguard_address: '51820'\n", "wireguard_address: expected :port or address:port"),
        ("wireguard_address: ':0'\n", "must have a port that is not 0"),
        ("wireguard_address: ':443'\n", "must differ from address: HTTP/3 has that UDP port"),
        ("wireguard_address: ':1'\nwireguard_endpoint: vpn\n", "wireguard_endpoint: expected host:port"),
        ("wireguard_address: ':1'\nwireguard_addresses: [10.0.0.0/8]\n", "one IPv4 and one IPv6 network"),
        (
            "wireguard_address: ':1'\nwireguard_addresses: '10.0.0.0/30, fd00::/64'\n",
            "a prefix of 8 to 29 bits",
        ),
        ("wireguard_address: ':1'\nwireguard_addresses: '127.0.0.0/8, fd00::/64'\n", "take private networks"),
        ("wireguard_address: ':1'\nwireguard_dns: [dns.corp.example]\n", "wireguard_dns: expected addresses"),
        ("wireguard_address: ':1'\nwireguard_peers_per_user: 0\n", "expected a number from 1 to 1000"),
        ("wireguard_address: ':1'\nwireguard_private_key: abc\n", "expected 32 random bytes in Base64"),
        ("wireguard_address: ':1'\nwireguard_session_grace: 721h\n", "must not be longer than 720h"),
        ("wireguard_adress: ':1'\n", "did you mean \"wireguard_address\"?"),
    ] {
        let errors = errors(rest);
        assert!(errors.contains(expected), "{rest}\n{errors}");
    }
    good("wireguard_address: ':443'\ncodec_type: http2\n");
    // The file of several processes, of which this one carries nothing.
    let alone = format!("wireguard_address: ':1'\nservices: authorize\nshared_secret: {SECRET}\n");
    assert!(good(&alone).settings.wireguard.is_none());
    let warnings = good("wireguard_address: ':1'\ndatabroker_storage_type: memory\n").warnings;
    let warned = |text: &str| warnings.iter().any(|warning| warning.to_string().contains(text));
    assert!(warned("peers are enrolled anew after each start") && warned("name resolvers for all others"));
}
