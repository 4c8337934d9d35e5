mod branding;
mod certificates;
mod downstream_mtls;
mod identity;
mod routes;
mod services;
mod storage;
mod upstreams;
mod wireguard;

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const FULL: &str = include_str!("tests/full.yaml");
const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A folder with a certificate, its key, and a signing key.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["corp.example".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.path().join("client-secret"), "hunter2\n").unwrap();
    std::fs::write(dir.path().join("records.yaml"), "on-call:\n  u-alice: {until: 2026-03-01}\n").unwrap();
    std::fs::write(dir.path().join("not-records.yaml"), "on-call:\n  - u-alice\n").unwrap();
    std::fs::write(dir.path().join("countries.mmdb"), crate::geography::tests::countries()).unwrap();
    dir
}

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("HOME".to_owned(), "/home/op".to_owned())]);
    env.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    env
}

fn read(text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let (dir, env) = (folder(), environment(pairs));
    parse(text, "pomerium.yaml", &|name| env.get(name).cloned(), dir.path())
}

/// What every configuration needs, in six lines, so that `rest` begins in line 7.
fn minimal(rest: &str) -> String {
    format!(
        "authenticate_service_url: https://auth.corp.example\ncertificates: [{{cert: cert.pem, key: key.pem}}]\n\
         idp_provider: oidc\nidp_provider_url: https://id.corp.example\nidp_client_id: gateway\n\
         idp_client_secret_file: client-secret\n{rest}"
    )
}

fn good(rest: &str) -> Loaded {
    read(&minimal(rest), &[]).unwrap_or_else(|errors| panic!("{rest}\n{errors}"))
}

fn errors(rest: &str) -> String {
    read(&minimal(rest), &[]).expect_err(rest).to_string()
}

fn route(rest: &str) -> String {
    format!("routes:\n- from: https://app.corp.example\n  allow_any_authenticated_user: true\n  {rest}")
}

#[test]
fn a_full_file_says_what_is_meant() {
    let loaded = read(FULL, &[("DB_HOST", "10.0.0.5"), ("CLIENT_SECRET", "s$$3cret")]).unwrap();
    let settings = loaded.settings;
    assert_eq!(loaded.warnings, []);
    assert_eq!(settings.address.to_string(), "127.0.0.1:8443");
    assert_eq!(settings.http_redirect_addr.unwrap().to_string(), "[::]:8080");
    assert_eq!(settings.codec, Codec::All);
    assert_eq!(settings.certificates.len(), 1);
    assert_eq!(settings.shared_secret.unwrap().expose()[..3], [0, 1, 2]);
    assert_eq!(settings.authenticate_url.as_str(), "https://auth.corp.example/");
    assert_eq!(settings.cookie.expire, Some(Duration::from_secs(8 * 3600)));
    assert_eq!(settings.cookie.same_site, SameSite::None);
    assert_eq!(settings.identity_provider.client_secret.unwrap().expose(), "s$$3cret");
    assert_eq!(settings.identity_provider.scopes, ["openid", "email", "groups"]);
    assert_eq!(settings.jwt_claims_headers[0].0, "x-email");
    assert_eq!(settings.jwt_issuer_format, IssuerFormat::Uri);
    assert_eq!(settings.timeouts.write, Some(Duration::from_secs(5400)));
    assert_eq!(settings.storage, Storage::Folder("/var/lib/pomerium".into()));
    assert_eq!(settings.log_level, "warn");
    let [web, api, ssh, old, health] = settings.routes.as_slice() else { panic!("five routes") };
    let Target::Http(target) = &web.target else { panic!("an app") };
    assert_eq!(target.upstreams.members[0].origin.as_str(), "http://10.0.0.5:3000/");
    assert!(matches!(target.host, UpstreamHost::Preserve));
    assert_eq!((web.timeout, web.idle_timeout), (None, None), "websockets have no limits");
    assert_eq!(web.set_response_headers.len(), 4);
    let RouteFrom::Http { path: PathMatch::Regex(regex), .. } = &api.from else { panic!("an expression") };
    assert!(regex.is_match("/v1/x") && !regex.is_match("/v1/x/"));
    assert_eq!(api.timeout, Some(Duration::from_secs(10)));
    assert_eq!(api.idle_timeout, Some(Duration::from_secs(300)));
    let (RouteFrom::Tcp { destinations }, Target::Tcp(to)) = (&ssh.from, &ssh.target) else { panic!("TCP") };
    assert_eq!(
        (destinations[0].to_string(), to.to_string()),
        ("ssh.corp.example:22".into(), "10.0.0.6:22".into())
    );
    assert_eq!((ssh.timeout, ssh.idle_timeout, ssh.name.as_str()), (None, None, "ssh"));
    assert!(matches!(&old.target, Target::Redirect(redirect) if redirect.status == 308));
    assert!(matches!(&health.target, Target::Response { status, body } if *status == 200 && body == "ok"));
    assert_eq!(loaded.files.len(), 2);
}

