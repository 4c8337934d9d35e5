//! The addresses that routes have, and the names they answer to.
