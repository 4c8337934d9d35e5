//! The OpenID Connect provider that vouches for people: discovery, code flow with PKCE, refresh, sign-out.
//!
//! Answers are bounded in size and time, and `https` is required beyond loopback. "The provider says no" and "the
//! provider cannot be reached" never look the same.

pub(super) mod claims;
mod discovery;
pub(super) mod endpoint;
mod sign_out;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use openidconnect::{
    AccessToken, AccessTokenHash, AuthType, AuthenticationFlow, AuthorizationCode, ClaimsVerificationError,
    ClientId, ClientSecret, CsrfToken, EndpointMaybeSet, EndpointNotSet, EndpointSet, Nonce,
    OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError,
    Scope, SignatureVerificationError, TokenResponse,
    core::{
        CoreClient, CoreClientAuthMethod, CoreErrorResponseType, CoreIdToken, CoreResponseType,
        CoreTokenResponse,
    },
};
use rustls_pki_types::CertificateDer;
use tokio::sync::Mutex;
use url::Url;

pub use self::claims::Identity;
use self::discovery::Metadata;
use crate::{
    config::IdentityProvider,
    https_client::{HttpsClient, SendError},
    secret::Secret,
    session::demand::SignInDemand,
    store::ProviderTokens,
};

/// Signs people in at one OIDC provider.
#[derive(Debug)]
pub struct Provider {
    settings: IdentityProvider,
    redirect: Url,
    http: HttpsClient,
    /// What discovery found; the lock also lets only one discovery run at a time.
    metadata: Mutex<Option<Arc<Metadata>>>,
}

