//! What a client key proves, at each door.
