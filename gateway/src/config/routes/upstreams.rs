//! `to` with its weights, and the keys about several upstreams: balancing, health, limits.

use std::{path::PathBuf, time::Duration};

use http::uri::{Authority, PathAndQuery};
use url::Url;

use crate::{
    config::{
        Balancing, CircuitBreakers, HealthCheck, OutlierDetection, Probe, Upstream, Upstreams,
        section::Section,
    },
    yaml::{Position, Value},
};

/// Upstreams of a route at most: each has a pool of connections and, with checks, a timer.
const UPSTREAMS_MAX: usize = 256;

/// Health checks of a route at most.
const CHECKS_MAX: usize = 8;

/// Octets that a TCP check may expect in all: they are searched for in what the app sends.
const RECEIVE_LEN_MAX: usize = 4096;

/// What `to` may hold, split from its weight.
pub(super) struct Entry<'a> {
    pub(super) url: &'a str,
    pub(super) at: Position,
    weight: Option<u32>,
}

/// The entries of `to`: one text or a list, all weighted or none.
pub(super) fn entries<'a>(section: &Section<'a>) -> Option<Vec<Entry<'a>>> {
    let node = section.node("to")?;
    let texts = match &node.value {
        Value::List(_) => section.list("to")?,
        _ => vec![(section.text("to")?, node.at)],
    };
    if texts.is_empty() {
        section.error("to", "the list is empty");
        return None;
    }
    if texts.len() > UPSTREAMS_MAX {
        section.error("to", format!("has more than {UPSTREAMS_MAX} entries"));
        return None;
    }
    let entries: Option<Vec<Entry<'_>>> =
        texts.into_iter().map(|(text, at)| entry(section, text, at)).collect();
    let entries = entries?;
    if entries.iter().any(|entry| entry.weight.is_some() != entries[0].weight.is_some()) {
        section.error("to", "give all entries a weight (https://app.example,3), or none");
        return None;
    }
    Some(entries)
}

fn entry<'a>(section: &Section<'a>, text: &'a str, at: Position) -> Option<Entry<'a>> {
    let weighted = text
        .rsplit_once(',')
        .filter(|(_, weight)| !weight.is_empty() && weight.bytes().all(|octet| octet.is_ascii_digit()));
    let Some((url, weight)) = weighted else { return Some(Entry { url: text, at, weight: None }) };
    match weight.parse() {
        Ok(weight) if weight > 0 => Some(Entry { url, at, weight: Some(weight) }),
        _ => {
            section.error_at(at, "to", "the weight must be a whole number from 1 to 4294967295");
            None
        }
    }
}

/// An HTTP app; the second part is the path of its URL, if it has one.
fn upstream(section: &Section<'_>, entry: &Entry<'_>) -> Option<(Upstream, Option<String>)> {
    let fail = |message: String| section.error_at(entry.at, "to", message);
    let (scheme, rest) = entry.url.split_once("://").unwrap_or_default();
    let weight = entry.weight.unwrap_or(1);
    let (url_scheme, socket) = match scheme {
        "http" | "h2c" => ("http", None),
        "https" => ("https", None),
        "unix" => ("http", Some(PathBuf::from(rest))),
        "https+unix" => ("https", Some(PathBuf::from(rest))),
        "ssh" => {
            fail("this scheme is known but not built yet in this gateway".to_owned());
            return None;
        }
        _ => {
            fail(
                "must begin with http://, https://, h2c://, unix://, https+unix://, tcp:// or udp://"
                    .to_owned(),
            );
            return None;
        }
    };
    if let Some(socket) = socket {
        if !socket.is_absolute() {
            fail("a socket is named by its whole path, like unix:///run/app.sock".to_owned());
            return None;
        }
        let origin = Url::parse(&format!("{url_scheme}://localhost")).ok()?;
        let upstream =
            Upstream { name: entry.url.to_owned(), origin, socket: Some(socket), is_h2c: false, weight };
        return Some((upstream, None));
    }
    let mut origin = Url::parse(&format!("{url_scheme}://{rest}"))
        .map_err(|error| fail(format!("is no valid URL: {error}")))
        .ok()?;
    if !origin.username().is_empty() || origin.password().is_some() {
        fail("a URL must not hold credentials".to_owned());
        return None;
    }
    if origin.query().is_some() || origin.fragment().is_some() {
        fail("must not have a query or fragment".to_owned());
        return None;
    }
    // `http://app` and `http://app/` differ: only the second replaces the matched prefix.
    let path = rest.contains('/').then(|| origin.path().to_owned());
    origin.set_path("");
    let name = format!("{scheme}://{}", rest.split('/').next().unwrap_or_default());
    Some((Upstream { name, origin, socket: None, is_h2c: scheme == "h2c", weight }, path))
}

