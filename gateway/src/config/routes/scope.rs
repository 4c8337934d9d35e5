//! Which keys mean something where a route leads: what nothing reads is refused, not ignored.

use crate::config::{Target, section::Section};

/// Where a route leads, as far as its keys are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    App,
    Tcp,
    Udp,
    Redirect,
    Response,
}

use Kind::{App, Redirect, Response, Tcp, Udp};

/// Keys that are read on some routes, and on which.
const ONLY: &[(&[Kind], &str, &[&str])] = &[
    (
        &[App, Redirect, Response],
        "routes from https://",
        &[
            "cors_allow_preflight",
            "methods",
            "path",
            "prefix",
            "regex",
            "remove_response_headers",
            "set_response_headers",
            "show_error_details",
        ],
    ),
    (&[App, Tcp, Udp], "routes with `to`", &["idle_timeout"]),
    (
        &[Tcp],
        "routes from tcp+https://; HTTP apps find the client in X-Forwarded-For",
        &["upstream_proxy_protocol"],
    ),
    (
        &[App],
        "routes whose `to` is an HTTP app",
        &[
            "allow_websockets",
            "circuit_breaker_thresholds",
            "health_checks",
            "healthy_panic_threshold",
            "host_path_regex_rewrite_pattern",
            "host_path_regex_rewrite_substitution",
            "host_rewrite",
            "host_rewrite_header",
            "load_balancing_policy",
            "max_request_body_bytes",
            "max_request_header_bytes",
            "outlier_detection",
            "pass_identity_headers",
            "prefix_rewrite",
            "preserve_host_header",
            "regex_rewrite_pattern",
            "regex_rewrite_substitution",
            "remove_request_headers",
            "rewrite_response_headers",
            "set_request_headers",
            "timeout",
            "tls_client_cert",
            "tls_client_cert_file",
            "tls_client_key",
            "tls_client_key_file",
            "tls_custom_ca",
            "tls_custom_ca_file",
            "tls_server_name",
            "tls_skip_verify",
            "tls_upstream_server_name",
            "websocket_origins",
        ],
    ),
];

/// Refuses each key that nothing reads on a route to `target`.
pub(super) fn check(section: &Section<'_>, target: &Target) {
    let kind = match target {
        Target::Http(_) => App,
        Target::Tcp(_) => Tcp,
        Target::Udp(_) => Udp,
        Target::Redirect(_) => Redirect,
        Target::Response { .. } => Response,
    };
    for (_, place, keys) in ONLY.iter().filter(|(kinds, ..)| !kinds.contains(&kind)) {
        for key in keys.iter().filter(|key| section.has(key)) {
            section.error(key, format!("has no effect here: it works for {place}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    /// Keys that are read whatever the route leads to.
    const EVERYWHERE: &[&str] = &[
        "allow_any_authenticated_user",
        "allow_public_unauthenticated_access",
        "allowed_domains",
        "allowed_idp_claims",
        "allowed_users",
        "description",
        "from",
        "idp_unreachable_grace",
        "logo_url",
        "name",
        "policy",
        "redirect",
        "response",
        "sign_in_acr_values",
        "sign_in_max_age",
        "sign_in_prompt",
        "sub_policies",
        "tls_downstream_client_ca",
        "tls_downstream_client_ca_file",
        "to",
    ];

    #[test]
    fn every_key_of_a_route_is_read_somewhere_and_has_one_place() {
        let only = ONLY.iter().flat_map(|(.., keys)| keys.iter());
        let mut placed: Vec<&str> = EVERYWHERE.iter().chain(only).copied().collect();
        placed.sort_unstable();
        assert_eq!(placed, keys::ROUTE);
    }
}
