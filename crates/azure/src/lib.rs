//! Clients of Azure: IMDS, Entra, ARM.
