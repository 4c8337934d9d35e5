-- The keys of browsers' devices, whose rows in `devices` have the credential's id, base64url without padding.
CREATE TABLE webauthn_credentials (
    -- One credential is one person's (Web Authentication, 7.1): hence not by person as well.
    device_id TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL,
    cose_key BLOB NOT NULL,
    sign_count INTEGER NOT NULL,
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX webauthn_credentials_by_device ON webauthn_credentials (user_id, device_id);

-- What browsers were asked and have not answered: a row is taken by its answer.
CREATE TABLE webauthn_challenges (
    challenge BLOB PRIMARY KEY NOT NULL,
    ceremony TEXT NOT NULL,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    expires_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX webauthn_challenges_by_session ON webauthn_challenges (session_id);
CREATE INDEX webauthn_challenges_by_expiry ON webauthn_challenges (expires_at_ms);

-- The device that the person's browser has proved to be, and until when that counts; both or neither.
ALTER TABLE sessions ADD COLUMN proven_device TEXT;
ALTER TABLE sessions ADD COLUMN proven_until_ms INTEGER;
