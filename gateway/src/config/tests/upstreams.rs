//! `to` and what is said of several upstreams.

use super::*;

fn upstreams(rest: &str) -> Upstreams {
    let settings = good(&route(rest)).settings;
    let Target::Http(target) = &settings.routes[0].target else { panic!("an app") };
    target.upstreams.clone()
}

#[test]
fn one_app_alone_needs_no_more_than_its_url() {
    let read = upstreams("to: https://app.corp.example:8443/base\n");
    let [app] = read.members.as_slice() else { panic!("one app") };
    assert_eq!((app.name.as_str(), app.weight), ("https://app.corp.example:8443", 1));
    assert_eq!(app.authority(), "app.corp.example:8443");
    assert_eq!(read.balancing, Balancing::RoundRobin);
    assert!(read.health_checks.is_empty() && read.outlier_detection.is_none() && read.panic_threshold == 0);
    assert_eq!(read.limits, CircuitBreakers::default());
}

#[test]
fn each_kind_of_app_is_dialled_in_its_way() {
    let read = upstreams(
        "to: ['http://a:1,2', 'h2c://b,3', 'unix:///run/c.sock,4', 'https+unix:///run/d.sock,5']\n",
    );
    let seen: Vec<_> = read
        .members
        .iter()
        .map(|app| {
            let socket = app.socket.as_ref().map(|path| path.display().to_string());
            (app.origin.as_str(), socket, app.is_h2c, app.weight)
        })
        .collect();
    let expected = [
        ("http://a:1/", None, false, 2),
        ("http://b/", None, true, 3),
        ("http://localhost/", Some("/run/c.sock".to_owned()), false, 4),
        ("https://localhost/", Some("/run/d.sock".to_owned()), false, 5),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn balancing_health_and_limits_are_read() {
    let read = upstreams(
        "to: [http://a, http://b]\n  load_balancing_policy: LEAST_REQUEST\n  healthy_panic_threshold: 30\n  \
         health_checks:\n  - {timeout: 1s, interval: 2s, unhealthy_threshold: 4, healthy_threshold: 1, \
         http_health_check: {path: /healthz, host: app.corp.example, expected_statuses: [{start: 200, end: 300}]}}\n  \
         - {tcp_health_check: {send: {text: '50494e47'}, receive: [{text: '504f4e47'}]}}\n  \
         - {grpc_health_check: {service_name: db}}\n  \
         outlier_detection: {consecutive_5xx: 0, consecutive_gateway_failure: 2, base_ejection_time: 1s}\n  \
         circuit_breaker_thresholds: {max_connections: 7, max_requests: 8, max_retries: 0}\n",
    );
    assert_eq!((read.balancing, read.panic_threshold), (Balancing::LeastRequest, 30));
    let [http, tcp, grpc] = read.health_checks.as_slice() else { panic!("three checks") };
    assert_eq!(grpc.probe, Probe::Grpc { service: "db".to_owned(), authority: None });
    assert_eq!((http.timeout, http.interval), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!((http.unhealthy_threshold, http.healthy_threshold), (4, 1));
    assert!(
        matches!(&http.probe, Probe::Http { path, expected, .. } if path == "/healthz" && expected.first() == Some(&(200..300)))
    );
    assert_eq!((tcp.unhealthy_threshold, tcp.healthy_threshold), (3, 2));
    let probe = Probe::Tcp { send: b"PING".to_vec(), receive: vec![b"PONG".to_vec()] };
    assert_eq!(tcp.probe, probe);
    let detection = read.outlier_detection.unwrap();
    assert_eq!((detection.consecutive_5xx, detection.consecutive_gateway_failure), (None, Some(2)));
    assert_eq!(detection.max_ejection_time, Duration::from_secs(300));
    let limits = CircuitBreakers { max_connections: Some(7), max_requests: Some(8), max_retries: Some(0) };
    assert_eq!(read.limits, limits);
}

#[test]
fn what_cannot_be_meant_or_is_not_built_is_said() {
    for (rest, expected) in [
        ("to: []\n", "the list is empty"),
        ("to: ['http://a,1', http://b]\n", "give all entries a weight"),
        ("to: ['http://a,0', 'http://b,1']\n", "the weight must be a whole number from 1"),
        ("to: ['http://a,99999999999', 'http://b,1']\n", "the weight must be a whole number from 1"),
        ("to: [http://a, tcp://b:1]\n", "several targets are known but not built yet for tcp://"),
        ("to: ssh://a\n", "this scheme is known but not built yet"),
        ("to: unix://run/app.sock\n", "a socket is named by its whole path"),
        ("to: [http://a, 'http://u:p@b']\n", "must not hold credentials"),
        ("to: http://a\n  load_balancing_policy: fastest\n", "expected one of round_robin, least_request"),
        ("to: http://a\n  healthy_panic_threshold: 101\n", "expected a whole number from 0 to 100"),
        ("to: http://a\n  health_checks: {}\n", "expected a list of checks"),
        (
            "to: http://a\n  health_checks: [{timeout: 1s}]\n",
            "a check needs http_health_check, tcp_health_check or grpc_health_check",
        ),
        (
            "to: h2c://a\n  health_checks: [{grpc_health_check: {authority: 'a b'}}]\n",
            "expected a host, with a port if need be",
        ),
        (
            "to: http://a\n  health_checks: [{grpc_health_check: {}, tcp_health_check: {}}]\n",
            "is one of several: make each a check of its own",
        ),
        ("to: http://a\n  health_checks: [{nonsense: 1}]\n", "health_checks[0].nonsense: unknown key"),
        (
            "to: http://a\n  health_checks: [{interval: 0s, tcp_health_check: {}}]\n",
            "interval: must not be 0",
        ),
        (
            "to: http://a\n  health_checks: [{http_health_check: {codec_client_type: HTTP2}}]\n",
            "codec_client_type: is known but not built yet",
        ),
        (
            "to: http://a\n  health_checks: [{http_health_check: {expected_statuses: [{start: 204, end: 204}]}}]\n",
            "expected more than start",
        ),
        (
            "to: http://a\n  health_checks: [{http_health_check: {path: healthz}}]\n",
            "a path that begins with /",
        ),
        (
            "to: http://a\n  health_checks: [{tcp_health_check: {send: {text: xyz}}}]\n",
            "octets in hexadecimal",
        ),
        (
            "to: http://a\n  outlier_detection: {interval: 1s}\n",
            "outlier_detection.interval: is known but not built",
        ),
        (
            "to: http://a\n  outlier_detection: {base_ejection_time: 9s, max_ejection_time: 1s}\n",
            "is shorter than base_ejection_time",
        ),
        (
            "to: http://a\n  circuit_breaker_thresholds: {max_pending_requests: 1}\n",
            "max_pending_requests: is known but not built yet",
        ),
        (
            "redirect: {https_redirect: true}\n  health_checks: []\n",
            "it works for routes whose `to` is an HTTP",
        ),
    ] {
        let errors = errors(&route(rest));
        assert!(errors.contains(expected), "{rest}\n{errors}");
    }
}

#[test]
fn limits_of_a_request_and_the_proxy_protocol_are_read_where_they_mean_something() {
    let target = |rest: &str| {
        let settings = good(&route(rest)).settings;
        let Target::Http(target) = &settings.routes[0].target else { panic!("an app") };
        target.request_limits
    };
    assert_eq!(target("to: http://a\n"), RequestLimits::default());
    assert_eq!(
        target("to: http://a\n  max_request_header_bytes: 4096\n  max_request_body_bytes: 10000000000\n"),
        RequestLimits { header: Some(4096), body: Some(10_000_000_000) }
    );
    for (rest, expected) in [
        (
            "to: http://a\n  max_request_body_bytes: 0\n",
            "max_request_body_bytes: expected a number of 1 or more",
        ),
        ("to: http://a\n  max_request_header_bytes: -1\n", "max_request_header_bytes: expected a number"),
        (
            "redirect: {https_redirect: true}\n  max_request_body_bytes: 1\n",
            "it works for routes whose `to` is an HTTP",
        ),
        ("to: http://a\n  upstream_proxy_protocol: v1\n", "works for routes from tcp+https://"),
        ("to: http://a\n  upstream_proxy_protocol: v3\n", "upstream_proxy_protocol"),
    ] {
        let told = errors(&route(rest));
        assert!(told.contains(expected), "{rest}: {told}");
    }
}
