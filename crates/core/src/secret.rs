//! A text that must not be seen: tokens, client secrets, assertions. It cannot be printed, compared or written by
//! accident, and its memory is cleared when it goes.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text. `Debug` shows nothing of it and there is no `Display`.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; the caller keeps no copy.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text. Only for the wire: whoever calls this says where the secret goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Length in bytes, for headers and buffers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_it() {
        let text = format!("{:?}", Some(Secret::new("eyJ0eXAi".to_owned())));
        assert_eq!(text, "Some(Secret(…))");
    }
}
