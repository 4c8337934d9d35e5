//! Looks at the parts that the settings name. Each look has a limit of time, and what fails is a fact too.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::UNIX_EPOCH,
};

use http::{HeaderMap, Request, StatusCode, header};
use pomerium_shared::{clock::Now, quic};
use rustls_pki_types::CertificateDer;
use tokio::net::lookup_host;
use url::Url;

use super::{
    facts::{Answer, Certificate, Door, Facts, Provider, Store},
    knock::{Call, within},
};
use crate::{
    app,
    authenticate::provider::{PendingSignIn, Provider as OpenIdProvider},
    autocert::hosts_without_certificate,
    config::{Codec, Settings, Storage},
    https_client::HttpsClient,
    secret::Secret,
    session::demand::SignInDemand,
    x509::{CertificateParts, DNS_NAME},
};

/// Characters of another's answer that are shown at most.
const SHOWN_MAX: usize = 200;
/// A verifier as long as the shortest that is allowed (RFC 7636, 4.1): nothing is ever redeemed with it.
const VERIFIER: &str = "the-doctor-only-looks-and-redeems-no-code---";

/// All facts, as of now.
pub(crate) async fn gather(settings: &Settings) -> Facts {
    let sign_in_host = settings.authenticate_url.host_str().unwrap_or_default().to_owned();
    let port = settings.authenticate_url.port_or_known_default().unwrap_or(443);
    let leaves: Vec<CertificateDer<'static>> = match settings.autocert {
        Some(_) => Vec::new(),
        None => settings.certificates.iter().filter_map(|all| all.chain.first().cloned()).collect(),
    };
    let call = Call { host: &sign_in_host, port, ours: &leaves };
    let found =
        within(async { Ok(lookup_host((sign_in_host.as_str(), port)).await?.collect::<Vec<_>>()) }).await;
    let public = found.as_deref().unwrap_or_default();
    let own = [reachable(settings.address)];
    let (provider, here, outside, udp) = tokio::join!(
        provider(settings),
        call.tcp(&own, settings.use_proxy_protocol),
        async { if public.is_empty() { Door::Closed(String::new()) } else { call.tcp(public, false).await } },
        async {
            match public.first() {
                Some(address) => call.quic(*address).await,
                None => Err(String::new()),
            }
        },
    );
    let is_this_machine = public.iter().any(|address| UdpSocket::bind((address.ip(), 0)).is_ok());
    let addresses = match &found {
        Ok(all) if all.is_empty() => Err("the name has no address".to_owned()),
        Ok(all) => Ok(distinct(all)),
        Err(why) => Err(why.clone()),
    };
    Facts {
        port,
        speaks_quic: settings.codec == Codec::All,
        use_proxy_protocol: settings.use_proxy_protocol,
        provider,
        addresses,
        is_this_machine,
        here,
        outside,
        udp,
        buffers: buffers(),
        store: store(settings).await,
        certificates: leaves_of(settings),
        has_autocert: settings.autocert.is_some(),
        uncovered: hosts_without_certificate(settings).into_iter().collect(),
        sign_in_host,
    }
}

/// An address of this machine for one that stands for all of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        // The gateway listens on both families then, and IPv4 is on each machine.
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    (ip, address.port()).into()
}

fn distinct(addresses: &[SocketAddr]) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for address in addresses {
        if !all.contains(&address.ip()) {
            all.push(address.ip());
        }
    }
    all
}

async fn provider(settings: &Settings) -> Provider {
    let issuer = settings.identity_provider.issuer.to_string();
    let redirect = settings.authenticate_url.join("/oauth2/callback");
    let mut seen = Provider {
        redirect: redirect.as_ref().map_or_else(|_| String::new(), Url::to_string),
        issuer,
        discovery: Ok(()),
        answer: None,
        clock_ahead: None,
    };
    let page = match redirect {
        Ok(redirect) => sign_in_page(settings, redirect).await,
        Err(error) => Err(error.to_string()),
    };
    let page = match page {
        Ok(page) => page,
        Err(why) => return Provider { discovery: Err(why), ..seen },
    };
    let request = Request::get(page.as_str()).header(header::ACCEPT, "text/html").body(Vec::new());
    let asked = match (HttpsClient::new(&[]), request) {
        (Ok(client), Ok(request)) => client.send(request).await.map_err(|error| chain(&error)),
        _ => return seen,
    };
    match asked {
        Ok(answer) => {
            seen.clock_ahead = date(answer.headers()).map(|date| date - now());
            let body = String::from_utf8_lossy(answer.body());
            seen.answer = Some(of_page(answer.status(), answer.headers(), &body));
        }
        Err(why) => seen.answer = Some(Answer::Silent(why)),
    }
    seen
}

