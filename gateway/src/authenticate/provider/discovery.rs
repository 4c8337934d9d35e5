//! What a provider publishes of itself: the discovery document and its keys, and which of it is believed.

use http::{Request, StatusCode, header};
use openidconnect::{
    AdditionalProviderMetadata, JsonWebKeySet, ProviderMetadata,
    core::{
        CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
        CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType,
        CoreSubjectIdentifierType,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use super::{ProviderError, claims, endpoint::is_endpoint_of, unreachable};
use crate::{
    config::IdentityProvider,
    https_client::{HttpsClient, SendError},
};

const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SignOutEndpoints {
    pub(super) end_session_endpoint: Option<Url>,
    pub(super) revocation_endpoint: Option<Url>,
}
impl AdditionalProviderMetadata for SignOutEndpoints {}

/// A provider's discovery document, with its keys.
pub(super) type Metadata = ProviderMetadata<
    SignOutEndpoints,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// What stands for the tenant in an issuer that many share.
const TENANT: &str = "{tenantid}";

/// Fetches the document and the keys. Only addresses that such an issuer may name are ever spoken to.
pub(super) async fn discover(
    http: &HttpsClient,
    settings: &IdentityProvider,
) -> Result<Metadata, ProviderError> {
    let written = settings.issuer.as_str();
    let bare = written.trim_end_matches('/');
    let document = get(http, &format!("{bare}{DISCOVERY_PATH}")).await?;
    let metadata: Metadata =
        serde_json::from_slice(&document).map_err(|error| ProviderError::Unreachable(error.into()))?;
    let issuer = metadata.issuer().as_str();
    // An issuer without a path is written with or without the closing slash; the provider's own spelling counts.
    let is_configured = issuer == written
        || (settings.issuer.path() == "/" && issuer == bare)
        || (settings.quirks.has_many_tenants && is_template_of(issuer, &settings.issuer));
    if !is_configured {
        return Err(ProviderError::Nonconforming("its issuer is not the one that is configured"));
    }
    let more = metadata.additional_metadata();
    let endpoints = [
        Some(metadata.authorization_endpoint().url()),
        Some(metadata.jwks_uri().url()),
        metadata.token_endpoint().map(|endpoint| endpoint.url()),
        metadata.userinfo_endpoint().map(|endpoint| endpoint.url()),
        more.end_session_endpoint.as_ref(),
        more.revocation_endpoint.as_ref(),
    ];
    if !endpoints.into_iter().flatten().all(|endpoint| is_endpoint_of(&settings.issuer, endpoint)) {
        return Err(ProviderError::Nonconforming("it names an endpoint without https or on this machine"));
    }
    let keys: JsonWebKeySet<CoreJsonWebKey> = JsonWebKeySet::fetch_async(metadata.jwks_uri(), &http.caller())
        .await
        .map_err(|error| ProviderError::Unreachable(Box::new(error)))?;
    Ok(metadata.set_jwks(keys))
}

async fn get(http: &HttpsClient, url: &str) -> Result<Vec<u8>, ProviderError> {
    let request = Request::get(url)
        .header(header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|error| ProviderError::Unreachable(error.into()))?;
    let answer = http.send(request).await.map_err(unreachable)?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        status => Err(unreachable(SendError::Status(status))),
    }
}

/// Whether `issuer` is the configured one with the tenant left open.
fn is_template_of(issuer: &str, configured: &Url) -> bool {
    let Some(tenant) = configured.path_segments().and_then(|mut segments| segments.next()) else {
        return false;
    };
    configured.as_str().replacen(&format!("/{tenant}/"), &format!("/{TENANT}/"), 1) == issuer
}

/// Holds the issuer of an ID token of one of many tenants against the tenant that it names. The signature is checked
/// elsewhere.
pub(super) fn check_tenant_issuer(metadata: &Metadata, token: &str) -> Result<(), ProviderError> {
    match claims::of_verified_token(token) {
        Some(claims) if names_its_tenant(metadata.issuer().as_str(), &claims) => Ok(()),
        _ => Err(ProviderError::Nonconforming("its ID token does not come from the tenant that it names")),
    }
}

fn names_its_tenant(template: &str, claims: &Map<String, Value>) -> bool {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let tenant = text("tid");
    let is_id = !tenant.is_empty() && tenant.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_id && text("iss") == template.replace(TENANT, tenant)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_comes_from_the_tenant_that_it_names() {
        let template = "https://login.example/{tenantid}/v2.0";
        for (tenant, issuer, is_good) in [
            ("a-1", "https://login.example/a-1/v2.0", true),
            ("a-1", "https://login.example/b-2/v2.0", false),
            ("a-1", "https://evil.example/a-1/v2.0", false),
            ("", "https://login.example//v2.0", false),
            ("x/../y", "https://login.example/x/../y/v2.0", false),
            ("{tenantid}", "https://login.example/{tenantid}/v2.0", false),
        ] {
            let claims = json!({"tid": tenant, "iss": issuer});
            assert_eq!(names_its_tenant(template, claims.as_object().unwrap()), is_good, "{issuer}");
        }
    }

    #[test]
    fn only_the_tenant_may_be_left_open_in_an_issuer() {
        let configured = "https://login.example/common/v2.0".parse().unwrap();
        assert!(is_template_of("https://login.example/{tenantid}/v2.0", &configured));
        for other in
            ["https://login.example/{tenantid}/v1.0", "https://evil.example/{tenantid}/v2.0", "{tenantid}"]
        {
            assert!(!is_template_of(other, &configured), "{other}");
        }
    }
}
