-- The tables of ../0001 to ../0009, for PostgreSQL. Numbers are BIGINT, flags too; texts compare octet by octet (COLLATE "C"), so that
-- both databases sort alike, and `lower` folds ASCII letters and no others.
CREATE TABLE users (
    id TEXT COLLATE "C" PRIMARY KEY,
    email TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    signed_in_at_ms BIGINT NOT NULL
);

CREATE TABLE sessions (
    id TEXT COLLATE "C" PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    idp_id TEXT COLLATE "C" NOT NULL,
    email TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    groups_json TEXT COLLATE "C" NOT NULL,
    claims_json TEXT COLLATE "C" NOT NULL,
    issued_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    -- When the provider's access token ends; NULL when there is nothing to refresh.
    refresh_at_ms BIGINT,
    -- XChaCha20-Poly1305 under the master key, bound to the session's id.
    tokens_sealed BYTEA NOT NULL,
    -- The thumbprint of the device key that the session is bound to; NULL: to none.
    bound_to TEXT COLLATE "C",
    -- The device that the person's browser has proved to be, and until when that counts; both or neither.
    proven_device TEXT COLLATE "C",
    proven_until_ms BIGINT,
    -- The claims `sub` and `sid`, for logout tokens that name a subject or the provider's own session.
    subject TEXT COLLATE "C",
    provider_session TEXT COLLATE "C"
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at_ms);
CREATE INDEX sessions_by_refresh ON sessions (refresh_at_ms) WHERE refresh_at_ms IS NOT NULL;
CREATE INDEX sessions_by_subject ON sessions (idp_id, subject);
CREATE INDEX sessions_by_provider_session ON sessions (idp_id, provider_session);

-- What may be used once: a row is a use.
CREATE TABLE claimed (
    key TEXT COLLATE "C" PRIMARY KEY,
    expires_at_ms BIGINT NOT NULL
);
CREATE INDEX claimed_by_expiry ON claimed (expires_at_ms);

CREATE TABLE named_keys (
    name TEXT COLLATE "C" PRIMARY KEY,
    sealed BYTEA NOT NULL
);

-- Programs with a token of their own. Rows stay when they are revoked: a token is never anybody else's.
CREATE TABLE service_accounts (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    groups_json TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    revoked_at_ms BIGINT
);
CREATE UNIQUE INDEX service_accounts_by_name ON service_accounts (name) WHERE revoked_at_ms IS NULL;

-- Sign-ins that a device has begun and a person finishes in a browser elsewhere (RFC 8628).
CREATE TABLE device_codes (
    -- SHA-256 of the device code: the code itself is the device's alone.
    code_hash TEXT COLLATE "C" PRIMARY KEY,
    user_code TEXT COLLATE "C" NOT NULL UNIQUE,
    -- The host that the device speaks to.
    host TEXT COLLATE "C" NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    poll_after_ms BIGINT NOT NULL,
    interval_ms BIGINT NOT NULL,
    -- NULL: nobody has decided yet.
    is_approved BIGINT,
    session_id TEXT COLLATE "C"
);
CREATE INDEX device_codes_by_expiry ON device_codes (expires_at_ms);

-- Devices of people. `id` is the thumbprint of a client's certificate, or the id of a WebAuthn credential.
CREATE TABLE devices (
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    is_approved BIGINT NOT NULL,
    enrolled_at_ms BIGINT NOT NULL,
    -- The latest report and when it came; both or neither.
    posture_json TEXT COLLATE "C",
    posture_at_ms BIGINT,
    PRIMARY KEY (user_id, id)
);
CREATE INDEX devices_by_id ON devices (id);

-- The keys of browsers' devices, whose rows in `devices` have the credential's id, base64url without padding.
CREATE TABLE webauthn_credentials (
    -- One credential is one person's (Web Authentication, 7.1): hence not by person as well.
    device_id TEXT COLLATE "C" PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL,
    cose_key BYTEA NOT NULL,
    sign_count BIGINT NOT NULL,
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id) ON DELETE CASCADE
);
CREATE INDEX webauthn_credentials_by_device ON webauthn_credentials (user_id, device_id);

-- What browsers were asked and have not answered: a row is taken by its answer.
CREATE TABLE webauthn_challenges (
    challenge BYTEA PRIMARY KEY,
    ceremony TEXT COLLATE "C" NOT NULL,
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    expires_at_ms BIGINT NOT NULL
);
CREATE INDEX webauthn_challenges_by_session ON webauthn_challenges (session_id);
CREATE INDEX webauthn_challenges_by_expiry ON webauthn_challenges (expires_at_ms);

-- People and groups as the operator's directory pushes them (SCIM 2.0). Names and addresses count without regard to the case of
-- ASCII letters, and of no others: letters that merely look alike stay different.
CREATE TABLE directory_users (
    id TEXT COLLATE "C" PRIMARY KEY,
    user_name TEXT COLLATE "C" NOT NULL,
    external_id TEXT COLLATE "C" UNIQUE,
    is_active BIGINT NOT NULL,
    -- The whole resource; the columns above and the addresses below are for finding it.
    resource_json TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    changed_at_ms BIGINT NOT NULL,
    -- When the directory removed them; NULL: it has not. They stay out until it names them again.
    removed_at_ms BIGINT
);
CREATE UNIQUE INDEX directory_users_by_name ON directory_users (lower(user_name));

