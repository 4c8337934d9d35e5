//! WireGuard peers: enrolled by their person, standing on the person's newest session, removed by the person or revoked by
//! an administrator.

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use pomerium_shared::{
    names::Addresses,
    wireguard::{NewPeer, PeerName, PresharedKey, PublicKey},
};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{Store, StoreError, aead, from_millis, random_key, to_millis};
use crate::{
    session::{Session, SessionId, UserId},
    wireguard_peer::{AdmittedPeer, Networks, Peer, PeerId},
};

/// Keys of one person's removed peers that are remembered, at most: the oldest are forgotten.
const RETIRED_KEYS_MAX: i64 = 256;

/// Why a peer was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum AddPeerError {
    /// The key is or was a peer's, of this person or of another.
    #[error("this key is known already: make a new pair")]
    KeyKnown,
    /// The person has as many as they may.
    #[error("the person has as many peers as they may")]
    Limit,
    /// Every address is a peer's.
    #[error("all addresses of peers are taken: configure larger networks (wireguard_addresses)")]
    Exhausted,
    /// Nothing is known.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for AddPeerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(StoreError::Database(error))
    }
}

impl Store {
    /// The newest session is what its person's peers stand on.
    pub(super) async fn move_peers(
        &self,
        connection: &mut AnyConnection,
        session: &Session,
    ) -> Result<(), StoreError> {
        let moved =
            sqlx::query("UPDATE wireguard_peers SET session_id = $1 WHERE user_id = $2 AND idp_id = $3")
                .bind(session.id.as_str())
                .bind(session.user_id.as_str())
                .bind(&session.idp_id)
                .execute(&mut *connection)
                .await?;
        if moved.rows_affected() > 0 { self.announce(connection).await } else { Ok(()) }
    }