#[test]
fn what_the_file_leaves_out_is_filled_in_as_documented() {
    let settings = good("").settings;
    assert_eq!(settings.address.to_string(), "[::]:443");
    assert!(settings.shared_secret.is_none() && settings.cookie_secret.is_none());
    assert_eq!(settings.cookie.name, "_pomerium");
    assert_eq!(settings.cookie.expire, Some(Duration::from_secs(14 * 3600)));
    assert_eq!(settings.device_proof_life, Duration::from_secs(12 * 3600));
    assert!(
        settings.cookie.http_only
            && settings.cookie.domain.is_none()
            && settings.cookie.same_site == SameSite::Lax
    );
    assert_eq!(settings.programmatic_redirect_domains, ["localhost"]);
    assert_eq!(settings.identity_provider.scopes, ["openid", "profile", "email", "offline_access"]);
    assert_eq!(settings.identity_provider.client_secret.unwrap().expose(), "hunter2");
    assert_eq!(settings.timeouts.read, Some(Duration::from_secs(30)));
    assert_eq!(settings.timeouts.write, None);
    assert_eq!(settings.set_response_headers.len(), 3);
    assert_eq!(settings.storage, Storage::Folder("/home/op/.local/share/pomerium".into()));
    assert!(good("set_response_headers: {disable: 'true'}\n").settings.set_response_headers.is_empty());
}

