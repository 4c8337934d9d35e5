//! Where an address is in the networks of the world, by MaxMind's files: GeoLite2 or GeoIP2, Country (or City) and ASN.

use std::{fmt, net::IpAddr};

use maxminddb::{MaxMindDbError, PathElement, Reader};

use crate::authorize::Place;

/// The files that the operator has; without one, nothing is known of what it would tell.
#[derive(Default)]
pub struct Geography {
    countries: Option<Reader<Vec<u8>>>,
    systems: Option<Reader<Vec<u8>>>,
}

/// The file is no database in MaxMind's format.
#[derive(Debug, thiserror::Error)]
#[error("it is no database in MaxMind's format (.mmdb): {0}")]
pub struct GeographyError(#[from] MaxMindDbError);

impl Geography {
    /// Adds a file that tells the country of an address.
    ///
    /// # Errors
    /// It is no such file.
    pub fn with_countries(mut self, file: Vec<u8>) -> Result<Self, GeographyError> {
        self.countries = Some(Reader::from_source(file)?);
        Ok(self)
    }

    /// Adds a file that tells the autonomous system of an address.
    ///
    /// # Errors
    /// It is no such file.
    pub fn with_systems(mut self, file: Vec<u8>) -> Result<Self, GeographyError> {
        self.systems = Some(Reader::from_source(file)?);
        Ok(self)
    }

    /// What the files say of an address. Of one that they do not have, or where they are damaged, nothing is known, which
    /// satisfies no rule.
    #[must_use]
    pub fn place(&self, address: IpAddr) -> Place<'_> {
        let address = address.to_canonical();
        let country = self.countries.as_ref().and_then(|countries| {
            let path = [PathElement::Key("country"), PathElement::Key("iso_code")];
            countries.lookup(address).ok()?.decode_path(&path).ok()?
        });
        let asn = self.systems.as_ref().and_then(|systems| {
            let path = [PathElement::Key("autonomous_system_number")];
            systems.lookup(address).ok()?.decode_path(&path).ok()?
        });
        Place { country, asn }
    }
}

impl fmt::Debug for Geography {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |reader: &Reader<Vec<u8>>| reader.metadata().database_type.clone();
        f.debug_struct("Geography")
            .field("countries", &self.countries.as_ref().map(kind))
            .field("systems", &self.systems.as_ref().map(kind))
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&[0x40 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    fn number(kind: u8, number: u64) -> Vec<u8> {
        let bytes: Vec<u8> = number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        let len = u8::try_from(bytes.len()).unwrap();
        // Types above 7 are told in a second byte.
        let head = if kind > 7 { vec![len, kind - 7] } else { vec![kind << 5 | len] };
        [head, bytes].concat()
    }

    fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0xe0 | u8::try_from(entries.len()).unwrap()];
        for (key, value) in entries {
            bytes.extend(text(key));
            bytes.extend(value);
        }
        bytes
    }

    /// A database of IPv4 with `record` for 203.0.113.0/24 and nothing else (MaxMind DB file format, version 2.0).
    fn database(kind: &str, record: &[u8]) -> Vec<u8> {
        const PREFIX: [u8; 3] = [203, 0, 113];
        const NODES: u32 = 24;
        let mut file = Vec::new();
        for node in 0..NODES {
            let next = if node + 1 == NODES { NODES + 16 } else { node + 1 };
            let bit = PREFIX[(node / 8) as usize] >> (7 - node % 8) & 1;
            let sides = if bit == 0 { [next, NODES] } else { [NODES, next] };
            file.extend(sides.iter().flat_map(|side| side.to_be_bytes()[1..].to_vec()));
        }
        file.extend([0; 16]);
        file.extend(record);
        file.extend(b"\xab\xcd\xefMaxMind.com");
        file.extend(map(&[
            ("binary_format_major_version", number(5, 2)),
            ("binary_format_minor_version", number(5, 0)),
            ("build_epoch", number(9, 1_700_000_000)),
            ("database_type", text(kind)),
            ("description", map(&[])),
            ("ip_version", number(5, 4)),
            ("languages", vec![0, 4]),
            ("node_count", number(6, u64::from(NODES))),
            ("record_size", number(5, 24)),
        ]));
        file
    }

    /// Says of 203.0.113.0/24 that it is in Switzerland.
    pub(crate) fn countries() -> Vec<u8> {
        database("Test-Country", &map(&[("country", map(&[("iso_code", text("CH"))]))]))
    }

    fn systems() -> Vec<u8> {
        database("Test-ASN", &map(&[("autonomous_system_number", number(6, 64_500))]))
    }

    fn geography() -> Geography {
        Geography::default().with_countries(countries()).unwrap().with_systems(systems()).unwrap()
    }

    #[test]
    fn an_address_is_looked_up_in_each_file() {
        let geography = geography();
        for known in ["203.0.113.9", "::ffff:203.0.113.9"] {
            let place = geography.place(known.parse().unwrap());
            assert_eq!(place, Place { country: Some("CH"), asn: Some(64_500) }, "{known}");
        }
        for unknown in ["203.0.114.1", "127.0.0.1", "2001:db8::1"] {
            assert_eq!(geography.place(unknown.parse().unwrap()), Place::default(), "{unknown}");
        }
        let address = "203.0.113.9".parse().unwrap();
        assert_eq!(Geography::default().place(address), Place::default());
        // The wrong file in the wrong place tells nothing.
        assert_eq!(Geography::default().with_countries(systems()).unwrap().place(address), Place::default());
    }

    #[test]
    fn what_is_no_database_is_refused() {
        let error = Geography::default().with_countries(b"country,code".to_vec()).unwrap_err();
        assert!(error.to_string().contains(".mmdb"), "{error}");
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_refused_or_tells_less(
            place in any::<prop::sample::Index>(), byte: u8, address: std::net::Ipv4Addr,
        ) {
            let mut file = countries();
            let place = place.index(file.len());
            file[place] = byte;
            if let Ok(geography) = Geography::default().with_countries(file) {
                let _place = geography.place(address.into());
            }
        }
    }
}
