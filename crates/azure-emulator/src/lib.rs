//! ARM, Entra and IMDS on loopback.
