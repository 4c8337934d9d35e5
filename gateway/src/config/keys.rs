//! Which keys there are, and what becomes of each: read, not built yet, removed, or of no meaning here.

/// Keys at the top of the file that are read.
pub(super) const GLOBAL: &[&str] = &[
    "address",
    "authenticate_service_url",
    "authorize_internal_service_url",
    "authorize_service_url",
    "authorize_service_urls",
    "autocert",
    "autocert_ca",
    "autocert_eab_key_id",
    "autocert_eab_mac_key",
    "autocert_email",
    "autocert_trusted_ca",
    "autocert_trusted_ca_file",
    "autocert_use_staging",
    "branding",
    "certificate",
    "certificate_authority",
    "certificate_authority_file",
    "certificate_file",
    "certificate_key",
    "certificate_key_file",
    "certificates",
    "codec_type",
    "connections_per_address",
    "cookie_domain",
    "cookie_expire",
    "cookie_http_only",
    "cookie_name",
    "cookie_same_site",
    "cookie_secret",
    "cookie_secret_file",
    "databroker_storage_connection_string",
    "databroker_storage_connection_string_file",
    "databroker_storage_type",
    "default_upstream_timeout",
    "device_proof_expire",
    "downstream_mtls",
    "forward_auth_address",
    "forward_auth_trusted_peers",
    "geoip_asn_file",
    "geoip_country_file",
    "grpc_address",
    "grpc_client_ca",
    "grpc_client_ca_file",
    "grpc_client_timeout",
    "grpc_insecure",
    "http_redirect_addr",
    "idp_client_id",
    "idp_client_secret",
    "idp_client_secret_file",
    "idp_provider",
    "idp_provider_url",
    "idp_request_params",
    "idp_scopes",
    "idp_unreachable_grace",
    "jwt_claims_headers",
    "jwt_issuer_format",
    "log_level",
    "override_certificate_name",
    "pass_identity_headers",
    "policy",
    "programmatic_redirect_domain_whitelist",
    "records_file",
    "routes",
    "scim_token",
    "scim_token_file",
    "services",
    "session_expires_at",
    "set_response_headers",
    "shared_secret",
    "shared_secret_file",
    "sign_in_requests_per_address",
    "signing_key",
    "signing_key_file",
    "signout_redirect_url",
    "stream_resume_window",
    "timeout_idle",
    "timeout_read",
    "timeout_write",
    "use_proxy_protocol",
    "wireguard_address",
    "wireguard_addresses",
    "wireguard_dns",
    "wireguard_endpoint",
    "wireguard_peers_per_user",
    "wireguard_private_key",
    "wireguard_private_key_file",
    "wireguard_session_grace",
    "workload_issuers",
];

/// Keys of blocks at the top that the environment can set too, joined to their block by `_`.
pub(super) const NESTED: &[&str] = &[
    "downstream_mtls.ca",
    "downstream_mtls.ca_file",
    "downstream_mtls.crl",
    "downstream_mtls.crl_file",
    "downstream_mtls.enforcement",
    "downstream_mtls.match_subject_alt_names",
    "downstream_mtls.max_verify_depth",
];

/// Keys of a route that are read.
pub(super) const ROUTE: &[&str] = &[
    "allow_any_authenticated_user",
    "allow_public_unauthenticated_access",
    "allow_websockets",
    "allowed_domains",
    "allowed_idp_claims",
    "allowed_users",
    "circuit_breaker_thresholds",
    "cors_allow_preflight",
    "description",
    "from",
    "health_checks",
    "healthy_panic_threshold",
    "host_path_regex_rewrite_pattern",
    "host_path_regex_rewrite_substitution",
    "host_rewrite",
    "host_rewrite_header",
    "idle_timeout",
    "idp_unreachable_grace",
    "load_balancing_policy",
    "logo_url",
    "max_request_body_bytes",
    "max_request_header_bytes",
    "methods",
    "name",
    "outlier_detection",
    "pass_identity_headers",
    "path",
    "policy",
    "prefix",
    "prefix_rewrite",
    "preserve_host_header",
    "redirect",
    "regex",
    "regex_rewrite_pattern",
    "regex_rewrite_substitution",
    "remove_request_headers",
    "remove_response_headers",
    "response",
    "rewrite_response_headers",
    "set_request_headers",
    "set_response_headers",
    "show_error_details",
    "sign_in_acr_values",
    "sign_in_max_age",
    "sign_in_prompt",
    "sub_policies",
    "timeout",
    "tls_client_cert",
    "tls_client_cert_file",
    "tls_client_key",
    "tls_client_key_file",
    "tls_custom_ca",
    "tls_custom_ca_file",
    "tls_downstream_client_ca",
    "tls_downstream_client_ca_file",
    "tls_server_name",
    "tls_skip_verify",
    "tls_upstream_server_name",
    "to",
    "upstream_proxy_protocol",
    "websocket_origins",
];

