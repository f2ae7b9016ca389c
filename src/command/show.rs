//! `kms-sig show`: what a signature says about itself.
//!
//! Asks neither KMS nor the keyring, so nothing shown is proven; the words say "claims" where a
//! forger could have written it.

use super::{Failure, answer, complain_missing, input};
use crate::cli::Show;
use crate::clock;
use crate::digest::Digest;
use crate::digest::algorithm::HashAlgorithm;
use crate::escape::Escaped;
use crate::exit::Exit;
use crate::kms::local;
use crate::signature::batch::Batch;
use crate::signature::ciphertext::{self, Form};
use crate::signature::{Clue, MAX_CIPHERTEXT, MAX_LEN, Malformed, PublicSignature, Signature};
use crate::signing::NAME_NOTATION;
use crate::trust::ssh_key;

/// What a ciphertext is, if it can be recognised.
const OF_A_KEYRING: &str = ", ciphertext of a kms-sig keyring";
/// AWS documents nothing of what its ciphertexts look like.
const SILENT: &str = "; the ciphertext says nothing of itself";
const OF_AWS: &str = "AWS KMS or a service like it";

/// Shows one signature.
///
/// # Errors
/// `Read`, `Output`.
pub(crate) fn run(arguments: &Show) -> Result<Exit, Failure> {
    let Some(bytes) = input::public_signature(&arguments.sig)? else {
        complain_missing(&arguments.sig);
        return Ok(Exit::Invalid);
    };
    if let Some(shown) = PublicSignature::parse(&bytes).ok().and_then(|read| describe_public(&read, &bytes)) {
        answer(&shown)?;
        return Ok(Exit::Done);
    }
    match (Signature::parse(&bytes), Clue::of(&bytes)) {
        // It may be a ciphertext, as anything may; it is not believed to be.
        (Ok(_), Some(clue)) => {
            answer(&format!("size: {} bytes\nformat: none of ours: {clue}", bytes.len()))?;
            Ok(Exit::Invalid)
        }
        (Ok(signature), None) => {
            answer(&describe(&signature))?;
            Ok(Exit::Done)
        }
        (Err(malformed), clue) => {
            let clue = clue.map(|clue| format!("\nhint: {clue}")).unwrap_or_default();
            answer(&format!("{}{clue}", describe_malformed(malformed, bytes.len())))?;
            Ok(Exit::Invalid)
        }
    }
}

/// What a signature says that a public key verifies. `None`: of bytes without a form nothing is
/// known.
fn describe_public(signature: &PublicSignature, bytes: &[u8]) -> Option<String> {
    let mut lines = vec![format!("size: {} bytes", bytes.len())];
    lines.extend(match signature {
        PublicSignature::Ssh(signature) => vec![
            format!("format: SSH signature, over {}", signature.hash()),
            format!("claims key: {} {}", signature.key().kind(), ssh_key::fingerprint(signature.key())),
            format!("claims namespace: {}", Escaped::text(signature.namespace())),
        ],
        PublicSignature::Minisign(signature) => vec![
            match signature.is_legacy() {
                true => "format: minisign signature, of the old form".to_owned(),
                false => format!("format: minisign signature, over {}", HashAlgorithm::Blake2b512),
            },
            format!("claims key: {}", signature.number()),
            format!("claims: {}", Escaped::text(signature.trusted_comment())),
        ],
        PublicSignature::OpenPgp(signature) => {
            let name = signature.notation(NAME_NOTATION);
            let mut lines = vec![
                format!("format: OpenPGP signature of version 4, over {}", signature.hash()),
                format!("claims key: {}", hex::encode_upper(signature.issuer())),
                format!("claims time: {}", clock::second_at(signature.created().into())),
            ];
            lines.extend(name.map(|name| format!("claims file: {}", Escaped::text(&name))));
            lines
        }
        PublicSignature::Sigstore(bundle) => vec![
            format!("format: sigstore bundle 0.3 of a public key, over {}", HashAlgorithm::Sha256),
            format!("claims key: {}", Escaped::text(bundle.hint())),
        ],
        PublicSignature::Der(_) => return None,
    });
    lines.push(format!("sha512: {}", Digest::of(bytes)));
    Some(lines.join("\n"))
}

fn describe(signature: &Signature) -> String {
    let ciphertext = signature.ciphertext();
    let mut lines = vec![format!("size: {} bytes", signature.as_bytes().len())];
    let (kind, provider, key) = match (local::claimed_key(ciphertext), leading_key(ciphertext)) {
        (Some(key), _) => (OF_A_KEYRING, "local", Some(key.to_string())),
        (None, Some(id)) => ("", OF_AWS, Some(id.to_owned())),
        (None, None) => (SILENT, OF_AWS, None),
    };
    match signature.batch() {
        Some(batch) => lines.extend(describe_batch(batch, kind)),
        None => lines.push(format!("format: plain signature{kind}")),
    }
    lines.push(format!("provider: {provider}"));
    lines.extend(key.map(|key| format!("claims key: {key}")));
    lines.push(format!("sha512: {}", signature.digest()));
    lines.join("\n")
}

/// What its header says: text that has exactly one form, and no other characters than these.
fn describe_batch(batch: &Batch, kind: &str) -> [String; 5] {
    let proof = batch.proof();
    [
        format!("format: batch signature, version 1{kind}"),
        format!("claims place: index {} of a batch of {}", proof.index(), proof.size()),
        format!("claims leaf context: {}", batch.leaf_keys()),
        format!("parts: {} hashes, {} bytes of ciphertext", proof.path().len(), batch.ciphertext().len()),
        // All files of the batch have the same, and no others.
        format!("sha512 of the ciphertext: {}", Digest::of(batch.ciphertext())),
    ]
}

fn describe_malformed(malformed: Malformed, len: usize) -> String {
    let size = match malformed {
        Malformed::TooLong => format!("more than {MAX_CIPHERTEXT}"),
        // No more of it is read.
        Malformed::Batch(_) if len > MAX_LEN => format!("more than {MAX_LEN}"),
        Malformed::Empty | Malformed::Foreign(_) | Malformed::Batch(_) => len.to_string(),
    };
    format!("size: {size} bytes\nformat: none of ours: {malformed}")
}

/// Which format a signature is of, and whose key it claims, on one line.
pub(super) fn format_of(signature: &Signature) -> String {
    if let Some(clue) = Clue::of(signature.as_bytes()) {
        return format!("none of ours: {clue}");
    }
    let ciphertext = signature.ciphertext();
    let format = match signature.batch() {
        Some(_) => "batch signature",
        None => "plain signature",
    };
    match (local::claimed_key(ciphertext), leading_key(ciphertext)) {
        (Some(key), _) => format!("{format}{OF_A_KEYRING}, claims key {key}"),
        (None, Some(id)) => format!("{format}, claims key {id}"),
        (None, None) => format!("{format}{SILENT}"),
    }
}

/// Some services that speak the KMS protocol (moto is one) put the key's name before the
/// ciphertext, as text. AWS does not: its ciphertexts say nothing that is documented.
fn leading_key(bytes: &[u8]) -> Option<&str> {
    match ciphertext::form(bytes) {
        Some(Form::KeyArn(arn)) => Some(arn),
        Some(Form::KeyId(_) | Form::Aws) | None => ciphertext::leading_key_id(bytes),
    }
}
