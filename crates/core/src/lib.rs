//! The nouns of podid and its decisions, without IO, clock or environment.