    /// Enrols a peer of this session's person: gives it addresses and a preshared key.
    ///
    /// # Errors
    /// See [`AddPeerError`].
    pub async fn add_peer(
        &self,
        session: &Session,
        new: &NewPeer,
        networks: &Networks,
        limit: NonZeroU32,
        now: SystemTime,
    ) -> Result<Peer, AddPeerError> {
        let preshared = random_key().map_err(StoreError::Sealed)?;
        let random = random_key().map_err(StoreError::Sealed)?;
        let id = PeerId::random();
        let sealed = aead::seal(self.inner.master_key.expose(), &preshared, id.as_str().as_bytes())
            .map_err(StoreError::Sealed)?;
        // Nobody else writes while this looks for room.
        let mut transaction = self.begin_write().await?;
        check_room(&mut transaction, session, new.public_key, limit).await?;
        let taken = taken_addresses(&mut transaction).await?;
        let random = u32::from_le_bytes([random[0], random[1], random[2], random[3]]);
        let addresses = networks.free_addresses(&taken, random).ok_or(AddPeerError::Exhausted)?;
        let peer = Peer {
            id,
            user_id: session.user_id.clone(),
            idp_id: session.idp_id.clone(),
            name: new.name.clone(),
            public_key: new.public_key,
            preshared_key: PresharedKey::new(preshared),
            addresses,
            session_id: Some(session.id.clone()),
            created_at: from_millis(to_millis(now)),
            revoked_at: None,
        };
        sqlx::query(
            "INSERT INTO wireguard_peers (id, user_id, idp_id, name, public_key, preshared_sealed, address_v4, \
             address_v6, session_id, created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(peer.id.as_str())
        .bind(peer.user_id.as_str())
        .bind(&peer.idp_id)
        .bind(peer.name.as_str())
        .bind(peer.public_key.as_bytes().as_slice())
        .bind(sealed)
        .bind(addresses.v4.to_string())
        .bind(addresses.v6.to_string())
        .bind(session.id.as_str())
        .bind(to_millis(now))
        .execute(&mut *transaction)
        .await?;
        // Who signs people in may be another process than the one that peers come in at.
        self.announce(&mut transaction).await?;
        transaction.commit().await?;
        self.note_peer_change();
        Ok(peer)
    }

    /// All peers that may come in at `now`, where that lasts for `grace` after the end of a session. A row that does not
    /// open is logged and left out.
    ///
    /// # Errors
    /// [`StoreError::Database`]: nothing is known, which is not "none".
    pub async fn admitted_peers(
        &self,
        networks: &Networks,
        grace: Duration,
        now: SystemTime,
    ) -> Result<Vec<AdmittedPeer>, StoreError> {
        let rows = sqlx::query(
            "SELECT wireguard_peers.*, sessions.expires_at_ms FROM wireguard_peers \
             JOIN sessions ON sessions.id = wireguard_peers.session_id AND sessions.user_id = wireguard_peers.user_id \
             WHERE revoked_at_ms IS NULL AND sessions.expires_at_ms > $1 ORDER BY wireguard_peers.id",
        )
        .bind(to_millis(now.checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH)))
        .fetch_all(&self.inner.pool)
        .await?;
        let admitted = |row: &AnyRow| -> Result<Option<AdmittedPeer>, StoreError> {
            let peer = self.peer_of_row(row)?;
            let until = from_millis(row.try_get("expires_at_ms")?) + grace;
            let session_id = peer.session_id.clone().filter(|_| networks.is_of_peer(peer.addresses));
            Ok(session_id.map(|session_id| AdmittedPeer { peer, session_id, until }))
        };
        let said = |error: &StoreError| {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a stored WireGuard peer cannot be read"
            );
        };
        Ok(rows.iter().filter_map(|row| admitted(row).inspect_err(said).ok().flatten()).collect())
    }

    /// The peers of this session's person, and when the session of each ends, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Sealed`].
    pub async fn peers_of(&self, session: &Session) -> Result<Vec<(Peer, Option<SystemTime>)>, StoreError> {
        let all = self.peers(Some(&session.user_id)).await?;
        Ok(all.into_iter().filter(|(peer, _)| peer.idp_id == session.idp_id).collect())
    }

    /// Everybody's peers, or those of one person, and when the session of each ends, by person and age.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Sealed`].
    pub async fn peers(&self, of: Option<&UserId>) -> Result<Vec<(Peer, Option<SystemTime>)>, StoreError> {
        let rows = sqlx::query(
            "SELECT wireguard_peers.*, sessions.expires_at_ms FROM wireguard_peers \
             LEFT JOIN sessions ON sessions.id = wireguard_peers.session_id \
             WHERE wireguard_peers.user_id = $1 OR $1 IS NULL \
             ORDER BY wireguard_peers.user_id, created_at_ms, wireguard_peers.id",
        )
        .bind(of.map(UserId::as_str))
        .fetch_all(&self.inner.pool)
        .await?;
        let one = |row: &AnyRow| {
            let ends = row.try_get::<Option<i64>, _>("expires_at_ms")?.map(from_millis);
            Ok((self.peer_of_row(row)?, ends))
        };
        rows.iter().map(one).collect()
    }

    /// Gives a peer of this session's person another name; `false` when they have no such peer.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rename_peer(
        &self,
        session: &Session,
        id: &PeerId,
        name: &PeerName,
    ) -> Result<bool, StoreError> {
        let rename = sqlx::query(
            "UPDATE wireguard_peers SET name = $4 WHERE id = $1 AND user_id = $2 AND idp_id = $3",
        );
        let rename =
            rename.bind(id.as_str()).bind(session.user_id.as_str()).bind(&session.idp_id).bind(name.as_str());
        let changed = self.write(rename).await?;
        self.note_peer_change();
        Ok(changed == 1)
    }

    /// Removes a peer of this session's person; `false` when they have no such peer. Its key is never a peer's again.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn remove_peer(
        &self,
        session: &Session,
        id: &PeerId,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        self.remove_peer_of(id, Some((&session.user_id, &session.idp_id)), now).await
    }

    /// Removes anybody's peer; `false` when there is none. Its key is never a peer's again.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn remove_any_peer(&self, id: &PeerId, now: SystemTime) -> Result<bool, StoreError> {
        self.remove_peer_of(id, None, now).await
    }

    async fn remove_peer_of(
        &self,
        id: &PeerId,
        owner: Option<(&UserId, &String)>,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_write().await?;
        let removed = sqlx::query(
            "DELETE FROM wireguard_peers WHERE id = $1 AND ($2 IS NULL OR user_id = $2) \
             AND ($3 IS NULL OR idp_id = $3) RETURNING public_key, user_id",
        )
        .bind(id.as_str())
        .bind(owner.map(|(user_id, _)| user_id.as_str()))
        .bind(owner.map(|(_, idp_id)| idp_id))
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = removed else { return Ok(false) };
        let user_id: String = row.try_get("user_id")?;
        sqlx::query(
            "INSERT INTO wireguard_retired_keys (public_key, user_id, retired_at_ms) VALUES ($1, $2, $3)",
        )
        .bind(row.try_get::<Vec<u8>, _>("public_key")?)
        .bind(&user_id)
        .bind(to_millis(now))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "DELETE FROM wireguard_retired_keys WHERE user_id = $1 AND public_key NOT IN (SELECT public_key \
             FROM wireguard_retired_keys WHERE user_id = $1 ORDER BY retired_at_ms DESC LIMIT $2)",
        )
        .bind(&user_id)
        .bind(RETIRED_KEYS_MAX)
        .execute(&mut *transaction)
        .await?;
        self.announce(&mut transaction).await?;
        transaction.commit().await?;
        self.note_peer_change();
        Ok(true)
    }

    /// Keeps a peer out for good, while its person still sees it; `false` when there is none that could come in.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_peer(&self, id: &PeerId, now: SystemTime) -> Result<bool, StoreError> {
        let mut transaction = self.begin_write().await?;
        let done = sqlx::query(
            "UPDATE wireguard_peers SET revoked_at_ms = $2 WHERE id = $1 AND revoked_at_ms IS NULL",
        )
        .bind(id.as_str())
        .bind(to_millis(now))
        .execute(&mut *transaction)
        .await?;
        self.announce(&mut transaction).await?;
        transaction.commit().await?;
        self.note_peer_change();
        Ok(done.rows_affected() == 1)
    }

    /// Called after the database has the change: tells who follows.
    fn note_peer_change(&self) {
        self.inner.changes.send_modify(|count| *count += 1);
    }

    fn peer_of_row(&self, row: &AnyRow) -> Result<Peer, StoreError> {
        let id: String = row.try_get("id")?;
        let sealed: Vec<u8> = row.try_get("preshared_sealed")?;
        let preshared = aead::open(self.inner.master_key.expose(), &sealed, id.as_bytes())?;
        Ok(Peer {
            id: PeerId::new(id),
            user_id: UserId::new(row.try_get::<String, _>("user_id")?),
            idp_id: row.try_get("idp_id")?,
            name: parsed(row, "name", |text| text.parse::<PeerName>().ok())?,
            public_key: public_key_of(row)?,
            preshared_key: PresharedKey::new(
                preshared.try_into().map_err(|_| StoreError::Peer("preshared_sealed"))?,
            ),
            addresses: Addresses {
                v4: parsed(row, "address_v4", |text| text.parse::<Ipv4Addr>().ok())?,
                v6: parsed(row, "address_v6", |text| text.parse::<Ipv6Addr>().ok())?,
            },
            session_id: row.try_get::<Option<String>, _>("session_id")?.map(SessionId::new),
            created_at: from_millis(row.try_get("created_at_ms")?),
            revoked_at: row.try_get::<Option<i64>, _>("revoked_at_ms")?.map(from_millis),
        })
    }
}

