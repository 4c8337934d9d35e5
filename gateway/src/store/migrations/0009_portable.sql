-- What both databases can search: columns in the place of JSON expressions, and `lower` in the place of a collation.
DROP INDEX sessions_by_subject;
DROP INDEX sessions_by_provider_session;
-- The claims `sub` and `sid`, for logout tokens that name a subject or the provider's own session.
ALTER TABLE sessions ADD COLUMN subject TEXT;
ALTER TABLE sessions ADD COLUMN provider_session TEXT;
UPDATE sessions SET
    subject = CASE json_type(claims_json, '$.sub[0]') WHEN 'text' THEN json_extract(claims_json, '$.sub[0]') END,
    provider_session = CASE json_type(claims_json, '$.sid[0]') WHEN 'text' THEN json_extract(claims_json, '$.sid[0]') END;
CREATE INDEX sessions_by_subject ON sessions (idp_id, subject);
CREATE INDEX sessions_by_provider_session ON sessions (idp_id, provider_session);

CREATE INDEX directory_users_by_name ON directory_users (lower(user_name));
DROP INDEX directory_emails_by_value;
CREATE INDEX directory_emails_by_value ON directory_emails (lower(value));
