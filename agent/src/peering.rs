//! A link's life: tokens, redemption, heartbeats, replication.
