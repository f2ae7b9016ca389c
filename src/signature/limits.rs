//! What bounds every signature that KMS had a part in.

/// The longest ciphertext, and so the longest plain signature, in bytes: the largest
/// `CiphertextBlob` of KMS (AWS KMS API reference, Decrypt).
pub const MAX_CIPHERTEXT: usize = 6144;