const GLOBAL_NOT_BUILT: &[&str] = &[
    "access_log_fields",
    "allow_upgrades",
    "authenticate_internal_service_url",
    "authorize_log_fields",
    "auto_apply_changesets",
    "autocert_dir",
    "autocert_must_staple",
    "bearer_token_format",
    "blob_storage",
    "circuit_breaker_thresholds",
    "databroker_cluster_leader_id",
    "databroker_cluster_node_id",
    "databroker_cluster_nodes",
    "databroker_internal_service_url",
    "databroker_raft_bind_address",
    "databroker_service_url",
    "databroker_service_urls",
    "debug_address",
    "dns_failure_refresh_rate",
    "dns_lookup_family",
    "dns_query_timeout",
    "dns_query_tries",
    "dns_refresh_rate",
    "dns_resolvers",
    "dns_udp_max_queries",
    "dns_use_tcp",
    "google_cloud_serverless_authentication_service_account",
    "headers",
    "headers_with_underscores_action",
    "health_check_addr",
    "health_check_systemd_disabled",
    "identity_providers",
    "idp_access_token_allowed_audiences",
    "insecure_server",
    "installation_id",
    "jwt_groups_filter",
    "mcp_allowed_as_metadata_domains",
    "mcp_allowed_client_id_domains",
    "merge_slashes",
    "metrics_address",
    "metrics_basic_auth",
    "metrics_certificate",
    "metrics_certificate_file",
    "metrics_certificate_key",
    "metrics_certificate_key_file",
    "metrics_client_ca",
    "metrics_client_ca_file",
    "normalize_path",
    "otel_attribute_value_length_limit",
    "otel_bsp_max_export_batch_size",
    "otel_bsp_schedule_delay",
    "otel_exporter_otlp_endpoint",
    "otel_exporter_otlp_headers",
    "otel_exporter_otlp_protocol",
    "otel_exporter_otlp_timeout",
    "otel_exporter_otlp_traces_endpoint",
    "otel_exporter_otlp_traces_headers",
    "otel_exporter_otlp_traces_protocol",
    "otel_exporter_otlp_traces_timeout",
    "otel_log_level",
    "otel_resource_attributes",
    "otel_traces_exporter",
    "otel_traces_sampler_arg",
    "path_with_escaped_slashes_action",
    "runtime_flags",
    "session_recording_concurrency",
    "skip_xff_append",
    "ssh_address",
    "ssh_host_key_files",
    "ssh_host_keys",
    "ssh_rls_additional_entries",
    "ssh_rls_enabled",
    "ssh_user_ca_key",
    "ssh_user_ca_key_file",
    "tls_derive",
    "xff_num_trusted_hops",
];

const ROUTE_NOT_BUILT: &[&str] = &[
    "allow_spdy",
    "allow_upgrades",
    "bearer_token_format",
    "depends_on",
    "enable_google_cloud_serverless_authentication",
    "idp_access_token_allowed_audiences",
    "idp_client_id",
    "idp_client_secret",
    "identity_providers",
    "jwt_groups_filter",
    "jwt_issuer_format",
    "kubernetes_service_account_token",
    "kubernetes_service_account_token_file",
    "mcp",
    "regex_priority_order",
    "session_recording",
    "tls_downstream_server_name",
    "tls_upstream_allow_renegotiation",
    "upstream_tunnel",
];

