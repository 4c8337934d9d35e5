//! Signs people in and out: the hop to the identity provider and back, and the hop to the host they came from.
//!
//! No policy lives here: who may do what is `authorize`'s to say. Nothing here listens: requests come in as parts, and
//! answers go out whole. The ways in: [`Authenticate::handle_authenticate_host`], [`Authenticate::handle_route_host`],
//! [`Authenticate::session_of`] and [`Authenticate::sign_in_response`].

mod account;
mod back_channel;
mod browser_device;
mod consent;
mod cookies;
mod device_grant;
mod device_pages;
mod device_proof;
mod hand_over_code;
mod issuer;
mod jws;
mod landings;
mod pages;
mod peer_pages;
mod peers;
pub mod provider;
mod provider_answer;
pub mod refresh;
mod renewal;
mod route_host;
mod sign_in;
mod sign_out;
pub mod signed_url;
mod state;
mod targets;
#[cfg(test)]
mod tests;
mod ticket;
mod token_endpoint;
mod workload;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use url::Url;

pub(crate) use self::peers::EnrolError;
pub use self::{
    device_pages::{SCRIPT as WEBAUTHN_SCRIPT, SCRIPT_PATH as WEBAUTHN_SCRIPT_PATH},
    landings::forget as forget_landings,
    peer_pages::{SCRIPT as PEERS_SCRIPT, SCRIPT_PATH as PEERS_SCRIPT_PATH},
    route_host::{LOGIN_PATH, ROUTE_HOST_PATHS},
    sign_in::is_framed,
};
use self::{
    issuer::Issuer,
    provider::{Provider, ProviderError},
    workload::Workload,
};
use crate::{
    config::{CookieSettings, IdentityProvider, WorkloadIssuer},
    device::Thumbprint,
    https_client::HttpsClient,
    portal::Look,
    secret::Secret,
    session::{
        Session,
        credentials::{self, CredentialSource},
        handle::{HandleError, HandleKey, SessionHandle},
    },
    store::{SERVICE_ACCOUNT_IDP, ServiceAccount, Store, StoreError},
    wireguard_peer::PeerTerms,
};

/// What the service needs of the configuration, and the keys.
pub struct AuthenticateConfig {
    /// `authenticate_service_url`: its origin is the sign-in host; its port is the gateway's public port.
    pub authenticate_url: Url,
    /// `signout_redirect_url`.
    pub signout_redirect_url: Option<Url>,
    /// `programmatic_redirect_domain_whitelist`; `localhost` stands for any loopback address.
    pub programmatic_redirect_domains: Vec<String>,
    /// `cookie_*`.
    pub cookie: CookieSettings,
    /// `idp_*`.
    pub identity_provider: IdentityProvider,
    /// The longest `idp_unreachable_grace` of all routes.
    pub unreachable_grace: Duration,
    /// `workload_issuers`.
    pub workload_issuers: Vec<WorkloadIssuer>,
    /// `device_proof_expire`.
    pub device_proof_life: Duration,
    /// `wireguard_*`: on what terms people enrol WireGuard peers. `None`: they cannot.
    pub peer_terms: Option<PeerTerms>,
    /// `branding`.
    pub look: Look,
    /// Roots to trust for the provider, beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Signs handles and URLs.
    pub shared_secret: Secret<[u8; 32]>,
    /// Seals the sign-in's own state.
    pub cookie_secret: Secret<[u8; 32]>,
    /// Whether this host (no port, lower case) is the host of a configured route or the sign-in host: nobody is ever
    /// sent to another.
    pub is_our_host: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Whether the configuration names this very host of ours: one that only a wildcard matches may lead anywhere, so that
    /// people are asked before they are sent there with a session.
    pub is_named_host: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl fmt::Debug for AuthenticateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateConfig")
            .field("authenticate_url", &self.authenticate_url.as_str())
            .finish_non_exhaustive()
    }
}

/// One request, parsed.
#[derive(Debug, Clone)]
pub struct AuthRequest<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The whole URL as the browser sees it: `https`, the host and port that it asked for, path and query.
    pub url: &'a Url,
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// Its body, if it is a form.
    pub form: Bytes,
    /// The device key that its connection proved to hold.
    pub key: Option<&'a Thumbprint>,
}

