-- WireGuard peers of people.
CREATE TABLE wireguard_peers (
    id TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    idp_id TEXT NOT NULL,
    name TEXT NOT NULL,
    public_key BLOB NOT NULL UNIQUE,
    -- XChaCha20-Poly1305 under the master key, bound to the peer's id.
    preshared_sealed BLOB NOT NULL,
    address_v4 TEXT NOT NULL UNIQUE,
    address_v6 TEXT NOT NULL UNIQUE,
    -- NULL: its person is signed out. Who ends the session need not know of peers.
    session_id TEXT REFERENCES sessions (id) ON DELETE SET NULL,
    created_at_ms INTEGER NOT NULL,
    revoked_at_ms INTEGER
) STRICT;
CREATE INDEX wireguard_peers_by_user ON wireguard_peers (user_id, idp_id);
CREATE INDEX wireguard_peers_by_session ON wireguard_peers (session_id);

-- Keys of peers that were removed: never anybody's again.
CREATE TABLE wireguard_retired_keys (
    public_key BLOB PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL,
    retired_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX wireguard_retired_keys_by_user ON wireguard_retired_keys (user_id, retired_at_ms);