#[test]
fn every_wrong_key_is_named_with_its_place_and_what_to_do() {
    for (rest, expected) in [
        ("adress: ':1'\n", "pomerium.yaml:7:1: adress: unknown key; did you mean \"address\"?"),
        ("autocert_dir: x\n", "pomerium.yaml:7:1: autocert_dir: is known but not built yet in this gateway"),
        ("client_ca: x\n", "pomerium.yaml:7:1: client_ca: is removed: use downstream_mtls.ca"),
        (
            "services: databroker\n",
            "pomerium.yaml:7:1: services: expected all, authenticate, authorize, proxy, or proxy,authenticate",
        ),
        ("timeout_read: 30\n", "expected a duration with its unit, like 30s, 5m or 1h30m"),
        (
            "cookie_name: 12\n",
            "pomerium.yaml:7:14: cookie_name: expected a text, found a number: put it in quotes",
        ),
        ("cookie_http_only: 'no'\n", "cookie_http_only: expected true or false"),
        ("cookie_same_site: loose\n", "cookie_same_site: expected one of strict, lax, none"),
        ("cookie_expire: 0s\n", "cookie_expire: must not be 0: a session has to end"),
        ("device_proof_expire: 0\n", "device_proof_expire: must not be 0: a proof has to end"),
        ("session_expires_at: '3am'\n", "session_expires_at: expected a local time and its zone"),
        ("address: '0.0.0.0'\n", "address: expected :port or address:port"),
        ("shared_secret: c2hvcnQ=\n", "shared_secret: expected 32 random bytes in Base64"),
        ("idp_client_secret: a\n", "set either idp_client_secret or idp_client_secret_file, not both"),
        ("connections_per_address: 0\n", "connections_per_address: expected a number of 1 or more"),
        ("sign_in_requests_per_address: -1\n", "expected a number of 1 or more"),
        ("scim_token: short\n", "scim_token: expected at least 32 random characters"),
        ("scim_token: '0123456789abcdef 0123456789abcdef'\n", "random characters without spaces"),
        ("signing_key_file: cert.pem\n", "signing_key_file: expected private keys on the curve P-256"),
        ("signing_key_file: none.pem\n", "signing_key_file: cannot read"),
        ("signing_key_file: /dev/zero\n", "it is not an ordinary file"),
        ("certificate_file: cert.pem\n", "needs certificate_key or certificate_key_file beside it"),
        ("databroker_storage_connection_string: 'file://x'\n", "expected file:///folder"),
        ("set_response_headers: {'a b': c}\n", "this is not a valid header name"),
        ("set_response_headers: {a: \"b\\nc\"}\n", "this is not a valid header value"),
        ("set_response_headers: {X-A: b, x-a: c}\n", "this header is already set"),
        ("log_level: ${NOPE}\n", "pomerium.yaml:7:12: log_level: the environment variable NOPE is not set"),
        ("log_level: ${NOPE\n", "must be followed by the name of an environment variable"),
        (
            "log_level: info\nlog_level: info\n",
            "pomerium.yaml:8:1: the key \"log_level\" is already set in line 7",
        ),
        ("routes: {a: b}\n", "routes: expected a list of routes, found a mapping"),
        ("routes: [1]\n", "routes[0]: expected a mapping of keys to values, found a number"),
    ] {
        let errors = errors(rest);
        assert!(errors.contains(expected), "{rest}\n{errors}");
    }
}

#[test]
fn every_wrong_route_is_named_with_its_place_and_what_to_do() {
    for (rest, expected) in [
        (
            "polcy: []\n  to: http://a\n",
            "pomerium.yaml:10:3: routes[0].polcy: unknown key; did you mean \"policy\"?",
        ),
        ("allowed_groups: []\n  to: http://a\n", "routes[0].allowed_groups: is removed: use claim/groups"),
        ("allow_spdy: true\n  to: http://a\n", "routes[0].allow_spdy: is known but not built yet"),
        ("policy: nonsense\n  to: http://a\n", "pomerium.yaml:10:11: routes[0].policy"),
        ("prefix: /\n", "routes[0].to: is missing"),
        ("to: http://a\n  redirect: {https_redirect: true}\n", "redirect: contradicts to"),
        ("to: ftp://a\n", "must begin with http://, https://, h2c://"),
        ("to: tcp://a:1\n", "tcp:// needs a from of tcp+https://"),
        ("to: http://user:pw@a\n", "must not hold credentials"),
        ("to: http://a\n  prefix: x\n", "prefix: must begin with /"),
        ("to: http://a\n  prefix: /büro\n", "write it in its normal form, /b%C3%BCro"),
        ("to: http://a\n  path: /a%2Db/../c\n", "write it in its normal form, /c"),
        ("to: http://a\n  regex: '('\n", "regex: this is no valid expression"),
        ("to: http://a\n  regex: '/a)|(?:/b'\n", "regex: this is no valid expression"),
        ("to: http://a\n  regex: '(((a{100}){100}){100}){100}'\n", "regex: this is no valid expression"),
        ("to: http://a\n  regex_rewrite_substitution: x\n", "needs regex_rewrite_pattern beside it"),
        ("to: http://a\n  prefix_rewrite: /x\n  regex_rewrite_pattern: y\n", "choose one"),
        (
            "to: http://a\n  preserve_host_header: true\n  host_rewrite: b\n",
            "set one of preserve_host_header",
        ),
        (
            "to: http://a\n  host_path_regex_rewrite_substitution: x\n",
            "needs host_path_regex_rewrite_pattern",
        ),
        ("to: http://a\n  rewrite_response_headers: [{header: location}]\n", "prefix: is missing"),
        (
            "to: http://a\n  tls_client_cert_file: cert.pem\n",
            "needs tls_client_key or tls_client_key_file beside it",
        ),
        ("to: http://a\n  allowed_users: [a@corp.example]\n", "contradicts allowed_users"),
        (
            "to: http://a\n  allow_public_unauthenticated_access: true\n",
            "contradicts allow_public_unauthenticated_access",
        ),
        ("to: http://a\n  timeout: -1s\n", "a duration must not be negative"),
        ("redirect: {response_code: 200}\n", "redirect.response_code: expected 301, 302, 303, 307 or 308"),
        ("redirect: {htps_redirect: true}\n", "unknown key; did you mean \"https_redirect\"?"),
        ("response: {body: x}\n", "response.status: is missing"),
        (
            "to: http://a\n  allow_websockets: true\n  websocket_origins: ['*.corp.example']\n",
            "routes[0].websocket_origins: \"*.corp.example\" is no origin like https://portal.corp.example",
        ),
        (
            "to: http://a\n  allow_websockets: true\n  websocket_origins: [https://a.example/app]\n",
            "\"https://a.example/app\" is no origin",
        ),
        ("to: http://a\n  websocket_origins: [https://a.example]\n", "needs allow_websockets: true"),
    ] {
        let errors = errors(&route(rest));
        assert!(errors.contains(expected), "{rest}\n{errors}");
    }
}

