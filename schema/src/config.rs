//! From documents to what each manifest desires: decode every kind, cross-check, normalise.
