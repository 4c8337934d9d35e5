//! Signing out at the provider, and taking its tokens back.

use url::Url;

use super::{Metadata, Provider, ProviderError, unreachable};
use crate::{config::SignOutPage, secret::Secret, store::ProviderTokens};

impl Provider {
    /// Where the provider signs the person out itself (RP-Initiated Logout 1.0); `None` when it has no such page.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`], [`ProviderError::Nonconforming`]: discovery failed.
    pub async fn end_session_url(
        &self,
        id_token: &Secret<String>,
        return_to: &Url,
    ) -> Result<Option<Url>, ProviderError> {
        let metadata = self.metadata().await?;
        let Some(mut url) = metadata.additional_metadata().end_session_endpoint.clone() else {
            let page = undiscovered_page(self.settings.quirks.sign_out, &metadata);
            return Ok(page.map(|(mut url, back)| {
                url.query_pairs_mut()
                    .append_pair("client_id", &self.settings.client_id)
                    .append_pair(back, return_to.as_str());
                url
            }));
        };
        url.query_pairs_mut()
            .append_pair("id_token_hint", id_token.expose())
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("post_logout_redirect_uri", return_to.as_str());
        Ok(Some(url))
    }

    /// Revokes the tokens at the provider (RFC 7009), as far as it has an endpoint for it.
    ///
    /// # Errors
    /// [`ProviderError`]; the session must be ended whatever comes of this.
    pub async fn revoke(&self, tokens: &ProviderTokens) -> Result<(), ProviderError> {
        let metadata = self.metadata().await?;
        let Some(endpoint) = &metadata.additional_metadata().revocation_endpoint else { return Ok(()) };
        let (token, hint) = match &tokens.refresh {
            Some(refresh) => (refresh, "refresh_token"),
            None => (&tokens.access, "access_token"),
        };
        let form = {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("token", token.expose())
                .append_pair("token_type_hint", hint)
                .append_pair("client_id", &self.settings.client_id);
            if let Some(secret) = &self.settings.client_secret {
                form.append_pair("client_secret", secret.expose());
            }
            form.finish()
        };
        let status = self.http.post_form(endpoint, form).await.map_err(unreachable)?;
        if status.is_success() {
            Ok(())
        } else {
            Err(ProviderError::Refused(format!("revocation answered {status}")))
        }
    }
}

/// Where providers sign people out that do not say so in their discovery document.
fn undiscovered_page(page: SignOutPage, metadata: &Metadata) -> Option<(Url, &'static str)> {
    match page {
        SignOutPage::Discovered => None,
        SignOutPage::Auth0 => Some((metadata.issuer().url().join("/v2/logout").ok()?, "returnTo")),
        SignOutPage::Cognito => {
            Some((metadata.authorization_endpoint().url().join("/logout").ok()?, "logout_uri"))
        }
    }
}