/// What is removed for good, and what to write instead.
const REMOVED_GLOBAL: &[(&str, &str)] = &[
    ("client_ca", "use downstream_mtls.ca"),
    ("client_ca_file", "use downstream_mtls.ca_file"),
    ("idp_qps", "groups come from the provider's groups claim, or are pushed by SCIM (scim_token)"),
    (
        "idp_refresh_directory_interval",
        "groups come from the provider's groups claim, or are pushed by SCIM (scim_token)",
    ),
    (
        "idp_refresh_directory_timeout",
        "groups come from the provider's groups claim, or are pushed by SCIM (scim_token)",
    ),
    (
        "idp_service_account",
        "groups come from the provider's groups claim, or are pushed by SCIM (scim_token)",
    ),
    ("policy_file", "write the routes under routes"),
    ("tracing_provider", "use otel_traces_exporter"),
    ("tracing_sample_rate", "use otel_traces_sampler_arg"),
    ("tracing_datadog_address", "use otel_exporter_otlp_endpoint"),
    ("tracing_jaeger_agent_endpoint", "use otel_exporter_otlp_endpoint"),
    ("tracing_jaeger_collector_endpoint", "use otel_exporter_otlp_endpoint"),
    ("tracing_zipkin_endpoint", "use otel_exporter_otlp_endpoint"),
];

const REMOVED_ROUTE: &[(&str, &str)] = &[
    ("allowed_groups", "use claim/groups in a policy, or allowed_idp_claims with groups"),
    ("set_authorization_header", "use set_request_headers"),
];

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Global,
    Route,
}

/// What a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is read.
    Read,
    /// It is known, and refused until it works.
    NotBuilt,
    /// It is gone; this replaces it.
    Removed(&'static str),
    /// It steers another product's data plane.
    Foreign,
    /// Nobody knows it; perhaps this was meant.
    Unknown(Option<&'static str>),
}

/// What `key` means at this place.
pub(super) fn meaning(place: Place, key: &str) -> Meaning {
    let (read, not_built, removed) = match place {
        Place::Global => (GLOBAL, GLOBAL_NOT_BUILT, REMOVED_GLOBAL),
        Place::Route => (ROUTE, ROUTE_NOT_BUILT, REMOVED_ROUTE),
    };
    if read.contains(&key) {
        return Meaning::Read;
    }
    if not_built.contains(&key) {
        return Meaning::NotBuilt;
    }
    if let Some((_, instead)) = removed.iter().find(|(name, _)| *name == key) {
        return Meaning::Removed(instead);
    }
    if place == Place::Global && (key.starts_with("envoy_") || key == "proxy_log_level") {
        return Meaning::Foreign;
    }
    if place == Place::Global && key.starts_with("tracing_jaeger_") {
        return Meaning::Removed("use otel_exporter_otlp_endpoint");
    }
    Meaning::Unknown(nearest(key, read).or_else(|| nearest(key, not_built)))
}

/// Global keys that the environment may not set in vain: known, and of effect elsewhere.
pub(super) fn not_built_in_environment() -> impl Iterator<Item = &'static str> {
    // Platforms set `OTEL_*` for every process, and `HEADERS` is too common a name to be meant for us.
    GLOBAL_NOT_BUILT.iter().copied().filter(|key| !key.starts_with("otel_") && *key != "headers")
}

/// The known key that somebody most likely meant, if any is near.
pub(crate) fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    // Longer texts are no typo of anything, and comparing them costs.
    const KEY_LEN_MAX: usize = 80;
    if key.len() > KEY_LEN_MAX {
        return None;
    }
    let lower = key.to_ascii_lowercase().replace('-', "_");
    let distance = |name: &&'static str| strsim::damerau_levenshtein(&lower, name);
    let limit = (lower.chars().count() / 3).max(1);
    known
        .iter()
        .copied()
        .map(|name| (distance(&name), name))
        .min()
        .filter(|(d, _)| *d <= limit)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_names_the_nearest_key_and_nonsense_names_none() {
        assert_eq!(meaning(Place::Route, "polcy"), Meaning::Unknown(Some("policy")));
        assert_eq!(meaning(Place::Global, "Address"), Meaning::Unknown(Some("address")));
        assert_eq!(meaning(Place::Route, "allowed-users"), Meaning::Unknown(Some("allowed_users")));
        assert_eq!(meaning(Place::Global, "favourite_colour"), Meaning::Unknown(None));
        assert_eq!(meaning(Place::Global, &"a".repeat(100_000)), Meaning::Unknown(None));
    }

    #[test]
    fn no_key_has_two_meanings() {
        for (read, not_built, removed) in
            [(GLOBAL, GLOBAL_NOT_BUILT, REMOVED_GLOBAL), (ROUTE, ROUTE_NOT_BUILT, REMOVED_ROUTE)]
        {
            let mut all: Vec<&str> = read.iter().chain(not_built).copied().collect();
            all.extend(removed.iter().map(|(name, _)| *name));
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }
}
