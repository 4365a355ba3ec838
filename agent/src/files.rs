//! Declaration folders: reading them whole, noticing that they changed.
