//! The OpenID Connect provider: discovery, code flow with PKCE, refresh, sign-out.
//!
//! "It says no" and "it cannot be reached" are different errors: the first ends a sign-in or a session, the second ends
//! nothing.

mod http_client;
mod identity;

use std::pin::Pin;

use http::{Request, Response};
use openidconnect::{
    AuthorizationCode, ClientId, ClientSecret, CsrfToken, IssuerUrl, Nonce, OAuth2TokenResponse as _,
    PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, ProviderMetadataWithLogout, RedirectUrl, RefreshToken,
    RequestTokenError, Scope, TokenResponse as _,
    core::{CoreAuthenticationFlow, CoreClient, CoreTokenResponse},
};
use rustls_pki_types::CertificateDer;
use tokio::sync::OnceCell;
use url::Url;

use self::http_client::{CallError, HttpClient};
pub(crate) use self::identity::Identity;
use super::sign_in::hash;
use crate::config::IdentityProvider;

/// The library's client; its type says which endpoints are known, so it cannot be named shortly.
macro_rules! client {
    ($provider:ident, $metadata:ident) => {
        CoreClient::from_provider_metadata(
            $metadata.clone(),
            ClientId::new($provider.settings.client_id.clone()),
            $provider.settings.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose().clone())),
        )
    };
    ($provider:ident, $metadata:ident, $callback:ident) => {
        client!($provider, $metadata).set_redirect_uri(RedirectUrl::from_url($callback.clone()))
    };
}

type CallFuture = Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, CallError>> + Send>>;

/// Why the provider did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// No answer, or none that makes sense: nothing is known of the person.
    #[error("the identity provider cannot be reached or answers nonsense: {0}")]
    Unreachable(String),
    /// It said no.
    #[error("the identity provider refused: {0}")]
    Refused(String),
    /// Its token does not verify.
    #[error("the identity provider's token was not accepted: {0}")]
    BadToken(String),
    /// Its settings or ours cannot be used.
    #[error("the identity provider's settings cannot be used: {0}")]
    Misconfigured(String),
}

/// Where a browser is sent, and what must be remembered until it is back.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) url: Url,
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
}

/// One configured provider. Discovery happens at the first use and is kept.
#[derive(Debug)]
pub struct Provider {
    settings: IdentityProvider,
    id: String,
    http: HttpClient,
    metadata: OnceCell<ProviderMetadataWithLogout>,
}

