CREATE TABLE users (
    id           TEXT NOT NULL PRIMARY KEY,
    email        TEXT NOT NULL,
    name         TEXT NOT NULL,
    last_sign_in INTEGER NOT NULL
);

CREATE TABLE sessions (
    id         TEXT NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id),
    idp_id     TEXT NOT NULL,
    email      TEXT NOT NULL,
    name       TEXT NOT NULL,
    groups     TEXT NOT NULL, -- JSON list
    claims     TEXT NOT NULL, -- JSON object of lists
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    refresh_at INTEGER, -- when the provider's tokens are to be renewed; NULL: they cannot be
    tokens     BLOB NOT NULL -- sealed
);
CREATE INDEX sessions_refresh_at ON sessions (refresh_at);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

CREATE TABLE secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL -- sealed
);

CREATE TABLE used (
    key        TEXT NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
);
