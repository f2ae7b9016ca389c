//! kms-sig signs files with AWS KMS and verifies them before anyone picks them up.
//!
//! A signature is the KMS `Encrypt` ciphertext of a file's SHA-512, beside the file as `NAME.sig`.
//! Verifying is `Decrypt` and a comparison in constant time. Who may call which of the two on the
//! key is the whole trust model. One ciphertext may stand for many files: a batch, see
//! [`signature::batch`].
//!
//! # Promises
//!
//! Tests carry these numbers in their names.
//!
//! - **P1** Nothing is delivered without a [`signing::Verdict::Valid`], under a key that the rule
//!   names. Out of quarantine a person may release without one, in so many words (`--force`), and
//!   it is put on record.
//! - **P2** Trouble reaching KMS is a hold, never a verdict. Unknown error codes are holds.
//! - **P3** What is delivered is byte for byte what was hashed, whatever the sender does meanwhile.
//! - **P4** Every step may be repeated: a kill at any instruction, then a restart, finishes the
//!   work. No public name ever shows a partial file, and no source is removed before its copy is
//!   durable.
//! - **P5** No single event matters: overflow, a lost watch, a restart all mean *scan*. The
//!   directory is the queue; events are hints that make it quick.
//! - **P6** Our own output never becomes input: `.sig`, staging, claims and quarantine are never
//!   signed.
//! - **P7** No policy, no service: keys, directories and the action on failure have no defaults,
//!   unknown policy keys are errors, and what the policy names must belong to root or the daemon.
//! - **P8** An existing file is never overwritten by delivery. A `.sig` is replaced only if a rule
//!   says so and it is one of ours.
//! - **P9** Names and contents are hostile: no symlink is followed, nothing outside the rule's
//!   directory is touched, no name reaches a terminal or a log unescaped, no file is read past its
//!   limit.
//! - **P10** Memory does not grow with file size, and is bounded in the number of files waiting.
//! - **P11** A stock verifier (minisign, ssh-keygen, gpg, sqv, openssl) and we agree: what we sign
//!   it accepts, what it rejects we do not call valid, and where we are stricter the manual says
//!   so.
//!
//! # Map
//!
//! ```text
//! hint / scan ─► settle ─► queue ─► snapshot ─► hash ─► kms ─► decide ─► sink ─► state
//! ```
//!
//! [`digest`], [`key`], [`context`], [`trust`], [`signature`], [`kms`] and [`signing`] say what a
//! signature is; [`policy`] what is wanted; [`source`] what lies there, and [`settle`] when it is
//! complete; [`daemon`] is the pipeline itself; [`fs`] is how files are touched, [`sink`] all that
//! changes them, [`state`] what is remembered and on record, and how KMS vouches for that record;
//! [`diagnose`] what would happen; [`cli`] and [`command`] are what a person asks for, [`terminal`]
//! what is shown to people only, [`service`] what the host is notified of, [`message`] what is
//! logged and [`log_queue`] what stands between that and who reads it, [`control`] what a running
//! daemon answers. ARCHITECTURE.md has the order in which they may import each other.
//!
//! # As a library
//!
//! Each of these has an example; the other modules are the program's own.
//!
//! | for | see |
//! | --- | --- |
//! | digests of a payload, several from one read, and states that go on with a trailer |
//! [`DigestRequest`], [`HashState`] |
//! | what a signature file holds, what it is called, what it needs to know of its payload |
//! [`Format`], [`Signature`] |
//! | a public key, and what it signed | [`PublicKey`] |
//! | signing | [`Signer`] |
//! | verifying | [`Verifier`] |
//! | keys without AWS, for tests too | [`Local`] |
//! | a checked policy | [`Policy::load`] |
//! | the daemon | [`daemon::run`] |
//!
//! [`DigestRequest`]: digest::set::DigestRequest
//! [`HashState`]: digest::algorithm::HashState
//! [`Format`]: signature::Format
//! [`Signature`]: signature::Signature
//! [`PublicKey`]: trust::PublicKey
//! [`Signer`]: signing::Signer
//! [`Verifier`]: signing::Verifier
//! [`Local`]: kms::local::Local
//! [`Policy::load`]: policy::Policy::load

pub(crate) mod blocking;
pub(crate) mod chain;
pub mod cli;
pub mod clock;
pub mod command;
pub mod context;
pub(crate) mod control;
pub mod daemon;
pub(crate) mod diagnose;
pub mod digest;
pub mod escape;
pub mod exit;
pub(crate) mod fair;
pub mod fs;
pub(crate) mod hold;
pub mod key;
pub mod kms;
pub mod log_queue;
pub mod message;
pub mod policy;
pub mod service;
pub mod settle;
pub mod signature;
pub mod signing;
pub mod sink;
pub mod source;
pub mod state;
pub mod terminal;
pub mod trust;
