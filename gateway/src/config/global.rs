//! The keys at the top of the file.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use http::{HeaderName, HeaderValue, header};
use url::Url;

use super::{
    AuthorizeService, Certificate, Codec, CookieSettings, DownstreamMtls, ForwardAuthDoor, GrpcDoor,
    IssuerFormat, PerAddress, SameSite, Services, Settings, Storage, Timeouts, WireGuard, authorize_service,
    autocert::autocert,
    branding,
    downstream_mtls::ClientAuthorities,
    identity, keys,
    material::{read_database, read_file},
    routes,
    section::Section,
    services, storage, wireguard,
};
use crate::{
    authorize::Records,
    geography::Geography,
    yaml::{self, Value},
};

/// Reads everything; `None` when something that has no default is missing or wrong, which was said.
pub(super) fn settings(top: &Section<'_>) -> Option<Settings> {
    top.check_keys(keys::Place::Global);
    let services = services::services(top);
    let codec = codec(top);
    let authenticate_url = authenticate_url(top);
    let storage = storage::storage_for(top, services);
    let doors = doors(top, services, codec);
    let wireguard = wireguard_door(top, &doors, authenticate_url.as_ref(), storage.as_ref());
    let Doors { address, http_redirect_addr, grpc, forward_auth, authorize_service, .. } = doors;
    let autocert = autocert(top);
    let certificates = certificates(top, autocert.is_some());
    let client_authorities = ClientAuthorities::read(top);
    let shared_secret = top.secret32("shared_secret");
    let cookie_secret = top.secret32("cookie_secret");
    let identity_provider = identity::provider(top);
    let pass_identity_headers = top.flag("pass_identity_headers").unwrap_or(false);
    let set_response_headers = response_headers(top);
    let jwt_claims_headers = claims_headers(top);
    let timeouts = timeouts(top);
    let defaults = routes::Defaults {
        timeouts,
        unreachable_grace: unreachable_grace(top),
        pass_identity_headers,
        set_response_headers: &set_response_headers,
        jwt_claims_headers: &jwt_claims_headers,
        client_authorities: &client_authorities,
        has_file: &|name| top.has(name),
    };
    let routes = routes::routes(top, &defaults);
    client_authorities.check_use(top, &routes);
    Some(Settings {
        address: address?,
        http_redirect_addr,
        use_proxy_protocol: top.flag("use_proxy_protocol").unwrap_or(false),
        services,
        authorize_service,
        grpc,
        forward_auth,
        wireguard,
        per_address: per_address(top),
        codec,
        certificates: certificates?,
        autocert,
        downstream_mtls: DownstreamMtls {
            authority: client_authorities.general.authority,
            enforcement: client_authorities.enforcement,
        },
        shared_secret,
        cookie_secret,
        signing_keys: top.signing_keys(),
        authenticate_url: authenticate_url?,
        signout_redirect_url: top.url("signout_redirect_url"),
        programmatic_redirect_domains: programmatic_redirect_domains(top),
        cookie: cookie(top),
        identity_provider: identity_provider?,
        workload_issuers: identity::workload_issuers(top),
        scim_token: identity::scim_token(top),
        jwt_claims_headers,
        jwt_issuer_format: issuer_format(top),
        device_proof_life: device_proof_life(top),
        pass_identity_headers,
        set_response_headers,
        timeouts,
        stream_resume_window: stream_resume_window(top),
        storage: storage?,
        records: records(top),
        geography: geography(top),
        look: branding::look(top),
        log_level: log_level(top).to_owned(),
        routes,
    })
}

/// The addresses that the gateway answers at, and where it asks.
struct Doors {
    services: Services,
    codec: Codec,
    address: Option<SocketAddr>,
    http_redirect_addr: Option<SocketAddr>,
    grpc: Option<GrpcDoor>,
    forward_auth: Option<ForwardAuthDoor>,
    authorize_service: Option<AuthorizeService>,
}

