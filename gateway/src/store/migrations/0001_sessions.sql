CREATE TABLE users (
    id TEXT PRIMARY KEY NOT NULL,
    email TEXT NOT NULL,
    name TEXT NOT NULL,
    signed_in_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    idp_id TEXT NOT NULL,
    email TEXT NOT NULL,
    name TEXT NOT NULL,
    groups_json TEXT NOT NULL,
    claims_json TEXT NOT NULL,
    issued_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    -- When the provider's access token ends; NULL when there is nothing to refresh.
    refresh_at_ms INTEGER,
    -- XChaCha20-Poly1305 under the master key, bound to the session's id.
    tokens_sealed BLOB NOT NULL
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at_ms);
CREATE INDEX sessions_by_refresh ON sessions (refresh_at_ms) WHERE refresh_at_ms IS NOT NULL;

-- What may be used once: a row is a use.
CREATE TABLE claimed (
    key TEXT PRIMARY KEY NOT NULL,
    expires_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX claimed_by_expiry ON claimed (expires_at_ms);

CREATE TABLE named_keys (
    name TEXT PRIMARY KEY NOT NULL,
    sealed BLOB NOT NULL
) STRICT;
