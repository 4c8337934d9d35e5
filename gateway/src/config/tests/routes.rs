//! Keys of routes: where they mean something, and what they may say.

use super::*;

#[test]
fn a_key_that_nothing_would_read_is_refused() {
    let app = "https://a.example\n  to: http://b";
    let redirect = "https://a.example\n  redirect: {https_redirect: true}";
    let response = "https://a.example\n  response: {status: 200}";
    let tcp = "tcp+https://a.example:22\n  to: tcp://b:22";
    let udp = "udp+https://a.example:53\n  to: udp://b:53";
    let an_app = "routes whose `to` is an HTTP app";
    let https = "routes from https://";
    for (line, places, expected) in [
        ("tls_skip_verify: true", &[redirect, response, tcp, udp][..], an_app),
        ("timeout: 5s", &[redirect, response, tcp, udp], an_app),
        ("prefix_rewrite: /x", &[redirect, response, tcp, udp], an_app),
        ("allow_websockets: true", &[redirect, response, tcp, udp], an_app),
        ("pass_identity_headers: true", &[redirect, response, tcp, udp], an_app),
        ("set_request_headers: {x-a: b}", &[redirect, response, tcp, udp], an_app),
        ("max_request_body_bytes: 1", &[redirect, response, tcp, udp], an_app),
        ("set_response_headers: {x-a: b}", &[tcp, udp], https),
        ("cors_allow_preflight: true", &[tcp, udp], https),
        ("methods: [GET]", &[tcp, udp], https),
        ("idle_timeout: 5s", &[redirect, response], "routes with `to`"),
        ("upstream_proxy_protocol: v1", &[app, redirect, response, udp], "routes from tcp+https://"),
    ] {
        for from in [app, redirect, response, tcp, udp] {
            let text = format!("routes:\n- from: {from}\n  allowed_users: [a@corp.example]\n  {line}\n");
            if places.contains(&from) {
                let said = errors(&text);
                let key = line.split(':').next().unwrap_or_default();
                let expected = format!("routes[0].{key}: has no effect here: it works for {expected}");
                assert!(said.contains(&expected), "{text}\n{said}");
            } else {
                good(&text);
            }
        }
    }
}

#[test]
fn headers_that_the_gateway_answers_for_are_not_a_routes_to_change() {
    let top = "jwt_claims_headers: {X-Email: email}\npass_identity_headers: true\n";
    for (line, expected) in [
        ("set_request_headers: {Host: b}", "set_request_headers: host is set by host_rewrite"),
        ("remove_request_headers: [Host]", "remove_request_headers: host is what every request needs"),
        ("set_request_headers: {X-Forwarded-For: a}", "x-forwarded-for is set by the gateway"),
        ("set_request_headers: {X-Request-Id: a}", "x-request-id is set by the gateway"),
        (
            "set_request_headers: {X-Pomerium-Jwt-Assertion: a}",
            "x-pomerium-jwt-assertion is set from the session",
        ),
        (
            "remove_request_headers: [X-Pomerium-Jwt-Assertion]",
            "x-pomerium-jwt-assertion is set from the session",
        ),
        (
            "set_request_headers: {x-email: a}",
            "x-email is set from the session: see pass_identity_headers and jwt_claims_headers",
        ),
        (
            "remove_request_headers: [x-email]",
            "x-email is set from the session: see pass_identity_headers and jwt_claims_headers",
        ),
        ("set_request_headers: {Transfer-Encoding: chunked}", "says how the request is framed"),
        ("remove_request_headers: [Content-Length]", "says how the request is framed"),
        ("set_response_headers: {Connection: close}", "says how the answer is framed"),
        (
            "remove_response_headers: [Content-Length]",
            "remove_response_headers: content-length says how the answer",
        ),
        (
            "remove_response_headers: [X-Frame-Options]",
            "x-frame-options is set by set_response_headers at the top",
        ),
        ("set_response_headers: {X-Request-Id: a}", "x-request-id is set by the gateway"),
    ] {
        let said = errors(&format!("{top}{}", route(&format!("to: http://a\n  {line}\n"))));
        assert!(said.contains(expected), "{line}\n{said}");
    }
    let general = errors("set_response_headers: {Content-Length: '1'}\n");
    assert!(
        general.contains("set_response_headers: content-length says how the answer is framed"),
        "{general}"
    );
    good(&route("to: http://a\n  remove_request_headers: [X-Forwarded-Host, X-Debug]\n"));
    good(&format!(
        "{top}{}",
        route("to: http://a\n  pass_identity_headers: false\n  set_request_headers: {x-email: a}\n")
    ));
}