/// The upstreams of an HTTP route; the second part is the path of the first one's URL, if it has one.
pub(super) fn upstreams(section: &Section<'_>, entries: &[Entry<'_>]) -> Option<(Upstreams, Option<String>)> {
    let read: Vec<_> = entries.iter().filter_map(|entry| upstream(section, entry)).collect();
    let policies = [
        ("round_robin", Balancing::RoundRobin),
        ("least_request", Balancing::LeastRequest),
        ("random", Balancing::Random),
        ("ring_hash", Balancing::RingHash),
        ("maglev", Balancing::Maglev),
    ];
    let balancing = section.one_of("load_balancing_policy", &policies).unwrap_or_default();
    let health_checks = health_checks(section);
    let outlier_detection = outlier_detection(section);
    if entries.len() == 1 && outlier_detection.is_some() {
        section.warn("outlier_detection", "has no effect: the only upstream is never ejected");
    }
    let panic_threshold = number(section, "healthy_panic_threshold", 0, 100).unwrap_or(0);
    let limits = limits(section);
    if read.len() < entries.len() {
        return None;
    }
    let path = read.first().and_then(|(_, path)| path.clone());
    if read.iter().any(|(_, other)| other.as_deref().unwrap_or("/") != path.as_deref().unwrap_or("/")) {
        section.warn("to", "has several paths: that of the first entry is used for all");
    }
    let members = read.into_iter().map(|(upstream, _)| upstream).collect();
    let panic_threshold = u8::try_from(panic_threshold).unwrap_or(100);
    Some((Upstreams { members, balancing, health_checks, outlier_detection, panic_threshold, limits }, path))
}

/// A whole number within bounds.
fn number(section: &Section<'_>, name: &str, min: u32, max: u32) -> Option<u32> {
    let number = section.whole(name)?;
    let within = u32::try_from(number).ok().filter(|number| (min..=max).contains(number));
    if within.is_none() {
        section.error(name, format!("expected a whole number from {min} to {max}"));
    }
    within
}

/// A time that is not 0, or the default.
fn time(section: &Section<'_>, name: &str, default: Duration) -> Duration {
    match section.duration(name) {
        Some(Some(time)) => time,
        Some(None) => {
            section.error(name, "must not be 0");
            default
        }
        None => default,
    }
}

/// Of a mapping that is Envoy's: `known` keys are read, the others are refused in words of their own.
fn allow(section: &Section<'_>, known: &[&'static str], not_built: &[&str]) {
    for entry in section.entries {
        let key = entry.key.as_str();
        if not_built.contains(&key) {
            section.error(key, "is known but not built yet in this gateway");
        } else if !known.contains(&key) {
            section.error(key, format!("unknown key; expected one of {}", known.join(", ")));
        }
    }
}

fn health_checks(section: &Section<'_>) -> Vec<HealthCheck> {
    let name = "health_checks";
    let items = match section.node(name).map(|node| &node.value) {
        None => return Vec::new(),
        Some(Value::List(items)) => items,
        Some(other) => {
            section.error(name, format!("expected a list of checks, found {}", other.kind()));
            return Vec::new();
        }
    };
    if items.len() > CHECKS_MAX {
        section.error(name, format!("has more than {CHECKS_MAX} checks"));
    }
    let check = |(index, item)| {
        let path = section.key(&format!("{name}[{index}]"));
        health_check(&Section::of(section.reading, path, item)?)
    };
    items.iter().take(CHECKS_MAX).enumerate().filter_map(check).collect()
}