/// Why the provider did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It answered, and the answer is a definite no: the code or token is not good, or we are not its client.
    #[error("the identity provider refused: {0}")]
    Refused(String),
    /// No answer, a broken answer or a server error: nothing is known, try later.
    #[error("the identity provider cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its ID token does not hold: wrong signature, issuer, audience, nonce or date.
    #[error("the identity provider's ID token is not valid")]
    BadIdToken(#[source] ClaimsVerificationError),
    /// It left out what OpenID Connect requires, or contradicts itself.
    #[error("the identity provider's answer breaks OpenID Connect: {0}")]
    Nonconforming(&'static str),
}

/// What the gateway must remember between sending a browser to the provider and its return.
#[derive(Debug, Clone)]
pub struct PendingSignIn {
    /// The `nonce` that the ID token must carry.
    pub nonce: Secret<String>,
    /// The PKCE verifier that goes with the code (RFC 7636).
    pub pkce_verifier: Secret<String>,
}

/// What a sign-in or a refresh brought.
#[derive(Debug, Clone)]
pub struct Granted {
    /// Who it is. After a refresh, all of what the provider says now, not what it once said.
    pub identity: Identity,
    /// The provider's tokens.
    pub tokens: ProviderTokens,
}

/// What a refresh brought. The tokens count whatever became of the rest: a provider that rotates them has used up the
/// old ones.
#[derive(Debug)]
pub struct Refreshed {
    /// The provider's tokens.
    pub tokens: ProviderTokens,
    /// Who it is now; `None` when the provider only confirmed that the session goes on, and says nothing of the person.
    ///
    /// An error means that nothing is known of the person: try later, with the new tokens.
    pub identity: Result<Option<Identity>, ProviderError>,
}

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

impl Provider {
    /// A provider that is first spoken to when somebody signs in. `redirect` is our `/oauth2/callback`; `extra_roots`
    /// are trusted beside the system's.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`] when no TLS client can be built.
    pub fn new(
        settings: IdentityProvider,
        redirect: Url,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, ProviderError> {
        let http = HttpsClient::new(extra_roots).map_err(|error| ProviderError::Unreachable(error.into()))?;
        Ok(Self { settings, redirect, http, metadata: Mutex::new(None) })
    }

    /// Where to send the browser: the authorization request with `state`, a fresh nonce, a PKCE S256 challenge and what
    /// the route demands.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`], [`ProviderError::Nonconforming`]: discovery failed.
    pub async fn authorization_url(
        &self,
        pending: &PendingSignIn,
        demand: &SignInDemand,
        state: String,
    ) -> Result<Url, ProviderError> {
        let client = self.client(&*self.metadata().await?)?;
        let verifier = PkceCodeVerifier::new(pending.pkce_verifier.expose().clone());
        let nonce = Nonce::new(pending.nonce.expose().clone());
        let mut request = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                move || CsrfToken::new(state),
                move || nonce,
            )
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        // `openid` is added by the library.
        for scope in self.settings.scopes.iter().filter(|scope| *scope != "openid") {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        let demanded = demand.parameters();
        let is_demanded = |name: &str| demanded.iter().any(|(known, _)| *known == name);
        for (name, value) in self.settings.request_params.iter().filter(|(name, _)| !is_demanded(name)) {
            request = request.add_extra_param(name.clone(), value.clone());
        }
        for (name, value) in demanded {
            request = request.add_extra_param(name, value);
        }
        Ok(request.url().0)
    }

    /// Trades the code of the callback for the person's identity and tokens.
    ///
    /// # Errors
    /// [`ProviderError`], each variant.
    pub async fn redeem(
        &self,
        code: String,
        pending: &PendingSignIn,
        now: SystemTime,
    ) -> Result<Granted, ProviderError> {
        let metadata = self.metadata().await?;
        let client = self.client(&metadata)?;
        let answer: CoreTokenResponse = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|_| ProviderError::Nonconforming("it has no token endpoint"))?
            .set_pkce_verifier(PkceCodeVerifier::new(pending.pkce_verifier.expose().clone()))
            .request_async(&self.http.caller())
            .await
            .map_err(token_error)?;
        let id_token = answer.id_token().ok_or(ProviderError::Nonconforming("it sent no ID token"))?.clone();
        let nonce = Nonce::new(pending.nonce.expose().clone());
        self.verify_id_token(&id_token, answer.access_token(), Some(&nonce), now).await?;
        let identity = self.identity(&metadata, &id_token, answer.access_token()).await?;
        let tokens = tokens_of(&answer, None, id_token.to_string(), now);
        Ok(Granted { identity, tokens })
    }

    /// Uses the refresh token. When the provider sends no new ID token, the old one stays for its sign-out.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] means that the session is over; all others that nothing is known.
    pub async fn refresh(
        &self,
        tokens: &ProviderTokens,
        now: SystemTime,
    ) -> Result<Refreshed, ProviderError> {
        let Some(refresh) = &tokens.refresh else {
            return Err(ProviderError::Nonconforming("there is no refresh token"));
        };
        let metadata = self.metadata().await?;
        let client = self.client(&metadata)?;
        let refresh_token = RefreshToken::new(refresh.expose().clone());
        let answer: CoreTokenResponse = client
            .exchange_refresh_token(&refresh_token)
            .map_err(|_| ProviderError::Nonconforming("it has no token endpoint"))?
            .request_async(&self.http.caller())
            .await
            .map_err(token_error)?;
        let identity = self.refreshed_identity(&metadata, tokens, &answer, now).await;
        let id_token = answer
            .id_token()
            .filter(|_| identity.is_ok())
            .map_or_else(|| tokens.id_token.expose().clone(), ToString::to_string);
        Ok(Refreshed { tokens: tokens_of(&answer, Some(refresh), id_token, now), identity })
    }

    async fn refreshed_identity(
        &self,
        metadata: &Metadata,
        tokens: &ProviderTokens,
        answer: &CoreTokenResponse,
        now: SystemTime,
    ) -> Result<Option<Identity>, ProviderError> {
        if let Some(new) = answer.id_token() {
            self.verify_id_token(new, answer.access_token(), None, now).await?;
            return self.identity(metadata, new, answer.access_token()).await.map(Some);
        }
        let Some(user_info) = self.user_info(metadata, answer.access_token()).await? else {
            return Ok(None);
        };
        // Verified when it came.
        let old = claims::of_verified_token(tokens.id_token.expose())
            .ok_or(ProviderError::Nonconforming("its first ID token does not parse"))?;
        Identity::from_user_info(old, user_info, &self.settings.quirks).map(Some)
    }

    /// Verifies, and once more with newly fetched keys when the provider may have changed them.
    async fn verify_id_token(
        &self,
        token: &CoreIdToken,
        access: &AccessToken,
        nonce: Option<&Nonce>,
        now: SystemTime,
    ) -> Result<(), ProviderError> {
        match self.verify_once(token, access, nonce, now).await {
            Err(ProviderError::BadIdToken(ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey | SignatureVerificationError::CryptoError(_),
            ))) => {
                *self.metadata.lock().await = None;
                self.verify_once(token, access, nonce, now).await
            }
            other => other,
        }
    }

    async fn verify_once(
        &self,
        token: &CoreIdToken,
        access: &AccessToken,
        nonce: Option<&Nonce>,
        now: SystemTime,
    ) -> Result<(), ProviderError> {
        let metadata = self.metadata().await?;
        let client = self.client(&metadata)?;
        let mut verifier = client.id_token_verifier().set_time_fn(move || now.into());
        if self.settings.quirks.has_many_tenants {
            discovery::check_tenant_issuer(&metadata, &token.to_string())?;
            verifier = verifier.require_issuer_match(false);
        }
        let checked = match nonce {
            Some(nonce) => token.claims(&verifier, nonce),
            // OpenID Connect Core 12.2: an ID token from a refresh need not carry the nonce.
            None => token.claims(&verifier, |_: Option<&Nonce>| Ok(())),
        }
        .map_err(ProviderError::BadIdToken)?;
        if let Some(expected) = checked.access_token_hash() {
            let nonconforming = |_| ProviderError::Nonconforming("its ID token names no usable algorithm");
            let algorithm = token.signing_alg().map_err(nonconforming)?;
            let key = token.signing_key(&verifier).map_err(nonconforming)?;
            let actual = AccessTokenHash::from_token(access, algorithm, key)
                .map_err(|_| ProviderError::Nonconforming("its access token hash cannot be checked"))?;
            if actual != *expected {
                return Err(ProviderError::Nonconforming("its access token does not belong to its ID token"));
            }
        }
        Ok(())
    }

    /// Claims of a verified ID token, completed by the UserInfo where the provider has one.
    async fn identity(
        &self,
        metadata: &Metadata,
        id_token: &CoreIdToken,
        access: &AccessToken,
    ) -> Result<Identity, ProviderError> {
        let id_claims = claims::of_verified_token(&id_token.to_string())
            .ok_or(ProviderError::Nonconforming("its ID token has no claims"))?;
        Identity::from_claims(id_claims, self.user_info(metadata, access).await?, &self.settings.quirks)
    }

    /// `None` where the provider has no UserInfo, or does not give it for this token: it is optional.
    async fn user_info(
        &self,
        metadata: &Metadata,
        access: &AccessToken,
    ) -> Result<Option<serde_json::Map<String, serde_json::Value>>, ProviderError> {
        let Some(endpoint) = metadata.userinfo_endpoint() else { return Ok(None) };
        let body = self.http.get_with_bearer(endpoint.url(), access.secret()).await.map_err(unreachable)?;
        Ok(body.and_then(|body| claims::of_user_info(&body)))
    }

    async fn metadata(&self) -> Result<Arc<Metadata>, ProviderError> {
        let mut kept = self.metadata.lock().await;
        if let Some(metadata) = &*kept {
            return Ok(Arc::clone(metadata));
        }
        let metadata = Arc::new(discovery::discover(&self.http, &self.settings).await?);
        *kept = Some(Arc::clone(&metadata));
        Ok(metadata)
    }

    fn client(&self, metadata: &Metadata) -> Result<Client, ProviderError> {
        let secret =
            self.settings.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose().clone()));
        let redirect = RedirectUrl::new(self.redirect.to_string())
            .map_err(|_| ProviderError::Nonconforming("our callback is no URL"))?;
        let by_form_only = metadata.token_endpoint_auth_methods_supported().is_some_and(|methods| {
            methods.contains(&CoreClientAuthMethod::ClientSecretPost)
                && !methods.contains(&CoreClientAuthMethod::ClientSecretBasic)
        });
        let client_id = ClientId::new(self.settings.client_id.clone());
        let client = CoreClient::from_provider_metadata(metadata.clone(), client_id, secret)
            .set_redirect_uri(redirect);
        Ok(if by_form_only { client.set_auth_type(AuthType::RequestBody) } else { client })
    }
}