fn doors(top: &Section<'_>, services: Services, codec: Codec) -> Doors {
    let address = listen_address(top, "address")
        .or_else(|| (!top.has("address")).then_some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 443)));
    let http_redirect_addr = listen_address(top, "http_redirect_addr");
    let grpc = services::grpc(top, services, listen_address(top, "grpc_address"));
    let forward_auth = services::forward_auth(top, listen_address(top, "forward_auth_address"));
    services::check_addresses(
        top,
        &[
            ("address", address.filter(|_| services != Services::Authorize)),
            ("http_redirect_addr", http_redirect_addr),
            ("grpc_address", grpc.as_ref().map(|door| door.address)),
            ("forward_auth_address", forward_auth.as_ref().map(|door| door.address)),
        ],
    );
    let authorize_service = authorize_service::authorize_service(top, services);
    Doors { services, codec, address, http_redirect_addr, grpc, forward_auth, authorize_service }
}

fn wireguard_door(
    top: &Section<'_>,
    doors: &Doors,
    authenticate_url: Option<&Url>,
    storage: Option<&Storage>,
) -> Option<WireGuard> {
    let Doors { services, codec, address, .. } = *doors;
    let beside = wireguard::Beside { address, authenticate_url, codec, services, storage };
    wireguard::wireguard(top, listen_address(top, "wireguard_address"), &beside)
}

fn unreachable_grace(top: &Section<'_>) -> Duration {
    identity::unreachable_grace(top).unwrap_or(identity::UNREACHABLE_GRACE_DEFAULT)
}

/// Who may do what, and where people are kept: what is left when certificates and secrets are not at hand.
pub(super) fn access(top: &Section<'_>) -> Option<super::Access> {
    let defaults = routes::Defaults {
        timeouts: timeouts(top),
        unreachable_grace: unreachable_grace(top),
        pass_identity_headers: false,
        set_response_headers: &[],
        jwt_claims_headers: &[],
        client_authorities: &ClientAuthorities::without_files(top),
        has_file: &|name| top.has(name),
    };
    let routes = routes::routes(top, &defaults);
    Some(super::Access { routes, records: records(top), storage: storage::storage(top) })
}

/// `host:port` or `:port`; without a host it is every address of the machine.
fn listen_address(top: &Section<'_>, name: &str) -> Option<SocketAddr> {
    let text = top.filled(name)?;
    let address = text.rsplit_once(':').and_then(|(host, port)| {
        let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok()).flatten()?;
        let address = match host {
            "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(inner) => IpAddr::V6(inner.parse().ok()?),
                None => IpAddr::V4(host.parse().ok()?),
            },
        };
        Some(SocketAddr::new(address, port))
    });
    if address.is_none() {
        top.error(name, "expected :port or address:port, like :443 or 127.0.0.1:8443");
    }
    address
}

fn per_address(top: &Section<'_>) -> PerAddress {
    let count = |name, default: u32| {
        let given = top.whole(name).map(|count| u32::try_from(count).ok().and_then(NonZeroU32::new));
        if given == Some(None) {
            top.error(name, "expected a number of 1 or more");
        }
        given.flatten().or_else(|| NonZeroU32::new(default)).unwrap_or(NonZeroU32::MAX)
    };
    PerAddress {
        connections: count("connections_per_address", 1_000),
        sign_in_requests: count("sign_in_requests_per_address", 50),
    }
}

fn codec(top: &Section<'_>) -> Codec {
    let codecs =
        [("auto", Codec::All), ("http3", Codec::All), ("http1", Codec::Http1), ("http2", Codec::Http2)];
    top.one_of("codec_type", &codecs).unwrap_or(Codec::All)
}

fn issuer_format(top: &Section<'_>) -> IssuerFormat {
    let formats = [("IssuerHostOnly", IssuerFormat::HostOnly), ("IssuerURI", IssuerFormat::Uri)];
    top.one_of("jwt_issuer_format", &formats).unwrap_or(IssuerFormat::HostOnly)
}

fn programmatic_redirect_domains(top: &Section<'_>) -> Vec<String> {
    top.list("programmatic_redirect_domain_whitelist").map_or_else(
        || vec!["localhost".to_owned()],
        |list| list.iter().map(|(host, _)| host.to_ascii_lowercase()).collect(),
    )
}