/// Who shows a handle.
#[derive(Debug, Clone, Copy)]
enum Holder<'a> {
    /// The other end of a connection, which proved this key or none.
    Connection(Option<&'a Thumbprint>),
    /// We ourselves, on its way through a browser to the program that asked for it.
    HandOver,
}

/// Signs people in and out. Cheap to share; one for each configuration.
#[derive(Debug)]
pub struct Authenticate {
    config: AuthenticateConfig,
    idp_id: String,
    handle_key: HandleKey,
    provider: Arc<Provider>,
    /// For the provider's logout tokens.
    provider_keys: Issuer,
    workloads: Vec<Workload>,
    store: Store,
}

/// What became of a request's credential.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    /// The request carries none.
    Absent,
    /// It carries one that is worth nothing, found here. A browser signs in again, a program gets a 401.
    Invalid(CredentialSource, InvalidCredential),
    /// It belongs to this living session, and was found here.
    Valid(CredentialSource, Arc<Session>),
}

/// Why a credential is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredential {
    /// Not one of our handles, or not for here and now.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// The session was ended, or never was.
    #[error("the session has ended")]
    Ended,
    /// The session's time is over.
    #[error("the session has expired")]
    Expired,
    /// The session is of a provider that is not configured any more.
    #[error("the session belongs to another identity provider")]
    OtherProvider,
    /// The identity provider has not vouched for the session for longer than the route bears.
    #[error("the identity provider cannot be reached and has not confirmed the session for too long")]
    Unvouched,
    /// The session is bound to a device key, and the connection did not prove that one.
    #[error("the session is bound to the key of another device, which this connection did not show")]
    OtherDevice,
    /// Two cookies hold sessions of different people: whoever has a sibling domain may have planted one beside ours.
    #[error(
        "the browser sent the sessions of two people at once, one of which another site of this domain may have \
         planted: delete the cookies of this site"
    )]
    TwoPeople,
}

impl Holder<'_> {
    /// Whether a handle of this session counts in these hands (RFC 8705, 3).
    fn may_use(self, session: &Session) -> bool {
        match (&session.bound_to, self) {
            (None, _) | (Some(_), Self::HandOver) => true,
            (Some(bound_to), Self::Connection(proven)) => proven == Some(bound_to),
        }
    }
}

impl Authenticate {
    /// The service over this configuration and store. Speaks to nobody yet.
    ///
    /// # Errors
    /// [`ProviderError`]: no TLS client could be built, or the sign-in URL cannot carry a callback.
    pub fn new(config: AuthenticateConfig, store: Store) -> Result<Self, ProviderError> {
        let callback = config
            .authenticate_url
            .join(sign_in::CALLBACK_PATH)
            .map_err(|_| ProviderError::Nonconforming("authenticate_service_url cannot carry a path"))?;
        let provider = Provider::new(config.identity_provider.clone(), callback, &config.extra_roots)?;
        let http = HttpsClient::new(&config.extra_roots)
            .map_err(|error| ProviderError::Unreachable(error.into()))?;
        let workloads =
            config.workload_issuers.iter().map(|settings| Workload::new(settings, &http)).collect();
        let issuer = config.authenticate_url.host_str().unwrap_or_default();
        Ok(Self {
            provider_keys: Issuer::new(config.identity_provider.issuer.clone(), http),
            workloads,
            idp_id: idp_id(&config.identity_provider),
            handle_key: HandleKey::new(*config.shared_secret.expose(), issuer),
            provider: Arc::new(provider),
            store,
            config,
        })
    }

    /// The provider, for the refresh loop.
    fn provider(&self) -> Arc<Provider> {
        Arc::clone(&self.provider)
    }

    /// The living session of a request, for the host that it asks for (`None`: any, for tunnels, whose authority is
    /// not a host of ours). A credential that is worth nothing counts as none.
    ///
    /// # Errors
    /// [`StoreError`]: answer 503; nothing is known.
    pub async fn session_of(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        host: Option<&str>,
        key: Option<&Thumbprint>,
        now: SystemTime,
    ) -> Result<Option<Arc<Session>>, StoreError> {
        Ok(match self.resolve(headers, query, host, key, now).await? {
            Resolved::Valid(_, session) => Some(session),
            Resolved::Absent | Resolved::Invalid(..) => None,
        })
    }

