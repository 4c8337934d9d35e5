//! `open`: a web route in the browser.

use clap::Args;
use tokio_util::task::TaskTracker;
use url::Url;

use super::{GatewayArg, Shared, print, user_cache};
use crate::{access::Route, failure::Failure, link::answer::shown};

/// Open a web route in the browser, by its name or host.
#[derive(Debug, Args)]
pub(crate) struct Open {
    /// The route's name, its host or its address
    #[arg(value_name = "ROUTE")]
    route: String,
    #[command(flatten)]
    gateway: GatewayArg,
    #[command(flatten)]
    shared: Shared,
}

impl Open {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let gateway = self.gateway.resolve(user_cache().as_ref())?;
        let reach = self.shared.reach(gateway, &TaskTracker::new())?;
        let routes = reach.routes().await;
        reach.close().await;
        let url = page_of(&routes?, &self.route)?;
        let browser = self.shared.browser();
        if let Err(error) = browser.open(&url) {
            tracing::warn!(error = %crate::exit::chain(&error), "the browser was not opened: open the address yourself");
        }
        print(&format!("{url}\n"))
    }
}

fn page_of(routes: &[Route], wanted: &str) -> Result<Url, Failure> {
    let pages = || {
        routes.iter().filter(|route| route.kind == "http").filter_map(|route| {
            let url = Url::parse(&route.from).ok().filter(|url| matches!(url.scheme(), "https" | "http"))?;
            Some((route.name.as_str(), url))
        })
    };
    let is_wanted =
        |name: &str, url: &Url| name == wanted || url.host_str() == Some(wanted) || url.as_str() == wanted;
    pages().find(|(name, url)| is_wanted(name, url)).map(|(_, url)| url).ok_or_else(|| Failure::NoSuchPage {
        name: wanted.to_owned(),
        known: pages()
            .map(|(name, url)| shown(if name.is_empty() { url.as_str() } else { name }))
            .collect::<Vec<_>>()
            .join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_web_page_is_opened_whatever_the_gateway_lists() {
        let route = |name: &str, from: &str| -> Route {
            serde_json::from_value(serde_json::json!({"type": "http", "name": name, "from": from})).unwrap()
        };
        let routes = [route("wiki", "https://wiki.corp.example"), route("evil", "file:///etc/passwd")];
        for wanted in ["wiki", "wiki.corp.example", "https://wiki.corp.example/"] {
            assert_eq!(page_of(&routes, wanted).unwrap().as_str(), "https://wiki.corp.example/");
        }
        let Err(Failure::NoSuchPage { known, .. }) = page_of(&routes, "evil") else {
            panic!("a file was opened")
        };
        assert_eq!(known, "wiki");
    }
}