fn certificates(top: &Section<'_>, has_others: bool) -> Option<Vec<Certificate>> {
    let mut certificates = Vec::new();
    let mut complete = true;
    let given = ["certificate", "certificate_file", "certificate_key", "certificate_key_file"];
    if given.iter().any(|name| top.has(name)) {
        let own = top.certificate("certificate", "certificate_key");
        complete &= own.is_some();
        certificates.extend(own);
    }
    match top.node("certificates").map(|node| &node.value) {
        None => {}
        Some(Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                let entry = Section::of(top.reading, format!("certificates[{index}]"), item);
                let certificate = entry.and_then(|entry| {
                    entry.allow_only(&["cert", "key", "ocsp"]);
                    entry.certificate_files()
                });
                complete &= certificate.is_some();
                certificates.extend(certificate);
            }
        }
        Some(other) => {
            complete = false;
            top.error("certificates", format!("expected a list of {{cert, key}}, found {}", other.kind()));
        }
    }
    if complete && certificates.is_empty() && !has_others {
        top.error(
            "certificates",
            "is missing: name at least one {cert, key} pair of PEM files, or set autocert: true",
        );
        complete = false;
    }
    complete.then_some(certificates)
}

fn authenticate_url(top: &Section<'_>) -> Option<Url> {
    let name = "authenticate_service_url";
    if !top.has(name) {
        top.error(name, "is missing: the URL of the sign-in host, like https://authenticate.corp.example");
        return None;
    }
    let url = top.url(name)?;
    if url.scheme() != "https" {
        top.error(name, "must begin with https://");
    } else if url.path() != "/" || url.query().is_some() {
        top.error(name, "must be a host without a path");
    } else {
        return Some(url);
    }
    None
}

