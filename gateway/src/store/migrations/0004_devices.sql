-- Devices of people. `id` is the thumbprint of a client's certificate, or the id of a WebAuthn credential.
CREATE TABLE devices (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    is_approved INTEGER NOT NULL,
    enrolled_at_ms INTEGER NOT NULL,
    -- The latest report and when it came; both or neither.
    posture_json TEXT,
    posture_at_ms INTEGER,
    PRIMARY KEY (user_id, id)
) STRICT;
CREATE INDEX devices_by_id ON devices (id);

-- Rises with each change by a process beside the gateway, which looks here for them.
CREATE TABLE outside_changes (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    count INTEGER NOT NULL
) STRICT;
INSERT INTO outside_changes (id, count) VALUES (1, 0);
