//! A secret: bytes that a volume's helper needs and no other process may read.
//!
//! Pure; it goes from the front door through the socket to the mounter, and from there to the helper. It cannot get
//! into a text: its `Debug` and `Display` print a placeholder. hostmount's own copies are wiped from memory when they
//! are dropped; that is a precaution, not a promise.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

/// The bytes of one secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// A volume's secrets, by their keys. Keys are no secrets: errors name them.
pub type Secrets = BTreeMap<String, Secret>;

/// Before the audience of a service-account token, in its key: no key of a Kubernetes Secret has a colon.
pub const TOKEN: &str = "token:";

/// A secret's text is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not valid base64")]
pub struct NotBase64;

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads base64, as Kubernetes writes it: with padding.
    pub fn from_base64(text: &str) -> Result<Self, NotBase64> {
        // The decoder's own error names bytes of the text.
        BASE64_STANDARD.decode(text).map(Self::new).map_err(|_| NotBase64)
    }

    /// The bytes, for the code that passes them to the helper.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a secret)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// For the socket, both ends of which are root's, and for what the mounter keeps where nobody else reads it; nothing else.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(self.reveal())))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An error of the deserializer's own could quote what it found.
        let text = String::deserialize(deserializer).map_err(|_| de::Error::custom("a secret is not a string"))?;
        Self::from_base64(&Zeroizing::new(text)).map_err(|_| de::Error::custom("a secret is not valid base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_is_printed_and_the_socket_brings_it_back() {
        let secret = Secret::new(b"hunter2\0\xff".to_vec());
        let wire = serde_json::to_string(&secret).unwrap();
        assert_eq!(serde_json::from_str::<Secret>(&wire).unwrap(), secret);
        for text in [wire, format!("{secret} {secret:?} {secret:#?}")] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn errors_quote_nothing() {
        for wrong in ["\"hunter2!\"", "20481", "[\"hunter2\"]"] {
            let error = serde_json::from_str::<Secret>(wrong).unwrap_err().to_string();
            assert!(
                error.contains("a secret is not") && !error.contains("hunter2") && !error.contains("20481"),
                "{error}"
            );
        }
        assert_eq!(Secret::from_base64("aHVudGVyMg"), Err(NotBase64));
    }
}
