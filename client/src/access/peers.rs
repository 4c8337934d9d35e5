//! The person's WireGuard peers at a gateway.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use pomerium_shared::wireguard::{Enrolment, ListedPeer, NewPeer, PeerName};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Access;
use crate::{failure::Failure, login::turns::Asked};

const PEERS_PATH: &str = "/.pomerium/api/v1/wireguard/peers";

#[derive(Deserialize)]
struct PeerList {
    peers: Vec<ListedPeer>,
}

#[derive(Serialize)]
struct NewName<'a> {
    name: &'a PeerName,
}

impl Access {
    /// Enrols a peer, and hears once what its file needs.
    pub(crate) async fn add_peer(&self, new: &NewPeer) -> Result<Enrolment, Failure> {
        let body = json(new)?;
        let asked = self.ask(Asked::ByPerson, "add the WireGuard device", |headers| {
            self.link().post(PEERS_PATH, with_json(headers), body.clone())
        });
        read(asked.await?.0.body(), "the request for a WireGuard device")
    }

    /// The person's peers, the oldest first.
    pub(crate) async fn peers(&self) -> Result<Vec<ListedPeer>, Failure> {
        let asked = self.ask(Asked::ByPerson, "list the WireGuard devices", |headers| {
            self.link().get(PEERS_PATH, headers)
        });
        let list: PeerList = read(asked.await?.0.body(), "the list of WireGuard devices")?;
        Ok(list.peers)
    }

    /// Gives a peer another name.
    pub(crate) async fn rename_peer(&self, peer: &ListedPeer, name: &PeerName) -> Result<(), Failure> {
        let (path, body) = (path_of(peer), json(&NewName { name })?);
        let asked = self.ask(Asked::ByPerson, "rename the WireGuard device", |headers| {
            self.link().put(&path, with_json(headers), body.clone())
        });
        asked.await?;
        Ok(())
    }

    /// Removes a peer for good.
    pub(crate) async fn remove_peer(&self, peer: &ListedPeer) -> Result<(), Failure> {
        let path = path_of(peer);
        self.ask(Asked::ByPerson, "remove the WireGuard device", |headers| {
            self.link().delete(&path, headers)
        })
        .await?;
        Ok(())
    }
}

/// The id is the gateway's own word, and goes back into its path as data.
fn path_of(peer: &ListedPeer) -> String {
    let id: String = url::form_urlencoded::byte_serialize(peer.id.as_bytes()).collect();
    format!("{PEERS_PATH}/{id}")
}

fn with_json(mut headers: HeaderMap) -> HeaderMap {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

fn json(value: &impl Serialize) -> Result<Bytes, Failure> {
    Ok(serde_json::to_vec(value).map_err(std::io::Error::other)?.into())
}

fn read<T: DeserializeOwned>(body: &[u8], what: &'static str) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|_| Failure::BadAnswer { what })
}