#[test]
fn a_route_bears_a_silent_provider_for_as_long_as_it_says_and_sessions_live_for_the_longest() {
    let grace = |top: &str, of_routes: [&str; 2]| {
        let route = |(at, line)| {
            format!(
                "- from: https://a{at}.example\n  to: http://a\n  allow_any_authenticated_user: true\n{line}"
            )
        };
        let routes: String = of_routes.into_iter().enumerate().map(route).collect();
        let settings = good(&format!("{top}routes:\n{routes}")).settings;
        let of_routes: Vec<_> =
            settings.routes.iter().map(|route| route.unreachable_grace.as_secs()).collect();
        (of_routes, settings.longest_unreachable_grace().as_secs())
    };
    let (strict, lax) = ("  idp_unreachable_grace: 0\n", "  idp_unreachable_grace: 8h\n");
    assert_eq!(grace("", ["", strict]), (vec![900, 0], 900));
    assert_eq!(grace("idp_unreachable_grace: 1m\n", [lax, ""]), (vec![8 * 3600, 60], 8 * 3600));
    assert_eq!(grace("", [strict, strict]), (vec![0, 0], 0));
}

#[test]
fn a_from_that_could_match_more_than_it_says_is_refused() {
    for (from, to, expected) in [
        ("https://a.example/path", "http://a", "must be a host without a path"),
        ("https://u:p@a.example", "http://a", "must not hold credentials"),
        ("ftp://a.example", "http://a", "must begin with https://, tcp+https:// or udp+https://"),
        ("udp+https://a.example:53", "http://a", "leads to udp://host:port"),
        ("tcp+https://a.example", "tcp://a:1", "the port is missing"),
        ("tcp+https://gw.example:443/b.example", "tcp://a:1", "the port is missing"),
        ("tcp+https://*.example:22", "tcp://a:1", "the host must be a name"),
        ("tcp+https://a.example:22", "http://a", "a tcp+https route leads to tcp://host:port"),
    ] {
        let text = format!("routes:\n- from: '{from}'\n  to: {to}\n  allow_any_authenticated_user: true\n");
        let errors = errors(&text);
        assert!(errors.contains(expected), "{from}\n{errors}");
    }
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let errors = errors("codec_type: x\nenvoy_admin_address: y\nlog_level: z\nroutes:\n- form: a\n");
    let lines: Vec<&str> = errors.lines().collect();
    assert!(lines[0].starts_with("pomerium.yaml:7:1: codec_type: expected one of auto"), "{errors}");
    assert!(lines[1].starts_with("pomerium.yaml:8:1: warning: envoy_admin_address: steers"), "{errors}");
    assert!(lines[2].starts_with("pomerium.yaml:9:1: log_level"), "{errors}");
    assert!(errors.contains("routes[0].form: unknown key; did you mean \"from\"?"), "{errors}");
    assert!(errors.contains("routes[0].from: is missing"), "{errors}");
}