fn cookie(top: &Section<'_>) -> CookieSettings {
    let token =
        |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let name = top.filled("cookie_name").unwrap_or("_pomerium");
    if !token(name) {
        top.error("cookie_name", "must be of letters, digits, - and _");
    }
    let domain =
        top.filled("cookie_domain").map(|domain| domain.trim_start_matches('.').to_ascii_lowercase());
    let host =
        |domain: &String| domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    if domain.as_ref().is_some_and(|domain| domain.is_empty() || !host(domain)) {
        top.error("cookie_domain", "must be a domain like corp.example");
    }
    const EXPIRE_DEFAULT: Duration = Duration::from_secs(14 * 3600);
    let expire_at = identity::session_expires_at(top);
    // Who names a time of day alone means just that.
    let expire_default = expire_at.is_none().then_some(EXPIRE_DEFAULT);
    let expire = top.duration("cookie_expire");
    if expire == Some(None) {
        top.error("cookie_expire", "must not be 0: a session has to end");
    }
    let same_site = [("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)];
    CookieSettings {
        name: name.to_owned(),
        domain,
        http_only: top.flag("cookie_http_only").unwrap_or(true),
        expire: expire.unwrap_or(expire_default),
        expire_at,
        // Browsers differ in what they make of a cookie without the attribute.
        same_site: top.one_of("cookie_same_site", &same_site).unwrap_or(SameSite::Lax),
    }
}

/// Reads `device_proof_expire`.
fn device_proof_life(top: &Section<'_>) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(12 * 3600);
    let name = "device_proof_expire";
    let life = top.duration(name);
    if life == Some(None) {
        top.error(name, "must not be 0: a proof has to end; the session's end is one too");
    }
    life.flatten().unwrap_or(DEFAULT)
}

/// A mapping of headers to claims, or claims alone, whose header is made from their name.
fn claims_headers(top: &Section<'_>) -> Vec<(HeaderName, String)> {
    let name = "jwt_claims_headers";
    let pairs: Vec<_> = match top.node(name).map(|node| &node.value) {
        None => return Vec::new(),
        Some(Value::Map(_)) => {
            let pairs = top.pairs(name).unwrap_or_default();
            pairs.into_iter().map(|(header, claim, at)| (header.to_owned(), claim, at)).collect()
        }
        Some(_) => {
            let claims = top.list(name).unwrap_or_default();
            claims.into_iter().map(|(claim, at)| (format!("x-pomerium-claim-{claim}"), claim, at)).collect()
        }
    };
    let header = |(header, claim, at): &(String, &str, _)| {
        top.header_name(*at, &format!("{name}.{header}"), header).map(|header| (header, (*claim).to_owned()))
    };
    pairs.iter().filter_map(header).collect()
}

fn response_headers(top: &Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    match top.headers("set_response_headers") {
        Some(headers) if headers.iter().any(|(name, _)| name == "disable") => Vec::new(),
        Some(headers) => {
            routes::check_response_headers(top, "set_response_headers", headers.iter().map(|(name, _)| name));
            headers
        }
        None => vec![
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")),
            (header::X_XSS_PROTECTION, HeaderValue::from_static("1; mode=block")),
            (
                header::STRICT_TRANSPORT_SECURITY,
                HeaderValue::from_static("max-age=31536000; includeSubDomains; preload"),
            ),
        ],
    }
}

fn timeouts(top: &Section<'_>) -> Timeouts {
    const SHORT: Option<Duration> = Some(Duration::from_secs(30));
    const IDLE: Option<Duration> = Some(Duration::from_secs(300));
    Timeouts {
        read: top.duration("timeout_read").unwrap_or(SHORT),
        write: top.duration("timeout_write").unwrap_or(None),
        idle: top.duration("timeout_idle").unwrap_or(IDLE),
        upstream: top.duration("default_upstream_timeout").unwrap_or(SHORT),
    }
}

/// A stream without a connection holds one to an app and memory, for a client that may never come back: not for long.
fn stream_resume_window(top: &Section<'_>) -> Option<Duration> {
    const DEFAULT: Duration = Duration::from_secs(60);
    const MAX: Duration = Duration::from_secs(10 * 60);
    let window = top.duration("stream_resume_window").unwrap_or(Some(DEFAULT))?;
    if window > MAX || window.subsec_nanos() != 0 {
        top.error("stream_resume_window", "expected whole seconds, up to 10m; 0 for never");
    }
    Some(window)
}

/// External data: a file of YAML or JSON, read whole and again whenever it changes.
fn records(top: &Section<'_>) -> Option<Records> {
    let name = top.filled("records_file")?;
    let tree = |bytes| {
        let text = String::from_utf8(bytes).map_err(|_| format!("{name} is not a text in UTF-8"))?;
        let root = yaml::parse(&text).map_err(|error| match error.at() {
            Some(at) => format!("{name}:{at}: {error}"),
            None => format!("{name}: {error}"),
        })?;
        Records::from_node(&root).map_err(|error| format!("{name}:{}: {error}", error.at))
    };
    match read_file(top.reading, name).and_then(tree) {
        Ok(records) => Some(records),
        Err(message) => {
            top.error("records_file", message);
            None
        }
    }
}

/// MaxMind's files, read whole and again whenever they change.
fn geography(top: &Section<'_>) -> Geography {
    let mut geography = Geography::default();
    let kinds = [
        ("geoip_country_file", Geography::with_countries as fn(_, _) -> _),
        ("geoip_asn_file", Geography::with_systems),
    ];
    for (key, with) in kinds {
        let Some(name) = top.filled(key) else { continue };
        let added = read_database(top.reading, name).and_then(|file| {
            with(std::mem::take(&mut geography), file).map_err(|error| format!("{name}: {error}"))
        });
        match added {
            Ok(both) => geography = both,
            Err(message) => top.error(key, message),
        }
    }
    geography
}

fn log_level(top: &Section<'_>) -> &'static str {
    let levels = [
        ("trace", "trace"),
        ("debug", "debug"),
        ("info", "info"),
        ("warn", "warn"),
        ("warning", "warn"),
        ("error", "error"),
        ("critical", "error"),
        ("fatal", "error"),
        ("panic", "error"),
        ("off", "off"),
        ("none", "off"),
        ("disabled", "off"),
    ];
    top.one_of("log_level", &levels).unwrap_or("info")
}
