//! The listener and the surfaces: /1.0 in LXD's shapes, /v1 in Consul's, /control/v1 ours.