#[test]
fn an_empty_file_says_all_that_is_missing() {
    let errors = read("", &[]).unwrap_err().to_string();
    for key in ["authenticate_service_url", "certificates", "idp_provider", "idp_client_id"] {
        assert!(errors.contains(&format!("{key}: is missing")), "{key}\n{errors}");
    }
}

#[test]
fn an_empty_text_is_no_value() {
    let text = minimal("address: ''\ncookie_domain: ''\nhttp_redirect_addr: ''\nshared_secret: ''\n");
    assert_eq!(read(&text, &[]).unwrap().settings.address.port(), 443);
    for (key, value) in [("idp_client_id", "gateway"), ("idp_provider_url", "https://id.corp.example")] {
        let text = minimal("").replace(&format!("{key}: {value}"), &format!("{key}: ''"));
        let errors = read(&text, &[]).unwrap_err().to_string();
        assert!(errors.contains(&format!("{key}: is missing")), "{errors}");
    }
}

#[test]
fn credentials_for_the_app_are_not_shown() {
    let loaded = good(&route("to: http://a\n  set_request_headers: {Authorization: Bearer hunter2}\n"));
    assert!(!format!("{:?}", loaded.settings).contains("hunter2"));
}

#[test]
fn risky_and_useless_settings_are_warned_about() {
    let warnings = |text: &str| {
        let said: Vec<String> = good(text).warnings.iter().map(ToString::to_string).collect();
        said.join("\n")
    };
    assert!(warnings(&route("to: https://a\n  tls_skip_verify: true\n")).contains("trusts anyone"));
    assert!(
        warnings("routes: [{from: https://a.example, to: http://b}]\n").contains("nobody may use this route")
    );
    let open = "allow_any_authenticated_user: true";
    let shadowed = format!(
        "routes:\n- {{from: 'https://a.example', to: 'http://b', prefix: /x, {open}}}\n\
         - {{from: 'https://A.example', to: 'http://c', prefix: /x/y, {open}}}\n\
         - {{from: 'https://a.example', to: 'http://d', {open}}}\n"
    );
    let said = warnings(&shadowed);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("routes[1].from: is never reached: routes[0] before it takes the same requests"),
        "{said}"
    );
}

#[test]
fn the_environment_wins_over_the_file_and_fills_in_its_texts() {
    let set = [
        ("ADDRESS", ":9443"),
        ("IDP_CLIENT_SECRET", "from-env"),
        ("IDP_SCOPES", "openid,email"),
        ("PASS_IDENTITY_HEADERS", "true"),
        ("JWT_CLAIMS_HEADERS", "{\"x-email\": \"email\"}"),
        ("LOG_LEVEL", ""),
    ];
    let settings = read(&minimal("address: ':1'\nlog_level: debug\n"), &set).unwrap().settings;
    assert_eq!(settings.address.port(), 9443);
    assert_eq!(settings.identity_provider.client_secret.unwrap().expose(), "from-env");
    assert_eq!(settings.identity_provider.scopes, ["openid", "email"]);
    assert!(settings.pass_identity_headers);
    assert_eq!(settings.jwt_claims_headers[0].1, "email");
    assert_eq!(settings.log_level, "debug", "an empty variable is none");

    let errors = read(&minimal("address: ':1'\n"), &[("ADDRESS", "nonsense")]).unwrap_err().to_string();
    assert!(errors.starts_with("environment variable ADDRESS: address: expected :port"), "{errors}");
    let errors = read(&minimal(""), &[("INSECURE_SERVER", "true")]).unwrap_err().to_string();
    assert!(errors.contains("INSECURE_SERVER is known but not built yet"), "{errors}");
}

