-- The thumbprint of the device key that the session is bound to; NULL: to none.
ALTER TABLE sessions ADD COLUMN bound_to TEXT;
