//! `kms-sig verify --trust KEYFILE…`: with public keys, and without asking anybody.
//!
//! The format is seen by what the bytes are. Where no signature is named, those are looked for that
//! the trusted keys have formats of, under the names that the stock tools give them.

use super::answer::answer_verdict;
use super::input::{self, Payload};
use super::{Failure, complain, complain_missing};
use crate::cli::{Stream, Verify};
use crate::clock;
use crate::digest::set::{DigestRequest, DigestSet};
use crate::escape::quoted;
use crate::exit::Exit;
use crate::key::Provider;
use crate::signature::ssh::FILE_NAMESPACE;
use crate::signature::{PublicFormat, PublicSignature};
use crate::signing::{Claimed, NotVouched, PublicVerifier, Vouched};
use crate::terminal;
use crate::trust::key_file::KeyFile;

/// Verifies one file.
///
/// # Errors
/// [`Failure`]: no verdict was possible.
pub(super) fn run(arguments: &Verify) -> Result<Exit, Failure> {
    let mut files = Vec::new();
    for path in &arguments.trust {
        let bytes = input::key_file(path)?;
        files.push(KeyFile::parse(&bytes).map_err(|source| Failure::KeyFile { file: quoted(path), source })?);
    }
    let names_principals = files.iter().any(|file| matches!(file, KeyFile::AllowedSigners(_)));
    if arguments.principal.is_some() && !names_principals {
        return Err(Failure::NoSigners);
    }
    let namespace = arguments.namespace.as_deref().unwrap_or(FILE_NAMESPACE);
    let verifier = PublicVerifier::new(&files, namespace, arguments.principal.as_deref());
    let is_from_stdin = arguments.sig.as_ref().is_none_or(|sig| *sig == Stream::Standard);
    if is_from_stdin && arguments.file == Stream::Standard {
        return Err(Failure::BothStandard);
    }

    let mut payload = Payload::open(&arguments.file)?;
    let places = places(arguments, &verifier.formats());
    let mut found = Vec::new();
    for place in &places {
        if let Some(bytes) = input::public_signature(place)? {
            found.push((place, PublicSignature::parse(&bytes)));
        }
    }
    if found.is_empty() {
        places.iter().for_each(complain_missing);
        return Ok(Exit::Invalid);
    }
    let readable = found.iter().filter_map(|(_, signature)| signature.as_ref().ok());
    let requests = readable.map(|signature| verifier.digests(signature));
    let digests = payload.hash_unchanged(requests.fold(DigestRequest::NONE, DigestRequest::and))?;

    let mut refusals = Vec::new();
    for (place, signature) in found {
        let judged = match signature {
            Ok(signature) => judge(arguments, &verifier, &signature, &digests, payload.shown())?,
            Err(malformed) => Err((malformed.to_string(), None)),
        };
        match judged {
            Ok(vouched) => {
                let valid = terminal::stdout().good("valid signature");
                answer_verdict(&format!("{valid} from {vouched}"))?;
                return Ok(Exit::Done);
            }
            Err(refusal) => refusals.push((place, refusal)),
        }
    }
    complain("invalid signature");
    for (place, (reason, hint)) in refusals {
        complain(&format!("reason: {}: {reason}", place.as_input()));
        hint.into_iter().for_each(|hint| complain(&format!("hint: {hint}")));
    }
    Ok(Exit::Invalid)
}

/// Where the signature is, or may be.
fn places(arguments: &Verify, formats: &[PublicFormat]) -> Vec<Stream> {
    if let Some(sig) = &arguments.sig {
        return vec![sig.clone()];
    }
    let mut places = Vec::new();
    for suffix in formats.iter().flat_map(|format| format.suffixes()) {
        let place = arguments.file.beside(*suffix);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Who vouches; or why nobody does, and what may help.
type Judged = Result<Vouched, (String, Option<&'static str>)>;

fn judge(
    arguments: &Verify,
    verifier: &PublicVerifier<'_>,
    signature: &PublicSignature,
    digests: &DigestSet,
    file: &str,
) -> Result<Judged, Failure> {
    let name = match &arguments.file {
        Stream::File(path) if !arguments.any_name => path.file_name(),
        Stream::File(_) | Stream::Standard => None,
    };
    let claimed = Claimed { name, now: clock::since_epoch().as_secs() };
    let judged = verifier.judge(signature, digests, claimed);
    let judged = judged.map_err(|source| Failure::Verify {
        file: file.to_owned(),
        provider: Provider::Local,
        source,
    })?;
    Ok(judged.map_err(|why| (why.to_string(), hint(&why))))
}

const fn hint(why: &NotVouched) -> Option<&'static str> {
    match why {
        NotVouched::Namespace(_) => Some("--namespace says which one is asked for"),
        NotVouched::OtherName(_) => Some("--any-name accepts it, if you renamed the file yourself"),
        NotVouched::Principal => Some("--principal says whose it must be"),
        NotVouched::Format(_)
        | NotVouched::WrongKey
        | NotVouched::Mismatch
        | NotVouched::KeyNamespace
        | NotVouched::NotYet
        | NotVouched::Expired
        | NotVouched::Future
        | NotVouched::Legacy => None,
    }
}
