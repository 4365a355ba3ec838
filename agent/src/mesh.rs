//! Services' traffic: upstream ports here, instances there.
