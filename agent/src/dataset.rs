//! Pools and volumes: what is on disk, chunk by chunk.
