//! A person with a browser that has no screen: cookies, redirects, and the forms of the identity provider.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::Full;
use rustls::ClientConfig;
use url::Url;

use crate::{
    authority::Authority,
    form::Form,
    http::{self as wire, Page},
};

/// Redirects and forms that are followed at most.
const STEPS_MAX: usize = 30;

/// A person, known to the identity provider by `name`.
#[derive(Debug)]
pub struct Person {
    name: String,
    tls: Arc<ClientConfig>,
    cookies: Mutex<Vec<Cookie>>,
    loses: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
    secure: bool,
}

impl Person {
    /// A person with an empty cookie jar.
    ///
    /// # Errors
    /// The authority's certificate cannot be used.
    pub fn new(name: &str, authority: &Authority) -> anyhow::Result<Self> {
        let tls = authority.client_config(&[b"http/1.1"])?;
        Ok(Self { name: name.to_owned(), tls, cookies: Mutex::default(), loses: None })
    }

    /// Their browser never keeps the cookie of this name.
    #[must_use]
    pub fn losing(mut self, name: &'static str) -> Self {
        self.loses = Some(name);
        self
    }

    /// Forgets all cookies.
    pub fn forget(&self) {
        self.jar().clear();
    }

    /// The value of a cookie that would go to `url`.
    #[must_use]
    pub fn cookie(&self, url: &Url, name: &str) -> Option<String> {
        self.jar().iter().find(|cookie| cookie.goes_to(url) && cookie.name == name).map(|c| c.value.clone())
    }

    /// One request without following anything.
    ///
    /// # Errors
    /// No answer.
    pub async fn request(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> anyhow::Result<Page> {
        let mut request = Request::builder().method(method).uri(url.as_str()).body(Full::new(body))?;
        *request.headers_mut() = headers;
        let cookies: Vec<String> =
            self.jar().iter().filter(|c| c.goes_to(url)).map(|c| format!("{}={}", c.name, c.value)).collect();
        if !cookies.is_empty() {
            request.headers_mut().insert(header::COOKIE, cookies.join("; ").parse()?);
        }
        let page = wire::send(&self.tls, request).await?;
        for value in page.headers.get_all(header::SET_COOKIE) {
            self.keep(url, value.to_str()?);
        }
        Ok(page)
    }

    /// Opens one page as a browser would, without following anything.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&self, url: &Url) -> anyhow::Result<Page> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "text/html,*/*;q=0.8".parse()?);
        self.request(Method::GET, url, headers, Bytes::new()).await
    }

    /// Opens a page, follows redirects, signs in where asked, and gives the page where that ends.
    ///
    /// # Errors
    /// No answer, or no end.
    pub async fn open(&self, url: &Url) -> anyhow::Result<Page> {
        let page = self.get(url).await?;
        self.follow(page, &|_| false).await
    }

    /// As [`Person::open`], but stops at the first redirect whose target `stop` names, and gives that target.
    ///
    /// # Errors
    /// No answer, or no such redirect.
    pub async fn open_until(&self, url: &Url, stop: impl Fn(&Url) -> bool + Sync) -> anyhow::Result<Url> {
        let page = self.get(url).await?;
        let page = self.follow(page, &stop).await?;
        match page.location()? {
            Some(target) if stop(&target) => Ok(target),
            _ => {
                bail!("{} answered {} where a redirect was expected:\n{}", page.url, page.status, page.text())
            }
        }
    }

    /// Gets a token for programs by the gateway's API, as the client does.
    ///
    /// # Errors
    /// The gateway does not give one.
    pub async fn token(&self, origin: &Url) -> anyhow::Result<String> {
        let mut api = origin.join("/.pomerium/api/v1/login")?;
        api.query_pairs_mut().append_pair("pomerium_redirect_uri", "http://127.0.0.1:9/");
        let answer = self.get(&api).await?;
        if !answer.status.is_success() {
            bail!("{api} answered {}: {}", answer.status, answer.text());
        }
        let sign_in = Url::parse(answer.text().trim())?;
        let end = self.open_until(&sign_in, |url| url.port() == Some(9)).await?;
        let token =
            end.query_pairs().find(|(name, _)| name == "pomerium_jwt").map(|(_, value)| value.into_owned());
        token.context("the redirect carries no token")
    }

    /// Signs out in the browser, which ends the session everywhere.
    ///
    /// # Errors
    /// The gateway does not say that it is done.
    pub async fn sign_out(&self, origin: &Url) -> anyhow::Result<()> {
        let page = self.open(&origin.join("/.pomerium/sign_out")?).await?;
        anyhow::ensure!(page.status.is_success(), "{} answered {}", page.url, page.status);
        Ok(())
    }

    /// Sends the form of a page.
    ///
    /// # Errors
    /// No answer.
    pub async fn submit(&self, page: &Page, form: &Form) -> anyhow::Result<Page> {
        let mut url = if form.action.is_empty() { page.url.clone() } else { page.url.join(&form.action)? };
        if !form.posted {
            url.set_query(Some(&form.encoded()));
            return self.get(&url).await;
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/x-www-form-urlencoded".parse()?);
        headers.insert(header::ACCEPT, "text/html,*/*;q=0.8".parse()?);
        headers.insert(header::ORIGIN, page.url.origin().ascii_serialization().parse()?);
        self.request(Method::POST, &url, headers, form.encoded().into()).await
    }

    async fn follow(&self, mut page: Page, stop: &(dyn Fn(&Url) -> bool + Sync)) -> anyhow::Result<Page> {
        for _ in 0..STEPS_MAX {
            if let Some(target) = page.location()? {
                if stop(&target) {
                    return Ok(page);
                }
                page = self.get(&target).await?;
                continue;
            }
            match Form::first(&page.text()) {
                Some(mut form) if form.has("login") => {
                    form.fill("login", &self.name);
                    page = self.submit(&page, &form).await?;
                }
                // The sign-in host asks whether a program, or a host that nobody named, may have the session.
                Some(form) if form.has("ticket") => page = self.submit(&page, &form).await?,
                _ => return Ok(page),
            }
        }
        bail!("no end of redirects; the last page was {} ({})", page.url, page.status)
    }

    fn keep(&self, url: &Url, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let attributes: Vec<(String, &str)> = parts
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        let attribute = |name: &str| attributes.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
        let cookie = Cookie {
            host: url.host_str().unwrap_or_default().to_owned(),
            path: attribute("path").unwrap_or("/").to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
            secure: attribute("secure").is_some(),
        };
        let is_gone = attribute("max-age").is_some_and(|age| age.parse().unwrap_or(0_i64) <= 0)
            || attribute("expires").is_some_and(|when| when.contains("1970"));
        if self.loses == Some(cookie.name.as_str()) {
            return;
        }
        let mut jar = self.jar();
        jar.retain(|old| !(old.host == cookie.host && old.path == cookie.path && old.name == cookie.name));
        if !is_gone {
            jar.push(cookie);
        }
    }

    fn jar(&self) -> std::sync::MutexGuard<'_, Vec<Cookie>> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cookie {
    fn goes_to(&self, url: &Url) -> bool {
        url.host_str() == Some(&self.host)
            && url.path().starts_with(&self.path)
            && (!self.secure || url.scheme() == "https")
    }
}
