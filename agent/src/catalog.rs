//! Who offers what: services of this cluster, what is exported to whom, what was imported.