fn tokens_of(
    answer: &CoreTokenResponse,
    previous: Option<&Secret<String>>,
    id_token: String,
    now: SystemTime,
) -> ProviderTokens {
    ProviderTokens {
        access: Secret::new(answer.access_token().secret().clone()),
        // A provider that does not rotate sends none: the old one goes on (RFC 6749, 6).
        refresh: answer
            .refresh_token()
            .map(|token| Secret::new(token.secret().clone()))
            .or_else(|| previous.cloned()),
        id_token: Secret::new(id_token),
        access_expires_at: answer.expires_in().and_then(|life: Duration| now.checked_add(life)),
    }
}

/// What OpenID Connect Core, 3.1.2.6, adds to OAuth's ways of saying no.
const SAYS_NO: [&str; 5] = [
    "access_denied",
    "account_selection_required",
    "consent_required",
    "interaction_required",
    "login_required",
];

/// Only the errors by which OAuth (RFC 6749, 5.2) and OpenID Connect say no are a no; `server_error`,
/// `temporarily_unavailable` and what nobody has heard of are not.
fn token_error<RE>(
    error: RequestTokenError<RE, openidconnect::StandardErrorResponse<CoreErrorResponseType>>,
) -> ProviderError
where
    RE: std::error::Error + Send + Sync + 'static,
{
    match error {
        RequestTokenError::ServerResponse(answer) if is_a_no(answer.error()) => {
            ProviderError::Refused(answer.error().to_string())
        }
        other => ProviderError::Unreachable(Box::new(other)),
    }
}

fn is_a_no(error: &CoreErrorResponseType) -> bool {
    match error {
        CoreErrorResponseType::Extension(name) => SAYS_NO.contains(&name.as_str()),
        _ => true,
    }
}

fn unreachable(error: SendError) -> ProviderError {
    ProviderError::Unreachable(Box::new(error))
}
