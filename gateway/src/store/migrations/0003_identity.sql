-- Whose a session is at its provider, for logout tokens that name a subject or the provider's own session.
CREATE INDEX sessions_by_subject ON sessions (idp_id, json_extract(claims_json, '$.sub[0]'));
CREATE INDEX sessions_by_provider_session ON sessions (idp_id, json_extract(claims_json, '$.sid[0]'));

-- Programs with a token of their own. Rows stay when they are revoked: a token is never anybody else's.
CREATE TABLE service_accounts (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    groups_json TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    revoked_at_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX service_accounts_by_name ON service_accounts (name) WHERE revoked_at_ms IS NULL;

-- Sign-ins that a device has begun and a person finishes in a browser elsewhere (RFC 8628).
CREATE TABLE device_codes (
    -- SHA-256 of the device code: the code itself is the device's alone.
    code_hash TEXT PRIMARY KEY NOT NULL,
    user_code TEXT NOT NULL UNIQUE,
    -- The host that the device speaks to.
    host TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    poll_after_ms INTEGER NOT NULL,
    interval_ms INTEGER NOT NULL,
    -- NULL: nobody has decided yet.
    is_approved INTEGER,
    session_id TEXT
) STRICT;
CREATE INDEX device_codes_by_expiry ON device_codes (expires_at_ms);
