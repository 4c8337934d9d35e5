//! UDP flows: CONNECT-UDP in (RFC 9298), a socket to the app behind, payloads both ways until one typed reason ends it.

use std::{net::Ipv6Addr, sync::Arc};

use http::{Response, StatusCode, request::Parts};
use pomerium_shared::{
    relay::RelayOptions,
    udp::{self, Carriage, Local, Near},
};
use tokio::net::{UdpSocket, lookup_host};

use super::{
    Connection, Proxy, Refusal,
    connect::{Open, refused},
    question::Question,
    upstream::CONNECT_TIMEOUT,
};
use crate::{
    authorize::Permit,
    body::Body,
    config::{Route, Target},
};

impl Proxy {
    /// Decides on a CONNECT-UDP and opens a socket to the app. The answer to a refusal is ready to send.
    pub(crate) async fn open_flow(
        &self,
        parts: &Parts,
        connection: &Connection,
    ) -> Result<Open<UdpSocket>, Response<Body>> {
        let request_id = super::new_request_id();
        let opened = async {
            // The path names the app. The authority is the gateway's, or with some clients the app's: nothing hangs on it.
            let to = udp::path::parse(parts.uri.path()).ok_or(Refusal::NoRoute)?;
            let question = Question::flow(to.clone(), connection);
            self.open(question, to, parts, connection, &request_id, dial).await
        };
        opened.await.map_err(|refusal| refused(refusal, parts, connection, &request_id))
    }

    /// Carries an open flow until it ends, and logs why it did.
    pub(crate) async fn carry_flow(&self, flow: Open<UdpSocket>, client: Carriage) {
        let Open { app, watch, account, request_id } = flow;
        let options = RelayOptions { idle: account.idle };
        let app = Local::Connected(app);
        let end = udp::run(client, app, Near::App, options, self.cut_of(watch)).await;
        account.close(&request_id, end);
    }
}

/// A socket to the app of a route, which hears nobody else. Takes the permit: no app gets a byte that policy did not allow.
pub(super) async fn dial(_permit: Permit, route: Arc<Route>) -> Result<UdpSocket, Refusal> {
    let Target::Udp(app) = &route.target else {
        return Err(Refusal::Gateway(format!("The route {} has no UDP target.", route.name)));
    };
    let connecting = async {
        let mut failure = std::io::Error::from(std::io::ErrorKind::NotFound);
        for address in lookup_host((app.host(), app.port())).await? {
            let any = if address.is_ipv6() {
                (Ipv6Addr::UNSPECIFIED, 0).into()
            } else {
                std::net::SocketAddr::from(([0, 0, 0, 0], 0))
            };
            let socket = UdpSocket::bind(any).await?;
            match socket.connect(address).await {
                Ok(()) => return Ok(socket),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    };
    let failed = |status, what: &str| Refusal::App {
        status,
        detail: format!("The app behind the route {} {what}. Ask who runs it whether it is up.", route.name),
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => {
            tracing::warn!(route = route.name, %error, "app unreachable");
            Err(failed(StatusCode::BAD_GATEWAY, "cannot be reached"))
        }
        Err(_) => {
            tracing::warn!(route = route.name, "the app's name does not resolve");
            Err(failed(StatusCode::GATEWAY_TIMEOUT, "has a name that does not resolve"))
        }
    }
}
