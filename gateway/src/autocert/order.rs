//! The dialogue with the authority about one certificate (RFC 8555, 7.4).

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType,
    ExternalAccountKey, HttpClient, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};

use super::{AutocertError, Challenges, Kept, challenges::Shown};
use crate::{
    config::Autocert,
    https_client::HttpsClient,
    store::{Store, StoreError},
};

/// Gets a certificate for one host. The key is a new one each time.
pub(super) async fn obtain(
    store: &Store,
    autocert: &Autocert,
    challenges: &Challenges,
    host: &str,
    by_http: bool,
) -> Result<Kept, AutocertError> {
    let account = account(store, autocert).await?;
    let identifiers = [Identifier::Dns(host.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let authorization = authorization?;
        if authorization.status != AuthorizationStatus::Valid {
            shown.push(prove(authorization, challenges, host, by_http).await?);
        }
    }
    let status = order.poll_ready(&RetryPolicy::default()).await?;
    drop(shown);
    if status != OrderStatus::Ready {
        return Err(AutocertError::NotProven(status));
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([host.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    order.finalize_csr(params.serialize_request(&key)?.der()).await?;
    let chain_pem = order.poll_certificate(&RetryPolicy::default()).await?;
    Ok(Kept { chain_pem, key_pem: key.serialize_pem() })
}

/// Shows what the authority looks for, and tells it to look.
async fn prove<'a>(
    mut authorization: AuthorizationHandle<'_>,
    challenges: &'a Challenges,
    host: &str,
    by_http: bool,
) -> Result<Shown<'a>, AutocertError> {
    let kinds = [ChallengeType::TlsAlpn01, ChallengeType::Http01];
    let kind = kinds.into_iter().nth(usize::from(by_http)).unwrap_or(ChallengeType::TlsAlpn01);
    let is_http = by_http;
    let mut challenge = authorization.challenge(kind).ok_or(AutocertError::NoChallenge)?;
    let proof = challenge.key_authorization();
    let shown = if is_http {
        challenges.show_http(&challenge.token, proof.as_str())
    } else {
        challenges.show_tls(host, proving_certificate(host, proof.digest().as_ref())?)
    };
    challenge.set_ready().await?;
    Ok(shown)
}

/// The certificate of RFC 8737, 3.
fn proving_certificate(host: &str, digest: &[u8]) -> Result<CertifiedKey, AutocertError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([host.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = pomerium_shared::tls::provider().key_provider.load_private_key(der);
    // Not checked against each other: its extension is critical, and no client for apps may take it.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key.map_err(AutocertError::ProofKey)?))
}

/// The gateway's account there: the one that was kept, or a new one.
async fn account(store: &Store, autocert: &Autocert) -> Result<Account, AutocertError> {
    let name = format!("acme account {:x}", Sha256::digest(account_of(autocert)));
    let http = || Ok::<_, AutocertError>(Box::new(Client(client(autocert)?)));
    if let Some(kept) = store.kept_secret(&name).await?
        && let Ok(credentials) = serde_json::from_slice(kept.expose())
    {
        return Ok(Account::builder_with_http(http()?).from_credentials(credentials).await?);
    }
    let contact = autocert.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.as_deref().into_iter().collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let external = autocert
        .external_account
        .as_ref()
        .map(|external| ExternalAccountKey::new(external.key_id.clone(), external.mac_key.expose()));
    let (account, credentials) = Account::builder_with_http(http()?)
        .create(&new, autocert.directory.to_string(), external.as_ref())
        .await?;
    let text = serde_json::to_vec(&credentials).map_err(StoreError::Malformed)?;
    store.keep_secret(&name, &text).await?;
    Ok(account)
}

/// What makes it another account.
fn account_of(autocert: &Autocert) -> String {
    let external = autocert.external_account.as_ref().map(|external| external.key_id.as_str());
    format!("{} {}", autocert.directory, external.unwrap_or_default())
}

fn client(autocert: &Autocert) -> Result<HttpsClient, AutocertError> {
    HttpsClient::new(&autocert.roots).map_err(AutocertError::Roots)
}

/// Our client in the form that the ACME library takes.
struct Client(HttpsClient);

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let http = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let request = Request::from_parts(parts, body.to_bytes().to_vec());
            let answer =
                http.send(request).await.map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
            let (parts, body) = answer.into_parts();
            Ok(BytesResponse::from(Response::from_parts(parts, Full::new(Bytes::from(body)))))
        })
    }
}
