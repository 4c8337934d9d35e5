//! A session that its person begins anew goes on under its id: what is open for it stays open.

use std::time::SystemTime;

use bytes::Bytes;
use http::Response;

use super::{
    AuthRequest, Authenticate,
    sign_in::{REDIRECT_URI, bad_request},
    store_failed,
};
use crate::{
    session::{
        Session,
        demand::{Prompt, SignInDemand},
    },
    store::{ProviderTokens, StoreError},
};

impl Authenticate {
    /// Keeps the new session: as the one that the same person has in this browser or, for a program, on the same device key.
    /// A browser's session never becomes a program's, nor the other way round.
    pub(super) async fn keep_session(
        &self,
        req: &AuthRequest<'_>,
        session: &mut Session,
        tokens: &ProviderTokens,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let old = match &session.bound_to {
            Some(key) => self.store.bound_session(&session.user_id, &session.idp_id, key, now).await?,
            None => {
                let browsers = self.sign_in_host_session(req, now).await?;
                browsers.filter(|old| old.user_id == session.user_id).map(|old| old.id.clone())
            }
        };
        if let Some(id) = old {
            let renewed = Session { id, ..session.clone() };
            if self.store.renew_session(&renewed, tokens).await? {
                *session = renewed;
                return Ok(());
            }
        }
        self.store.put_session(session, tokens).await
    }

    /// Signs the person of this browser in anew, and comes back to where they were: their session goes on with new
    /// claims and a new end.
    pub(super) fn renew(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        let named = req.url.query_pairs().find(|(name, _)| name == REDIRECT_URI);
        let back = match named {
            Some((_, url)) => url.parse().ok().filter(|url| self.is_our_url(url)),
            None => req.url.join("/.pomerium/").ok(),
        };
        let Some(back) = back else {
            return bad_request("This link leads to a place that is not served here.");
        };
        let demand = SignInDemand { prompt: Some(Prompt::Login), ..SignInDemand::default() };
        self.sign_in_response(&back, req.headers, &demand, now).unwrap_or_else(|error| store_failed(&error))
    }
}
