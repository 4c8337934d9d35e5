-- People and groups as the operator's directory pushes them (SCIM 2.0). Names and addresses count without regard to the case of
-- ASCII letters, and of no others: letters that merely look alike stay different.
CREATE TABLE directory_users (
    id TEXT PRIMARY KEY NOT NULL,
    user_name TEXT NOT NULL COLLATE NOCASE UNIQUE,
    external_id TEXT UNIQUE,
    is_active INTEGER NOT NULL,
    -- The whole resource; the columns above and the addresses below are for finding it.
    resource_json TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    -- When the directory removed them; NULL: it has not. They stay out until it names them again.
    removed_at_ms INTEGER
) STRICT;

CREATE TABLE directory_emails (
    user_id TEXT NOT NULL REFERENCES directory_users (id) ON DELETE CASCADE,
    value TEXT NOT NULL COLLATE NOCASE,
    PRIMARY KEY (user_id, value)
) STRICT;
CREATE INDEX directory_emails_by_value ON directory_emails (value);

CREATE TABLE directory_groups (
    id TEXT PRIMARY KEY NOT NULL,
    display_name TEXT NOT NULL COLLATE NOCASE UNIQUE,
    external_id TEXT UNIQUE,
    created_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE directory_members (
    group_id TEXT NOT NULL REFERENCES directory_groups (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES directory_users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
) STRICT;
CREATE INDEX directory_members_by_user ON directory_members (user_id);
