//! TLS 1.3 for every connection: what a server shows and asks for, and how a client pins.
