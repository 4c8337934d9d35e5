//! The addresses of route hosts inside WireGuard tunnels: given once, the same for all gateways of one store.

use std::net::IpAddr;

use pomerium_shared::names::{AddressBook, Addresses, AllocateError, Host, Pools};
use sqlx::Row;

use super::{Store, StoreError};

/// Why hosts have no addresses.
#[derive(Debug, thiserror::Error)]
pub enum VirtualAddressError {
    /// More hosts than addresses.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// Nothing is known.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for VirtualAddressError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(StoreError::Database(error))
    }
}

impl Store {
    /// A book of these hosts alone, each with the addresses that it always had; new ones are given and kept. `reserved` are
    /// nobody's. A host whose addresses are outside of the pools by now gets others.
    ///
    /// # Errors
    /// See [`VirtualAddressError`].
    pub async fn virtual_addresses(
        &self,
        pools: Pools,
        reserved: &[IpAddr],
        hosts: &[Host],
    ) -> Result<AddressBook, VirtualAddressError> {
        // Nobody else gives addresses while this looks for free ones.
        let mut transaction = self.begin_write().await?;
        let rows = sqlx::query("SELECT host, address_v4, address_v6 FROM virtual_addresses")
            .fetch_all(&mut *transaction)
            .await?;
        let mut all = AddressBook::new(pools, reserved);
        for row in rows {
            let (host, v4, v6): (String, String, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if let (Ok(host), Ok(v4), Ok(v6)) = (host.parse::<Host>(), v4.parse(), v6.parse())
                && let Err(error) = all.restore(&host, Addresses { v4, v6 })
            {
                tracing::warn!(%host, %error, "a host's addresses inside tunnels are given anew");
            }
        }
        let mut book = AddressBook::new(pools, reserved);
        for host in hosts {
            let (before, addresses) = (all.addresses_of(host), all.allocate(host)?);
            if before.is_none() {
                // What it had outside of the pools goes, and what another host had that has none of its own any more.
                for statement in [
                    "DELETE FROM virtual_addresses WHERE host = $1 OR address_v4 = $2 OR address_v6 = $3",
                    "INSERT INTO virtual_addresses (host, address_v4, address_v6) VALUES ($1, $2, $3)",
                ] {
                    sqlx::query(statement)
                        .bind(host.as_str())
                        .bind(addresses.v4.to_string())
                        .bind(addresses.v6.to_string())
                        .execute(&mut *transaction)
                        .await?;
                }
            }
            // What is in the one without a contradiction is so in the other.
            let restored = book.restore(host, addresses);
            debug_assert!(restored.is_ok() || book.addresses_of(host) == Some(addresses), "{restored:?}");
        }
        transaction.commit().await?;
        Ok(book)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::places::{Place, on_both};

    on_both! {
        a_host_keeps_its_addresses_over_restarts_and_while_it_is_away,
        reserved_addresses_and_those_of_other_pools_are_given_to_nobody,
    }

    fn hosts(names: &[&str]) -> Vec<Host> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    async fn book(store: &Store, names: &[&str]) -> AddressBook {
        store.virtual_addresses(Pools::default(), &[], &hosts(names)).await.unwrap()
    }

    async fn a_host_keeps_its_addresses_over_restarts_and_while_it_is_away(place: &Place) {
        let store = place.open().await;
        let (db, ssh) = ("db.corp.test".parse().unwrap(), "ssh.corp.test".parse().unwrap());
        let first = book(&store, &["db.corp.test"]).await.addresses_of(&db).unwrap();
        store.close().await;
        let store = place.open().await;
        let away = book(&store, &["ssh.corp.test"]).await;
        assert_eq!((away.addresses_of(&db), away.host_of(first.v4.into())), (None, None));
        let back = book(&store, &["ssh.corp.test", "db.corp.test", "db.corp.test"]).await;
        assert_eq!(back.addresses_of(&db), Some(first));
        assert_eq!(back.addresses_of(&ssh), away.addresses_of(&ssh));
    }

    async fn reserved_addresses_and_those_of_other_pools_are_given_to_nobody(place: &Place) {
        let store = place.open().await;
        let pools = Pools::new("10.9.0.0/30".parse().unwrap(), "fd00::/64".parse().unwrap()).unwrap();
        let _old = book(&store, &["a.corp.test"]).await;
        let reserved = [IpAddr::from([10, 9, 0, 1])];
        let book = store.virtual_addresses(pools, &reserved, &hosts(&["a.corp.test"])).await.unwrap();
        assert_eq!(book.entries().next().unwrap().1.v4.to_string(), "10.9.0.2");
        let full = store.virtual_addresses(pools, &reserved, &hosts(&["a.corp.test", "b.corp.test"])).await;
        assert!(matches!(full, Err(VirtualAddressError::Allocate(AllocateError::Exhausted))), "{full:?}");
    }
}