#[test]
fn routes_may_come_from_the_environment_in_base64() {
    let list = "- {from: https://a.example, to: http://b, allow_any_authenticated_user: true}";
    let loaded = read(&minimal(""), &[("POLICY", &STANDARD.encode(list))]).unwrap();
    assert_eq!(loaded.settings.routes[0].name, "a.example");
    let errors = read(&minimal(""), &[("POLICY", "not base64!")]).unwrap_err().to_string();
    assert!(errors.contains("expected Base64"), "{errors}");
}

#[test]
fn dollars_that_are_no_variables_stay() {
    let env = environment(&[("A", "x${B}")]);
    let expand = |text| environment::expand(text, &|name| env.get(name).cloned(), false);
    assert_eq!(expand("^/a$"), Ok(None));
    assert_eq!(expand("${A}"), Ok(Some("x${B}".into())), "a value is not looked into again");
    assert_eq!(expand("$${A}"), Ok(Some("${A}".into())));
    assert_eq!(expand("a$$b$c"), Ok(Some("a$b$c".into())));
    let template = |text| environment::expand(text, &|name| env.get(name).cloned(), true);
    let expected = "$${pomerium.jwt} ${pomerium.jwt} x$${B} $";
    assert_eq!(template("$${pomerium.jwt} ${pomerium.jwt} ${A} $"), Ok(Some(expected.into())));
}

#[test]
fn no_message_and_no_debug_output_shows_a_secret() {
    let text = minimal(
        "shared_secret: hunter2-secret\ncookie_secret: 'hunter2-secret'\nsigning_key: hunter2-secret\n",
    );
    assert!(!read(&text, &[]).unwrap_err().to_string().contains("hunter2"));
    let loaded = good(&format!("shared_secret: {SECRET}\n"));
    let shown = format!("{:?} {:?}", loaded.settings.identity_provider, loaded.settings.shared_secret);
    assert!(!shown.contains("hunter2") && !shown.contains("31"), "{shown}");
}

#[test]
fn a_shared_secret_with_a_line_break_is_refused() {
    let dir = folder();
    std::fs::write(dir.path().join("shared"), format!("{SECRET}\n")).unwrap();
    let text = minimal("shared_secret_file: shared\n");
    let errors = parse(&text, "pomerium.yaml", &|_| Some("/x".into()).filter(|_: &String| false), dir.path());
    assert!(errors.unwrap_err().to_string().contains("ends in white space"));
}

#[test]
fn a_certificate_with_a_foreign_key_is_refused() {
    let dir = folder();
    let other = rcgen::generate_simple_self_signed(vec!["b.example".to_owned()]).unwrap();
    std::fs::write(dir.path().join("key.pem"), other.signing_key.serialize_pem()).unwrap();
    let env = environment(&[]);
    let errors =
        parse(&minimal(""), "pomerium.yaml", &|name| env.get(name).cloned(), dir.path()).unwrap_err();
    assert!(errors.to_string().contains("the certificate and its key do not fit"), "{errors}");
}

#[test]
fn signing_keys_are_read_as_pem_or_base64_of_it() {
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let twice = STANDARD.encode(format!("{pem}{pem}"));
    assert_eq!(good(&format!("signing_key: {twice}\n")).settings.signing_keys.len(), 2);
    assert_eq!(good("signing_key_file: key.pem\n").settings.signing_keys.len(), 1);
}