fn health_check(section: &Section<'_>) -> Option<HealthCheck> {
    let known = [
        "timeout",
        "interval",
        "unhealthy_threshold",
        "healthy_threshold",
        "http_health_check",
        "tcp_health_check",
        "grpc_health_check",
    ];
    let not_built = [
        "custom_health_check",
        "initial_jitter",
        "interval_jitter",
        "interval_jitter_percent",
        "reuse_connection",
        "no_traffic_interval",
        "no_traffic_healthy_interval",
        "unhealthy_interval",
        "unhealthy_edge_interval",
        "healthy_edge_interval",
        "event_log_path",
        "always_log_health_check_failures",
        "always_log_health_check_success",
        "alt_port",
        "tls_options",
        "transport_socket_match_criteria",
    ];
    allow(section, &known, &not_built);
    let inner = |name| Section::of(section.reading, section.key(name), section.node(name)?);
    let probes = (inner("http_health_check"), inner("tcp_health_check"), inner("grpc_health_check"));
    let probe = match probes {
        (Some(http), None, None) => http_probe(&http)?,
        (None, Some(tcp), None) => tcp_probe(&tcp)?,
        (None, None, Some(grpc)) => grpc_probe(&grpc),
        (None, None, None) => {
            section.error(
                "http_health_check",
                "is missing: a check needs http_health_check, tcp_health_check or grpc_health_check",
            );
            return None;
        }
        _ => {
            section.error("http_health_check", "is one of several: make each a check of its own");
            return None;
        }
    };
    Some(HealthCheck {
        timeout: time(section, "timeout", Duration::from_secs(5)),
        interval: time(section, "interval", Duration::from_secs(10)),
        unhealthy_threshold: number(section, "unhealthy_threshold", 1, 1000).unwrap_or(3),
        healthy_threshold: number(section, "healthy_threshold", 1, 1000).unwrap_or(2),
        probe,
    })
}

fn http_probe(section: &Section<'_>) -> Option<Probe> {
    let not_built = [
        "codec_client_type",
        "send",
        "receive",
        "response_buffer_size",
        "request_headers_to_add",
        "request_headers_to_remove",
        "retriable_statuses",
        "service_name_matcher",
        "method",
    ];
    allow(section, &["host", "path", "expected_statuses"], &not_built);
    let path = section.filled("path").unwrap_or("/");
    if !path.starts_with('/') || path.parse::<PathAndQuery>().is_err() {
        section.error("path", "expected a path that begins with /");
    }
    let host = authority(section, "host");
    let expected = match section.node("expected_statuses").map(|node| &node.value) {
        None => std::iter::once(200..201).collect(),
        Some(Value::List(items)) => {
            let ranges = items.iter().enumerate().map(|(index, item)| {
                let path = section.key(&format!("expected_statuses[{index}]"));
                let range = Section::of(section.reading, path, item)?;
                range.allow_only(&["start", "end"]);
                let (start, end) = (number(&range, "start", 100, 599)?, number(&range, "end", 101, 600)?);
                if start >= end {
                    range.error("end", "is one past the last status: expected more than start");
                }
                Some(u16::try_from(start).ok()?..u16::try_from(end).ok()?)
            });
            ranges.collect::<Option<Vec<_>>>()?
        }
        Some(other) => {
            section.error("expected_statuses", format!("expected a list of ranges, found {}", other.kind()));
            return None;
        }
    };
    Some(Probe::Http { host, path: path.to_owned(), expected })
}

fn grpc_probe(section: &Section<'_>) -> Probe {
    allow(section, &["service_name", "authority"], &["initial_metadata"]);
    let service = section.text("service_name").unwrap_or_default().to_owned();
    Probe::Grpc { service, authority: authority(section, "authority") }
}

fn authority(section: &Section<'_>, name: &str) -> Option<Authority> {
    let host = section.filled(name)?.parse::<Authority>().ok().filter(|host| !host.as_str().contains('@'));
    if host.is_none() {
        section.error(name, "expected a host, with a port if need be");
    }
    host
}

