//! From what the gateway says to the answer that Envoy acts on.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use tonic::Code;

use super::messages::{
    BoolValue, CheckResponse, DeniedHttpResponse, HeaderValue as WireHeader, HeaderValueOption, HttpResponse,
    HttpStatus, OkHttpResponse, Status,
};
use crate::proxy::HeaderChanges;

/// The request passes, with these changes.
pub(super) fn allowed(changes: &HeaderChanges) -> CheckResponse {
    let headers = changes.set.iter().map(|(name, value)| option(name, value, false)).collect();
    let headers_to_remove = changes.remove.iter().map(|name| name.as_str().to_owned()).collect();
    CheckResponse {
        status: Some(Status { code: Code::Ok.into() }),
        http_response: Some(HttpResponse::Ok(OkHttpResponse { headers, headers_to_remove })),
    }
}

/// The request goes no further; `response` is what its sender gets.
pub(super) fn instead(response: &Response<Bytes>) -> CheckResponse {
    let status = response.status();
    let code = if status == StatusCode::UNAUTHORIZED || status.is_redirection() {
        Code::Unauthenticated
    } else {
        Code::PermissionDenied
    };
    let crosses = |name: &HeaderName| {
        // Envoy counts the body itself.
        ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name)
    };
    let mut headers: Vec<HeaderValueOption> = Vec::new();
    for (name, value) in response.headers().iter().filter(|(name, _)| crosses(name)) {
        let is_again =
            headers.iter().filter_map(|option| option.header.as_ref()).any(|h| h.key == name.as_str());
        headers.push(option(name, value, is_again));
    }
    // The status is an enumeration of those that have a name.
    let status = if status.canonical_reason().is_some() { status } else { StatusCode::FORBIDDEN };
    CheckResponse {
        status: Some(Status { code: code.into() }),
        http_response: Some(HttpResponse::Denied(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(status.as_u16()) }),
            headers,
            body: String::from_utf8_lossy(response.body()).into_owned(),
        })),
    }
}

/// A short refusal of our own.
pub(super) fn refused(status: StatusCode, why: &str) -> CheckResponse {
    let mut response = Response::new(Bytes::from(format!("{why}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    instead(&response)
}

/// A header that replaces others of its name, or stands beside them.
fn option(name: &HeaderName, value: &HeaderValue, append: bool) -> HeaderValueOption {
    let (value, raw_value) = match value.to_str() {
        Ok(text) => (text.to_owned(), Vec::new()),
        Err(_) => (String::new(), value.as_bytes().to_vec()),
    };
    HeaderValueOption {
        header: Some(WireHeader { key: name.as_str().to_owned(), value, raw_value }),
        append: Some(BoolValue { value: append }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowed_request_has_each_header_replaced_and_the_forged_ones_removed() {
        let mut changes = HeaderChanges::default();
        changes.set.insert("x-pomerium-claim-email", HeaderValue::from_static("alice@corp.example"));
        changes.remove.push(HeaderName::from_static("x-pomerium-authorization"));
        let response = allowed(&changes);
        assert_eq!(response.status, Some(Status { code: 0 }));
        let Some(HttpResponse::Ok(ok)) = response.http_response else { panic!("allowed") };
        assert_eq!(ok.headers[0].append, Some(BoolValue { value: false }));
        assert_eq!(ok.headers[0].header.as_ref().unwrap().value, "alice@corp.example");
        assert_eq!(ok.headers_to_remove, ["x-pomerium-authorization"]);
    }

    #[test]
    fn both_cookies_of_a_redirect_arrive() {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static("a=1"));
        response.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static("b=2"));
        response.headers_mut().append(header::CONTENT_LENGTH, HeaderValue::from_static("7"));
        let response = instead(&response);
        assert_eq!(response.status, Some(Status { code: 16 }), "unauthenticated");
        let Some(HttpResponse::Denied(denied)) = response.http_response else { panic!("refused") };
        let appended: Vec<_> = denied.headers.iter().map(|h| h.append.as_ref().unwrap().value).collect();
        assert_eq!(appended, [false, true]);
        assert_eq!(denied.status, Some(HttpStatus { code: 302 }));
    }

    #[test]
    fn nothing_that_is_refused_has_the_code_of_yes() {
        for status in [200, 204, 302, 400, 401, 403, 404, 450, 495, 500, 503] {
            let response = refused(StatusCode::from_u16(status).unwrap(), "no");
            assert_ne!(response.status.unwrap().code, 0, "{status}");
            let Some(HttpResponse::Denied(denied)) = response.http_response else { panic!("refused") };
            let expected = if matches!(status, 450 | 495) { 403 } else { i32::from(status) };
            assert_eq!(denied.status, Some(HttpStatus { code: expected }));
        }
    }
}