async fn check_room(
    connection: &mut AnyConnection,
    session: &Session,
    key: PublicKey,
    limit: NonZeroU32,
) -> Result<(), AddPeerError> {
    let known: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT public_key FROM wireguard_peers WHERE public_key = $1 \
         UNION SELECT public_key FROM wireguard_retired_keys WHERE public_key = $1) AS known",
    )
    .bind(key.as_bytes().as_slice())
    .fetch_one(&mut *connection)
    .await?;
    if known > 0 {
        return Err(AddPeerError::KeyKnown);
    }
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM wireguard_peers WHERE user_id = $1 AND idp_id = $2")
            .bind(session.user_id.as_str())
            .bind(&session.idp_id)
            .fetch_one(connection)
            .await?;
    if count >= i64::from(limit.get()) { Err(AddPeerError::Limit) } else { Ok(()) }
}

async fn taken_addresses(connection: &mut AnyConnection) -> Result<HashSet<IpAddr>, AddPeerError> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT address_v4, address_v6 FROM wireguard_peers").fetch_all(connection).await?;
    Ok(rows.iter().flat_map(|(v4, v6)| [v4, v6]).filter_map(|text| text.parse().ok()).collect())
}

fn public_key_of(row: &AnyRow) -> Result<PublicKey, StoreError> {
    let bytes: Vec<u8> = row.try_get("public_key")?;
    let key = bytes.try_into().ok().and_then(|bytes| PublicKey::new(bytes).ok());
    key.ok_or(StoreError::Peer("public_key"))
}

fn parsed<T>(
    row: &AnyRow,
    column: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, StoreError> {
    parse(row.try_get(column)?).ok_or(StoreError::Peer(column))
}
