//! Health checks of this cluster's services.