    /// As [`Self::session_of`], and tells a missing credential from a worthless one. `key` is what the connection proved:
    /// a bound session counts with its own key only.
    ///
    /// # Errors
    /// [`StoreError`]: answer 503; nothing is known.
    pub async fn resolve(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        host: Option<&str>,
        key: Option<&Thumbprint>,
        now: SystemTime,
    ) -> Result<Resolved, StoreError> {
        let mut first = Resolved::Absent;
        let mut valid: Option<(CredentialSource, Arc<Session>)> = None;
        for found in credentials::from_headers(headers, query, &self.config.cookie.name) {
            match self.session_of_token(found.token.expose(), host, Holder::Connection(key), now).await? {
                Ok(session) => match &valid {
                    Some((_, other)) if other.user_id != session.user_id => {
                        return Ok(Resolved::Invalid(found.source, InvalidCredential::TwoPeople));
                    }
                    Some(_) => {}
                    None => valid = Some((found.source, session)),
                },
                Err(why) if first == Resolved::Absent => first = Resolved::Invalid(found.source, why),
                Err(_) => {}
            }
        }
        Ok(valid.map_or(first, |(source, session)| Resolved::Valid(source, session)))
    }

    /// Whether a session of the store still counts: its time is not over, and its provider is the one in use.
    #[must_use]
    pub fn stands_by(&self, session: &Session, now: SystemTime) -> bool {
        session.is_valid_at(now) && self.vouches_for(session)
    }

    async fn session_of_token(
        &self,
        token: &str,
        host: Option<&str>,
        holder: Holder<'_>,
        now: SystemTime,
    ) -> Result<Result<Arc<Session>, InvalidCredential>, StoreError> {
        let handle = match self.handle_for(token, host, now) {
            Ok(handle) => handle,
            Err(error) => return Ok(Err(error.into())),
        };
        let Some(session) = self.store.session(&handle.session_id).await? else {
            return Ok(Err(InvalidCredential::Ended));
        };
        Ok(if session.user_id != handle.user_id || session.bound_to != handle.bound_to {
            Err(InvalidCredential::Ended)
        } else if !session.is_valid_at(now) {
            Err(InvalidCredential::Expired)
        } else if !self.vouches_for(&session) {
            Err(InvalidCredential::OtherProvider)
        } else if !holder.may_use(&session) {
            Err(InvalidCredential::OtherDevice)
        } else {
            Ok(session)
        })
    }

    /// Whether whoever vouched for a session is still configured.
    fn vouches_for(&self, session: &Session) -> bool {
        session.idp_id == self.idp_id
            || session.idp_id == SERVICE_ACCOUNT_IDP
            || self.workloads.iter().any(|workload| workload.idp_id() == session.idp_id)
    }

    /// With `cookie_domain`, one cookie serves all hosts below it, and so does its handle.
    fn handle_for(
        &self,
        token: &str,
        host: Option<&str>,
        now: SystemTime,
    ) -> Result<SessionHandle, HandleError> {
        match self.handle_key.verify(token, host, now) {
            Err(HandleError::OtherAudience) => {}
            other => return other,
        }
        let handle = self.handle_key.verify(token, None, now)?;
        // A service account's token was made for the gateway, not for one of its hosts.
        if ServiceAccount::is_id(&handle.session_id) {
            return Ok(handle);
        }
        let shared =
            |name: &str| self.config.cookie.domain.as_deref().is_some_and(|domain| is_within(name, domain));
        if host.is_some_and(shared) && handle.audience.iter().any(|name| shared(name)) {
            return Ok(handle);
        }
        Err(HandleError::OtherAudience)
    }

    /// Answers a request to the sign-in host; what is not ours to answer is a 404.
    pub async fn handle_authenticate_host(&self, req: AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        pages::framed(self.answer_authenticate_host(req, now).await, &self.config.look)
    }