#[test]
fn wildcards_stay_within_the_host() {
    let open = "allow_any_authenticated_user: true";
    let text = format!("routes: [{{from: 'https://*.corp.example:8443', to: 'http://b/base', {open}}}]\n");
    let settings = good(&text).settings;
    let RouteFrom::Http { host: HostPattern::Wildcard(host), port, .. } = &settings.routes[0].from else {
        panic!("a wildcard")
    };
    assert!(host.is_match("a.corp.example") && host.is_match("a.b.corp.example"));
    for foreign in ["corp.example", "acorp.example", "a.corpXexample", "a.corp.example.evil.test"] {
        assert!(!host.is_match(foreign), "{foreign}");
    }
    assert_eq!(*port, Some(8443));
    let Target::Http(target) = &settings.routes[0].target else { panic!("an app") };
    assert!(matches!(&target.rewrite, PathRewrite::Prefix(prefix) if prefix == "/base"));
    assert_eq!(target.upstreams.members[0].origin.path(), "/");
}

#[test]
fn a_gateway_in_front_of_destinations_is_not_one_of_them() {
    let text = "routes: [{from: 'tcp+https://gw.example:8443/db.example:5432/[2001:db8::1]:22', to: 'tcp://db:5432', \
                allow_any_authenticated_user: true}]\n";
    let settings = good(text).settings;
    let RouteFrom::Tcp { destinations } = &settings.routes[0].from else { panic!("TCP") };
    let names: Vec<String> = destinations.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["db.example:5432", "[2001:db8::1]:22"]);
}

#[test]
fn a_route_keeps_its_id_when_only_its_rules_change_or_move() {
    let id = |text: &str| good(text).settings.routes[0].id.clone();
    let first = id(&route("to: http://a\n"));
    assert_eq!(first.len(), 16);
    assert_eq!(
        first,
        id(&format!("log_level: info\n{}", route("name: x\n  timeout: 5s\n  to: 'http://a'\n")))
    );
    assert_ne!(first, id(&route("to: http://b\n")));
    assert_ne!(first, id(&route("to: http://a\n  prefix: /x\n")));
}

#[test]
fn check_config_tells_all_and_whether_it_would_start() {
    let (dir, env) = (folder(), environment(&[]));
    let check = |text: &str| {
        let path = dir.path().join("pomerium.yaml");
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        let usable = check::run(&path, &|name| env.get(name).cloned(), dir.path(), &mut out).unwrap();
        (usable, String::from_utf8(out).unwrap())
    };
    let (usable, said) = check(&minimal(&route("to: http://a\n")));
    assert!(usable && said.ends_with("pomerium.yaml: ok: 1 route\n"), "{said}");
    let (usable, said) = check(&minimal("adress: x\ntimeoutread: y\nenvoy_x: z\n"));
    assert!(!usable && said.ends_with("pomerium.yaml: 2 errors, 1 warning\n"), "{said}");
    assert_eq!(said.lines().count(), 4, "{said}");
    let mut out = Vec::new();
    assert!(!check::run(&dir.path().join("none"), &|_| None, dir.path(), &mut out).unwrap());
    assert!(String::from_utf8(out).unwrap().contains("cannot read it"));
}

