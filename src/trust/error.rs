//! Why something is no public key that we take, and what to do about it.

use super::kind::KeyKind;
use crate::escape::Escaped;

/// What may be a key and is none that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not one line that begins a PEM block.
    #[error(
        "there is no PEM public key in it; one begins with `-----BEGIN PUBLIC KEY-----`, as `openssl pkey -pubout` writes it"
    )]
    NoPem,
    /// Two keys, and no way to know which is meant.
    #[error("there is more than one public key in it; keep each in a file of its own")]
    SeveralPem,
    /// A PEM block that does not end, or that holds no base64.
    #[error("its PEM is damaged; write it again, for example with `openssl pkey -pubin -in FILE`")]
    DamagedPem,
    /// A secret where a public key is wanted.
    #[error(
        "this is a private key, which belongs nowhere near a verifier; take its public key: `openssl pkey -pubout -in FILE`"
    )]
    PrivateKey,
    /// X.509.
    #[error("this is a certificate; take the public key out of it: `openssl x509 -pubkey -noout -in FILE`")]
    Certificate,
    /// `BEGIN RSA PUBLIC KEY`.
    #[error(
        "this is an RSA key in the form of PKCS#1; rewrite it: `openssl rsa -RSAPublicKey_in -pubout -in FILE`"
    )]
    Pkcs1,
    /// PEM of something else.
    #[error("this is PEM of `{}`; a public key begins with `-----BEGIN PUBLIC KEY-----`", Escaped::text(.0))]
    OtherPem(String),
    /// Bytes that are not the DER of a SubjectPublicKeyInfo.
    #[error("this is not the DER encoding of a public key (SubjectPublicKeyInfo, RFC 5280)")]
    NotSpki,
    /// An algorithm that no format of ours has.
    #[error(
        "keys of the algorithm {0} are not known; known are Ed25519, ECDSA (P-256, P-384, P-521) and RSA"
    )]
    Algorithm(String),
    /// A curve that no format of ours has.
    #[error("the curve {0} is not known; known are P-256, P-384 and P-521")]
    Curve(String),
    /// A curve that is given by its numbers. An attacker may choose those (CVE-2020-0601).
    #[error("the key names no curve but brings one of its own; make a key on P-256, P-384 or P-521")]
    ExplicitCurve,
    /// A point in its short form.
    #[error(
        "the point of this {0} key is compressed; rewrite it: `openssl ec -pubin -conv_form uncompressed -in FILE`"
    )]
    Compressed(KeyKind),
    /// A point that is none, or on another curve.
    #[error("this is no point of the curve {0}")]
    NotOnCurve(KeyKind),
    /// A key of another kind than the one that was to be made.
    #[error("a key of the kind {0} has no such point")]
    NoCurve(KeyKind),
    /// The encoding of y is not below the prime of the field.
    #[error("this Ed25519 key is not in its one canonical encoding (RFC 8032)")]
    NotCanonical,
    /// A point of small order: anybody can make signatures that verify under it.
    #[error("this Ed25519 key is a point of small order, under which anybody can sign")]
    SmallOrder,
    /// Too few bits to be safe, or too many to be quick.
    #[error("the RSA key has {0} bits; 2048 to 8192 are taken")]
    RsaSize(usize),
    /// Numbers under which nothing can be verified safely.
    #[error(
        "these are no numbers of an RSA key: its modulus is odd, its exponent odd, from 3 to 33 bits long"
    )]
    RsaNumbers,
}