/// Where a browser would be sent to sign in.
async fn sign_in_page(settings: &Settings, redirect: Url) -> Result<Url, String> {
    let provider = OpenIdProvider::new(settings.identity_provider.clone(), redirect, &[]);
    let provider = provider.map_err(|error| chain(&error))?;
    let pending = PendingSignIn {
        nonce: Secret::new("doctor".to_owned()),
        pkce_verifier: Secret::new(VERIFIER.to_owned()),
    };
    let page = provider.authorization_url(&pending, &SignInDemand::default(), "doctor".to_owned()).await;
    page.map_err(|error| chain(&error))
}

/// What a provider's answer to a sign-in means. Providers differ in the words and agree in the name of the parameter.
fn of_page(status: StatusCode, headers: &HeaderMap, body: &str) -> Answer {
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_error = status.is_client_error() || location.contains("error=");
    if !is_error {
        return Answer::GoesOn;
    }
    let words = format!("{location} {body}").to_lowercase();
    if ["redirect_uri", "redirect uri", "redirect url", "reply url"].iter().any(|part| words.contains(part)) {
        return Answer::NoSuchRedirect;
    }
    let said: String = body.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect();
    Answer::Refuses(format!("it answers {status}: {said}"))
}

fn date(headers: &HeaderMap) -> Option<i64> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second())
}

fn now() -> i64 {
    let since = Now::read().wall.duration_since(UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

async fn store(settings: &Settings) -> Store {
    let opened = match app::open_store(settings).await {
        Ok(store) => {
            store.close().await;
            Ok(())
        }
        Err(error) => Err(format!("{error:#}")),
    };
    match &settings.storage {
        Storage::Memory => Store::Memory,
        Storage::Folder(path) => Store::Folder { path: path.clone(), opened },
        Storage::Postgres(_) => Store::Postgres { opened },
    }
}

fn leaves_of(settings: &Settings) -> Vec<Certificate> {
    let now = now();
    let leaf = |chain: &[CertificateDer<'static>]| {
        let parts = CertificateParts::of(chain.first()?)?;
        let name = parts.names().find_map(|name| String::from_utf8(name.content(DNS_NAME)?.to_vec()).ok());
        let validity = parts.validity();
        Some(Certificate {
            name: name.unwrap_or_else(|| "without a name".to_owned()),
            left: validity.map(|validity| validity.not_after - now),
            is_begun: validity.is_none_or(|validity| validity.not_before <= now),
        })
    };
    settings.certificates.iter().filter_map(|all| leaf(&all.chain)).collect()
}

fn buffers() -> Option<(usize, usize)> {
    let socket = quic::bind((Ipv6Addr::LOCALHOST, 0).into())
        .or_else(|_| quic::bind((Ipv4Addr::LOCALHOST, 0).into()))
        .ok()?;
    let socket = socket2::SockRef::from(&socket);
    Some((socket.recv_buffer_size().ok()?, socket.send_buffer_size().ok()?))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_say_in_their_own_words_that_they_do_not_know_the_redirect_address() {
        let located = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location.parse().unwrap());
            headers
        };
        for body in [
            "Error 400: redirect_uri_mismatch",
            "AADSTS50011: The reply URL specified in the request does not match",
            "redirect_uri did not match any of the client's registered redirect_uris",
        ] {
            assert_eq!(
                of_page(StatusCode::BAD_REQUEST, &HeaderMap::new(), body),
                Answer::NoSuchRedirect,
                "{body}"
            );
        }
        let sent_on = located("https://id.example/signin/error?error=redirect_uri_mismatch");
        assert_eq!(of_page(StatusCode::FOUND, &sent_on, ""), Answer::NoSuchRedirect);
        let sign_in = located("https://id.example/login?redirect_uri=x");
        assert_eq!(of_page(StatusCode::FOUND, &sign_in, ""), Answer::GoesOn);
        assert_eq!(of_page(StatusCode::OK, &HeaderMap::new(), "redirect_uri"), Answer::GoesOn);
        let Answer::Refuses(why) =
            of_page(StatusCode::BAD_REQUEST, &HeaderMap::new(), "invalid\n client\u{1b}")
        else {
            panic!("an unknown client goes on");
        };
        assert_eq!(why, "it answers 400 Bad Request: invalid client");
    }
}