fn fragment() -> impl Strategy<Value = String> {
    let keys: Vec<&str> = keys::GLOBAL.iter().chain(keys::ROUTE).copied().collect();
    let values = prop::sample::select(vec![
        "''",
        "~",
        "0",
        "-1",
        "true",
        "[]",
        "{}",
        "[{}]",
        "[[1]]",
        "{a: b}",
        "a,b",
        ":",
        ":99999",
        "tcp://",
        "https://",
        "https://*",
        "'tcp+https:///:'",
        "${X}",
        "$$",
        "'${'",
        "99999999999999999999h",
        "'http://a,'",
        "'/'",
        "[{from: 'https://a', to: 'b'}]",
        "[{from: tcp+https://a:1/, to: [], redirect: {port_redirect: 70000}}]",
        "é",
        "'['",
    ]);
    prop::collection::vec((prop::sample::select(keys), values), 0..8).prop_map(|pairs| {
        let lines = pairs.iter().enumerate().map(|(i, (key, value))| {
            let dash = if i == 0 { "- " } else { "  " };
            (format!("{key}: {value}\n"), format!("{dash}{key}: {value}\n"))
        });
        let (top, route): (Vec<String>, Vec<String>) = lines.unzip();
        if pairs.len() % 2 == 0 { top.concat() } else { format!("routes:\n{}", route.concat()) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text, "x", &|_| None, Path::new("/nonexistent"));
    }

    #[test]
    fn what_is_refused_is_explained(rest in fragment()) {
        if let Err(errors) = read(&minimal(&rest), &[]) {
            prop_assert!(errors.diagnostics().iter().any(|said| said.severity == Severity::Error));
        }
    }

    #[test]
    fn no_known_key_with_a_strange_value_panics(text in fragment()) {
        let _ = parse(&text, "x", &|_| None, Path::new("/nonexistent"));
    }
}

#[test]
fn records_are_read_from_a_file_that_is_watched() {
    let loaded = good("records_file: records.yaml\n");
    assert!(loaded.settings.records.is_some());
    assert!(loaded.files.iter().any(|file| file.ends_with("records.yaml")), "{:?}", loaded.files);
    assert!(good("").settings.records.is_none());
    for (rest, message) in [
        ("records_file: not-records.yaml\n", "not-records.yaml:2:3: expected records by id, found a list"),
        ("records_file: key.pem\n", "key.pem:"),
        ("records_file: nowhere.yaml\n", "cannot read"),
    ] {
        assert!(errors(rest).contains(message), "{rest}: {}", errors(rest));
    }
}

#[test]
fn databases_of_addresses_are_read_and_watched() {
    let loaded = good("geoip_country_file: countries.mmdb\n");
    assert_eq!(loaded.settings.geography.place([203, 0, 113, 9].into()).country, Some("CH"));
    assert!(loaded.files.iter().any(|file| file.ends_with("countries.mmdb")), "{:?}", loaded.files);
    for (rest, message) in [
        ("geoip_country_file: records.yaml\n", "records.yaml: it is no database in MaxMind's format"),
        ("geoip_asn_file: nowhere.mmdb\n", "cannot read"),
    ] {
        assert!(errors(rest).contains(message), "{rest}: {}", errors(rest));
    }
}

#[test]
fn a_criterion_that_lacks_something_here_is_said() {
    let with = |criterion: &str| {
        route(&format!("to: http://10.0.0.5\n  policy: {{allow: {{or: [{criterion}]}}}}\n"))
    };
    let warned =
        |text: &str| good(text).warnings.iter().map(|w| w.message.clone()).collect::<Vec<_>>().join(" ");
    let record = with("record: {type: on-call, field: team, is: db}");
    assert!(warned(&record).contains("`record` is never true without `records_file`"), "{}", warned(&record));
    assert_eq!(warned(&format!("records_file: records.yaml\n{record}")), "");
    let country = with("network/country: CH");
    assert!(warned(&country).contains("`network/country` is never true without `geoip_country_file`"));
    assert_eq!(warned(&format!("geoip_country_file: countries.mmdb\n{country}")), "");
    assert!(warned(&with("mcp_tool: search")).contains("`mcp_tool` is never true of any request"));
    assert!(warned(&with("ssh_username: alice")).contains("`ssh_username` is never true of any request"));
    let named = errors(&with("client_certificate: {san_email: alice@corp.example}"));
    assert!(
        named.contains("names in client certificates (san_...) prove nothing without an authority"),
        "{named}"
    );
}