fn tcp_probe(section: &Section<'_>) -> Option<Probe> {
    allow(section, &["send", "receive"], &["proxy_protocol_config"]);
    let send = match section.node("send") {
        None => Vec::new(),
        Some(node) => text(&Section::of(section.reading, section.key("send"), node)?)?,
    };
    let receive = match section.node("receive").map(|node| &node.value) {
        None => Vec::new(),
        Some(Value::List(items)) => {
            let texts = items.iter().enumerate().map(|(index, item)| {
                let path = section.key(&format!("receive[{index}]"));
                text(&Section::of(section.reading, path, item)?)
            });
            texts.collect::<Option<Vec<_>>>()?
        }
        Some(other) => {
            section.error("receive", format!("expected a list, found {}", other.kind()));
            return None;
        }
    };
    if send.len().max(receive.iter().map(Vec::len).sum()) > RECEIVE_LEN_MAX {
        section.error("receive", format!("and send may have {RECEIVE_LEN_MAX} octets each"));
        return None;
    }
    Some(Probe::Tcp { send, receive })
}

/// `text`: octets in hexadecimal.
fn text(section: &Section<'_>) -> Option<Vec<u8>> {
    allow(section, &["text"], &["binary"]);
    let octets = section.filled("text").and_then(|text| {
        let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
        digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
    });
    if octets.is_none() {
        section.error("text", "expected octets in hexadecimal, like 50494e47");
    }
    octets
}

fn outlier_detection(section: &Section<'_>) -> Option<OutlierDetection> {
    let name = "outlier_detection";
    let inner = Section::of(section.reading, section.key(name), section.node(name)?)?;
    let known = [
        "consecutive_5xx",
        "consecutive_gateway_failure",
        "base_ejection_time",
        "max_ejection_time",
        "max_ejection_percent",
    ];
    let not_built = [
        "interval",
        "enforcing_consecutive_5xx",
        "enforcing_success_rate",
        "success_rate_minimum_hosts",
        "success_rate_request_volume",
        "success_rate_stdev_factor",
        "enforcing_consecutive_gateway_failure",
        "split_external_local_origin_errors",
        "consecutive_local_origin_failure",
        "enforcing_consecutive_local_origin_failure",
        "enforcing_local_origin_success_rate",
        "failure_percentage_threshold",
        "enforcing_failure_percentage",
        "enforcing_failure_percentage_local_origin",
        "failure_percentage_minimum_hosts",
        "failure_percentage_request_volume",
        "max_ejection_time_jitter",
        "successful_active_health_check_uneject_host",
        "monitors",
        "always_eject_one_host",
    ];
    allow(&inner, &known, &not_built);
    let base_ejection_time = time(&inner, "base_ejection_time", Duration::from_secs(30));
    let longest = Duration::from_secs(300).max(base_ejection_time);
    let max_ejection_time = time(&inner, "max_ejection_time", longest);
    if max_ejection_time < base_ejection_time {
        inner.error("max_ejection_time", "is shorter than base_ejection_time");
    }
    let count = |name| number(&inner, name, 0, u32::MAX);
    Some(OutlierDetection {
        consecutive_5xx: Some(count("consecutive_5xx").unwrap_or(5)).filter(|count| *count > 0),
        consecutive_gateway_failure: count("consecutive_gateway_failure").filter(|count| *count > 0),
        base_ejection_time,
        max_ejection_time,
        max_ejection_percent: number(&inner, "max_ejection_percent", 0, 100)
            .and_then(|percent| u8::try_from(percent).ok())
            .unwrap_or(10),
    })
}

fn limits(section: &Section<'_>) -> CircuitBreakers {
    let name = "circuit_breaker_thresholds";
    let inner = section.node(name).and_then(|node| Section::of(section.reading, section.key(name), node));
    let Some(inner) = inner else { return CircuitBreakers::default() };
    allow(
        &inner,
        &["max_connections", "max_requests", "max_retries"],
        &["max_pending_requests", "max_connection_pools"],
    );
    CircuitBreakers {
        max_connections: number(&inner, "max_connections", 1, 1_000_000),
        max_requests: number(&inner, "max_requests", 1, u32::MAX),
        max_retries: number(&inner, "max_retries", 0, u32::MAX),
    }
}
