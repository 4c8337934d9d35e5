-- The addresses that hosts of routes have inside WireGuard tunnels. A host keeps them when its routes go away: nobody else's saved
-- connection may lead to another host.
CREATE TABLE virtual_addresses (
    host TEXT PRIMARY KEY NOT NULL,
    address_v4 TEXT NOT NULL UNIQUE,
    address_v6 TEXT NOT NULL UNIQUE
) STRICT;
