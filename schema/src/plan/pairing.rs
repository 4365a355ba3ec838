//! Which clusters exchange a trust token in one run, and which side mints it.