    async fn answer_authenticate_host(&self, req: AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        let is_read = req.method == Method::GET || req.method == Method::HEAD;
        match req.url.path() {
            "/" if is_read => pages::redirect("/.pomerium/"),
            "/.pomerium" | "/.pomerium/" if is_read => self.account_page(&req, now).await,
            sign_in::SIGN_IN_PATH if is_read => self.sign_in(&req, now).await,
            sign_in::RENEW_PATH if is_read => self.renew(&req, now),
            sign_in::CALLBACK_PATH if is_read || req.method == Method::POST => {
                self.provider_callback(&req, now).await
            }
            sign_out::SIGN_OUT_PATH if is_read || req.method == Method::POST => {
                self.sign_out(&req, now).await
            }
            sign_out::SIGNED_OUT_PATH if is_read => self.signed_out_page(),
            device_grant::DEVICE_PATH if is_read => self.device_page(&req, now).await,
            device_grant::DEVICE_PATH if req.method == Method::POST => self.decide_device(&req, now).await,
            consent::CONTINUE_PATH if req.method == Method::POST => self.go_on(&req, now).await,
            account::END_PATH if req.method == Method::POST => self.end_own_session(&req, now).await,
            back_channel::BACK_CHANNEL_PATH if req.method == Method::POST => {
                self.back_channel_logout(&req, now).await
            }
            "/"
            | "/.pomerium/"
            | sign_in::SIGN_IN_PATH
            | sign_in::RENEW_PATH
            | device_grant::DEVICE_PATH
            | consent::CONTINUE_PATH
            | account::END_PATH
            | back_channel::BACK_CHANNEL_PATH
            | sign_in::CALLBACK_PATH
            | sign_out::SIGN_OUT_PATH
            | sign_out::SIGNED_OUT_PATH => {
                pages::problem(StatusCode::METHOD_NOT_ALLOWED, "This page cannot be used that way.")
            }
            path if path.starts_with(peer_pages::PEERS_PATH) => self.peer_page(&req, now).await,
            _ => match self.browser_device(&req, now).await {
                Some(response) => response,
                None => pages::problem(StatusCode::NOT_FOUND, "There is no such page."),
            },
        }
    }

    /// The token by which programs use this session at these hosts.
    fn program_token(&self, session: &Session, hosts: &[String], now: SystemTime) -> Option<Secret<String>> {
        let own = self.config.authenticate_url.host_str().unwrap_or_default().to_owned();
        let mut audience: Vec<String> = hosts.iter().filter(|host| **host != own).cloned().collect();
        audience.insert(0, own);
        self.handle_key.mint(session, &audience, now).ok()
    }

    /// The session of the sign-in host's own cookie; no other credential, and nobody but a person, counts there.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is known.
    pub(crate) async fn sign_in_host_session(
        &self,
        req: &AuthRequest<'_>,
        now: SystemTime,
    ) -> Result<Option<Arc<Session>>, StoreError> {
        let (audience, holder) = (self.sign_in_audience(), Holder::Connection(req.key));
        for token in credentials::cookies(req.headers, &self.sign_in_cookie_name()) {
            let found = self.session_of_token(token, Some(&audience), holder, now).await?;
            if let Some(session) = found.ok().filter(|session| session.idp_id == self.idp_id) {
                return Ok(Some(session));
            }
        }
        Ok(None)
    }

    /// Whom the sign-in cookie is for: no host, so that it opens no app, and no handle of an app opens the sign-in host,
    /// which hands out all the others.
    fn sign_in_audience(&self) -> String {
        let mut url = self.config.authenticate_url.clone();
        url.set_path(sign_in::SIGN_IN_PATH);
        url.into()
    }

    fn sign_in_cookie_name(&self) -> String {
        format!("{}_authenticate", self.config.cookie.name)
    }
}

/// Names the provider's configuration: sessions begun under another one do not count. Only equality matters.
fn idp_id(settings: &IdentityProvider) -> String {
    let mut digest = Sha256::new();
    for part in [settings.issuer.as_str(), &settings.client_id] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    URL_SAFE_NO_PAD.encode(digest.finalize())
}

/// Whether `host` is `domain` or a name below it.
fn is_within(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.to_ascii_lowercase(), domain.trim_start_matches('.').to_ascii_lowercase());
    host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        && !domain.is_empty()
}

fn store_failed(error: &StoreError) -> Response<Bytes> {
    tracing::error!(error = error as &dyn std::error::Error, "the session store failed");
    pages::problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "Sessions cannot be read at the moment. Try again in a minute.",
    )
}
