//! Tokens: cache, one flight a key, refresh ahead.