CREATE TABLE directory_emails (
    user_id TEXT COLLATE "C" NOT NULL REFERENCES directory_users (id) ON DELETE CASCADE,
    value TEXT COLLATE "C" NOT NULL
);
CREATE UNIQUE INDEX directory_emails_by_user ON directory_emails (user_id, lower(value));
CREATE INDEX directory_emails_by_value ON directory_emails (lower(value));

CREATE TABLE directory_groups (
    id TEXT COLLATE "C" PRIMARY KEY,
    display_name TEXT COLLATE "C" NOT NULL,
    external_id TEXT COLLATE "C" UNIQUE,
    created_at_ms BIGINT NOT NULL,
    changed_at_ms BIGINT NOT NULL
);
CREATE UNIQUE INDEX directory_groups_by_name ON directory_groups (lower(display_name));

CREATE TABLE directory_members (
    group_id TEXT COLLATE "C" NOT NULL REFERENCES directory_groups (id) ON DELETE CASCADE,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES directory_users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX directory_members_by_user ON directory_members (user_id);

-- WireGuard peers of people.
CREATE TABLE wireguard_peers (
    id TEXT COLLATE "C" PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    idp_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    public_key BYTEA NOT NULL UNIQUE,
    -- XChaCha20-Poly1305 under the master key, bound to the peer's id.
    preshared_sealed BYTEA NOT NULL,
    address_v4 TEXT COLLATE "C" NOT NULL UNIQUE,
    address_v6 TEXT COLLATE "C" NOT NULL UNIQUE,
    -- NULL: its person is signed out. Who ends the session need not know of peers.
    session_id TEXT COLLATE "C" REFERENCES sessions (id) ON DELETE SET NULL,
    created_at_ms BIGINT NOT NULL,
    revoked_at_ms BIGINT
);
CREATE INDEX wireguard_peers_by_user ON wireguard_peers (user_id, idp_id);
CREATE INDEX wireguard_peers_by_session ON wireguard_peers (session_id);

-- Keys of peers that were removed: never anybody's again.
CREATE TABLE wireguard_retired_keys (
    public_key BYTEA PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL,
    retired_at_ms BIGINT NOT NULL
);
CREATE INDEX wireguard_retired_keys_by_user ON wireguard_retired_keys (user_id, retired_at_ms);

-- The addresses that hosts of routes have inside WireGuard tunnels. A host keeps them when its routes go away: nobody else's saved
-- connection may lead to another host.
CREATE TABLE virtual_addresses (
    host TEXT COLLATE "C" PRIMARY KEY,
    address_v4 TEXT COLLATE "C" NOT NULL UNIQUE,
    address_v6 TEXT COLLATE "C" NOT NULL UNIQUE
);

-- Each gateway hears of each change once it is committed, and forgets what it had read of it: store/listening.rs.
CREATE FUNCTION pomerium_session_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('pomerium_changes', 'session ' || CASE TG_OP WHEN 'DELETE' THEN OLD.id ELSE NEW.id END);
    RETURN NULL;
END $$;
CREATE TRIGGER sessions_changed AFTER INSERT OR UPDATE OR DELETE ON sessions
    FOR EACH ROW EXECUTE FUNCTION pomerium_session_changed();

CREATE FUNCTION pomerium_device_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed TEXT := CASE TG_OP WHEN 'DELETE' THEN 'device ' || OLD.id || ' ' || OLD.user_id
        ELSE 'device ' || NEW.id || ' ' || NEW.user_id END;
BEGIN
    -- PostgreSQL takes up to 7999 octets.
    PERFORM pg_notify('pomerium_changes', CASE WHEN octet_length(changed) < 7000 THEN changed ELSE 'any' END);
    RETURN NULL;
END $$;
CREATE TRIGGER devices_changed AFTER INSERT OR UPDATE OR DELETE ON devices
    FOR EACH ROW EXECUTE FUNCTION pomerium_device_changed();

-- Tells what its trigger says: `other`, of which nothing is kept for reading, or `any`, which may change anybody's groups.
CREATE FUNCTION pomerium_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('pomerium_changes', TG_ARGV[0]);
    RETURN NULL;
END $$;
CREATE TRIGGER wireguard_peers_changed AFTER INSERT OR UPDATE OR DELETE ON wireguard_peers
    FOR EACH STATEMENT EXECUTE FUNCTION pomerium_changed('other');
CREATE TRIGGER service_accounts_changed AFTER INSERT OR UPDATE OR DELETE ON service_accounts
    FOR EACH STATEMENT EXECUTE FUNCTION pomerium_changed('other');
CREATE TRIGGER directory_users_changed AFTER INSERT OR UPDATE OR DELETE ON directory_users
    FOR EACH STATEMENT EXECUTE FUNCTION pomerium_changed('any');
CREATE TRIGGER directory_emails_changed AFTER INSERT OR UPDATE OR DELETE ON directory_emails
    FOR EACH STATEMENT EXECUTE FUNCTION pomerium_changed('any');
CREATE TRIGGER directory_groups_changed AFTER INSERT OR UPDATE OR DELETE ON directory_groups
    FOR EACH STATEMENT EXECUTE FUNCTION pomerium_changed('any');
CREATE TRIGGER directory_members_changed AFTER INSERT OR UPDATE OR DELETE ON directory_members
    FOR EACH STATEMENT EXECUTE FUNCTION pomerium_changed('any');
