//! All that talks to Linux: namespaces, interception, attestation.
