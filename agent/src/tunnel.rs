//! Connections between linked agents: TLS with a pinned peer, many streams, opened by either side.
