//! What a client reports of the machine that it runs on.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use pomerium_shared::{
    clock::Now,
    posture::{PostureReport, REPORT_LEN_MAX},
};

use super::{FORM_TIMEOUT, status};
use crate::{
    body::{self, Body},
    device::ReportStep,
    proxy::{
        Connection, Live, Proxy, Refusal,
        caller::store_failed,
        gate::Whereto,
        respond::{self, WayIn},
    },
};

/// Where reports go; on any host of the gateway.
pub(super) const POSTURE_PATH: &str = "/.pomerium/api/v1/posture";

impl Proxy {
    /// Keeps a report. Only a session that is bound to a device key has a device to report of, and the report must come
    /// over a connection that proved this key.
    pub(super) async fn posture(
        &self,
        live: &Live,
        whereto: &Whereto,
        request: Request<Body>,
        connection: &Connection,
    ) -> Result<Response<Body>, Refusal> {
        if request.method() != Method::POST {
            return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
        }
        let (parts, body) = request.into_parts();
        let now = Now::read();
        let host = Some(whereto.authority.host());
        let caller = self.caller(live, (&parts.headers, &parts.uri), host, connection, now).await?;
        if caller.session.is_none() {
            return Err(Refusal::SignIn { way: WayIn::Itself(None), rejected: caller.rejected });
        }
        let Some(device) = &caller.device else {
            return Ok(told(
                StatusCode::FORBIDDEN,
                "This session is bound to no device. Sign in with a client that has a device key.\n",
            ));
        };
        let whole = tokio::time::timeout(FORM_TIMEOUT, body::collect(body, REPORT_LEN_MAX)).await;
        let Some(bytes) = whole.ok().flatten() else {
            return Ok(told(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The report is too long, too slow or was broken off.\n",
            ));
        };
        let report =
            PostureReport::parse(&bytes).map_err(|error| Refusal::BadRequest(format!("{error}.")))?;
        match device.on_report(&report, now.wall) {
            ReportStep::Known => Ok(status(StatusCode::NO_CONTENT)),
            ReportStep::TooSoon => {
                let mut response = told(StatusCode::TOO_MANY_REQUESTS, "Reports come too fast.\n");
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                Ok(response)
            }
            ReportStep::Keep => {
                let is_kept = self.store.put_posture(device, &report, now.wall).await;
                match is_kept.map_err(|error| store_failed(&error))? {
                    true => {
                        tracing::info!(device = %device.id, user = %device.user_id, "a device reported its state");
                        Ok(status(StatusCode::NO_CONTENT))
                    }
                    false => Ok(told(StatusCode::FORBIDDEN, "This device was removed. Sign in again.\n")),
                }
            }
        }
    }
}

fn told(code: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = respond::plain("text/plain; charset=utf-8", text);
    *response.status_mut() = code;
    response
}