impl Provider {
    /// A provider that is trusted by the system's root certificates and `extra_roots`.
    ///
    /// # Errors
    /// [`ProviderError::Misconfigured`] when there are no usable roots.
    pub fn new(settings: IdentityProvider, extra_roots: &[CertificateDer<'static>]) -> Result<Self, ProviderError> {
        let secret = settings.client_secret.as_ref().map_or("", |secret| secret.expose().as_str());
        let id = hash(&format!("{}\n{}\n{}\n{}", settings.issuer, settings.client_id, secret, settings.scopes.join(" ")));
        let http = HttpClient::new(extra_roots)?;
        Ok(Self { settings, id, http, metadata: OnceCell::new() })
    }

    /// Tells this provider from others; only equality matters.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The HTTP client in the form that the library takes.
    fn caller(&self) -> impl Fn(Request<Vec<u8>>) -> CallFuture + Send + Sync + use<> {
        let http = self.http.clone();
        move |request| {
            let http = http.clone();
            Box::pin(async move { http.send(request).await })
        }
    }

    async fn metadata(&self) -> Result<&ProviderMetadataWithLogout, ProviderError> {
        let discover = || async {
            // The issuer is compared as text: the trailing slash that a URL parser adds must not be there.
            let text = self.settings.issuer.as_str();
            let bare = text.strip_suffix('/').unwrap_or(text).to_owned();
            let mut last = None;
            for issuer in [bare, text.to_owned()] {
                let issuer = IssuerUrl::new(issuer).map_err(|e| ProviderError::Misconfigured(e.to_string()))?;
                match ProviderMetadata::discover_async(issuer, &self.caller()).await {
                    Ok(metadata) => return Ok(metadata),
                    Err(error) => last = Some(ProviderError::Unreachable(chain(&error))),
                }
            }
            Err(last.unwrap_or_else(|| ProviderError::Unreachable("no issuer".to_owned())))
        };
        self.metadata.get_or_try_init(discover).await
    }

    /// Begins a sign-in (RFC 6749, 4.1; RFC 7636; OpenID Connect Core, 3.1.2).
    pub(super) async fn start(&self, callback: &Url) -> Result<Start, ProviderError> {
        let metadata = self.metadata().await?;
        let client = client!(self, metadata, callback);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let mut request =
            client.authorize_url(flow, CsrfToken::new_random, Nonce::new_random).set_pkce_challenge(challenge);
        // `openid` is always asked for by the library.
        for scope in self.settings.scopes.iter().filter(|scope| *scope != "openid") {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        for (name, value) in &self.settings.request_params {
            request = request.add_extra_param(name.clone(), value.clone());
        }
        let (url, state, nonce) = request.url();
        Ok(Start {
            url,
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
        })
    }

    /// Trades a code for the person's identity.
    pub(super) async fn exchange(
        &self,
        code: String,
        verifier: &str,
        nonce: &str,
        callback: &Url,
    ) -> Result<Identity, ProviderError> {
        let metadata = self.metadata().await?;
        let client = client!(self, metadata, callback);
        let request = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| ProviderError::Misconfigured(error.to_string()))?
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.to_owned()));
        let tokens = request.request_async(&self.caller()).await.map_err(token_error)?;
        let id_token = tokens.id_token().ok_or_else(|| ProviderError::BadToken("there is no ID token".to_owned()))?;
        id_token
            .claims(&client.id_token_verifier(), &Nonce::new(nonce.to_owned()))
            .map_err(|error| ProviderError::BadToken(error.to_string()))?;
        let raw = id_token.to_string();
        self.identity(metadata, raw, &tokens).await
    }

    /// Renews the tokens of a session; the new claims replace the old ones.
    pub(super) async fn refresh(
        &self,
        refresh_token: &str,
        old_id_token: &str,
    ) -> Result<Identity, ProviderError> {
        let metadata = self.metadata().await?;
        let client = client!(self, metadata);
        let token = RefreshToken::new(refresh_token.to_owned());
        let request =
            client.exchange_refresh_token(&token).map_err(|error| ProviderError::Misconfigured(error.to_string()))?;
        let tokens = request.request_async(&self.caller()).await.map_err(token_error)?;
        let raw = match tokens.id_token() {
            Some(id_token) => {
                let any_nonce = |_: Option<&Nonce>| Ok(());
                id_token
                    .claims(&client.id_token_verifier(), any_nonce)
                    .map_err(|error| ProviderError::BadToken(error.to_string()))?;
                id_token.to_string()
            }
            None => old_id_token.to_owned(),
        };
        let mut identity = self.identity(metadata, raw, &tokens).await?;
        identity.keep_refresh_token(refresh_token);
        Ok(identity)
    }

    /// The verified ID token's claims, with those of UserInfo over them where it answers.
    async fn identity(
        &self,
        metadata: &ProviderMetadataWithLogout,
        id_token: String,
        tokens: &CoreTokenResponse,
    ) -> Result<Identity, ProviderError> {
        let access_token = tokens.access_token().secret().clone();
        let mut identity = Identity::of_id_token(
            id_token,
            access_token.clone(),
            tokens.refresh_token().map(|token| token.secret().clone()),
            tokens.expires_in(),
        )?;
        if let Some(endpoint) = metadata.userinfo_endpoint() {
            match self.http.get_json(endpoint.url(), &access_token).await {
                Ok(claims) => identity.add_user_info(claims)?,
                Err(error) => tracing::debug!(error = %error, "UserInfo does not answer; the ID token's claims stand"),
            }
        }
        Ok(identity)
    }

    /// Where a browser signs out at the provider (OpenID Connect RP-Initiated Logout), if it offers that.
    pub(super) async fn end_session_url(&self, id_token: &str, after: &Url) -> Option<Url> {
        let metadata = self.metadata().await.ok()?;
        let mut url = metadata.additional_metadata().end_session_endpoint.as_ref()?.url().clone();
        url.query_pairs_mut()
            .append_pair("id_token_hint", id_token)
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("post_logout_redirect_uri", after.as_str());
        Some(url)
    }
}

fn token_error<E, T>(error: RequestTokenError<E, T>) -> ProviderError
where
    E: std::error::Error + 'static,
    T: openidconnect::ErrorResponse + 'static,
{
    match error {
        RequestTokenError::ServerResponse(response) => ProviderError::Refused(format!("{response:?}")),
        error @ (RequestTokenError::Request(_) | RequestTokenError::Parse(..) | RequestTokenError::Other(_)) => {
            ProviderError::Unreachable(chain(&error))
        }
    }
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