#[test]
fn a_route_takes_all_response_headers_away_as_the_file_does() {
    let set = |line: &str| {
        let settings = good(&route(&format!("to: http://a\n  {line}\n"))).settings;
        settings.routes[0].set_response_headers.len()
    };
    assert_eq!(set("set_response_headers: {x-a: b}"), 4);
    assert_eq!(set("set_response_headers: {disable: 'true'}"), 0);
}

#[test]
fn a_name_to_expect_of_an_app_without_tls_is_warned_about() {
    let loaded = good(&route("to: http://a\n  tls_server_name: a.example\n"));
    assert!(loaded.warnings.iter().any(|said| said.message.contains("no effect")), "{:?}", loaded.warnings);
}

#[test]
fn a_sub_policy_says_what_is_known_of_it_and_not_built() {
    let sub = |line: &str| errors(&route(&format!("to: http://a\n  sub_policies: [{{rego: [], {line}}}]\n")));
    let said = sub("allowed_users: [a@corp.example]");
    assert!(said.contains("sub_policies[0].allowed_users: is known but not built yet"), "{said}");
    assert!(sub("alowed_users: []").contains("did you mean \"allowed_users\"?"));
}

#[test]
fn methods_are_named_in_capitals_and_routes_that_differ_in_them_shadow_nobody() {
    for (line, expected) in [
        ("methods: []", "methods: the list is empty"),
        ("methods: [get]", "methods: \"get\" is no method like GET or POST, in capitals"),
        ("methods: ['G T']", "is no method"),
        ("methods: [CONNECT]", "\"CONNECT\" is no method"),
    ] {
        let said = errors(&route(&format!("to: http://a\n  {line}\n")));
        assert!(said.contains(expected), "{line}\n{said}");
    }
    let shadowed = |first: &str, second: &str| {
        let route = |methods: &str| {
            format!(
                "- {{from: 'https://a.example', to: 'http://b', allow_any_authenticated_user: true{methods}}}\n"
            )
        };
        !good(&format!("routes:\n{}{}", route(first), route(second))).warnings.is_empty()
    };
    assert!(!shadowed(", methods: [GET]", ", methods: [POST]"));
    assert!(!shadowed(", methods: [GET]", ""));
    assert!(shadowed("", ", methods: [GET]"));
    assert!(shadowed(", methods: [GET, POST]", ", methods: [POST]"));
    let id = |line: &str| good(&route(&format!("to: http://a\n{line}"))).settings.routes[0].id.clone();
    assert_ne!(id(""), id("  methods: [GET]\n"));
}

#[test]
fn an_answer_tells_claims_and_no_tokens() {
    let set = |value: &str| route(&format!("to: http://a\n  set_response_headers: {{x-a: '{value}'}}\n"));
    for value in [
        "${pomerium.jwt}",
        "a ${pomerium.access_token}",
        "${pomerium.id_token}",
        "${pomerium.request.headers[\"Cookie\"]}",
    ] {
        let said = errors(&set(value));
        assert!(said.contains("x-a would tell pages what stands for a person"), "{value}\n{said}");
    }
    let loaded = good(&set("${pomerium.claim.email} ${pomerium.client_cert_fingerprint} 5$$"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(good(&set("${pomerium.clam}")).warnings[0].message.contains("is nothing that a request has"));
    let said = errors("set_response_headers: {x-a: '${pomerium.claim.email}'}\n");
    assert!(said.contains("set_request_headers and set_response_headers of a route only"), "{said}");
}
