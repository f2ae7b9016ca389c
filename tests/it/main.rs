//! Tests of the built program, as its users meet it. CONTRIBUTING.md has an example of each kind to
//! copy.
//!
//! - A command, its output and its exit code: `cli`, `explain`, `history`, `quarantine`, `online`
//!   (`check --online`), `terminal` (progress and colours).
//! - The daemon: `daemon`, `watching` (what is found), `settling` (when it is complete), `prompt`
//!   (what proves it complete), `changes` (of what was decided already), `batch`, `metrics`,
//!   `control` (status, backlog, events), `file_systems` (what they do by themselves), `log` (who
//!   reads it, or does not), `service` (the service manager), `model` (random stories).
//! - KMS and its credentials: `aws` and `online_aws` for commands, `outage` and `aws_credentials`
//!   for the daemon, `credentials` for where they come from.
//! - Vectors for other implementations, too: `vectors`.
//! - What is written beside the code: `docs`, `contributing`, `manual` (manual pages, completions,
//!   policy reference), `units`.
//! - What needs root, ptrace, mounts, other users or a Debian of its own: `system`.
//!
//! What they stand on is in `support`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that panics has failed"
)]

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "aws")]
mod aws_credentials;
#[cfg(feature = "aws")]
mod aws_signing;
mod batch;
mod changes;
mod cli;
mod contributing;
mod control;
#[cfg(feature = "aws")]
mod credentials;
mod daemon;
mod docs;
mod explain;
mod file_systems;
mod foretold;
mod history;
mod keys;
mod log;
mod manual;
#[cfg(feature = "aws")] // without it some metrics tell nothing
mod metrics;
mod model;
mod online;
#[cfg(feature = "aws")]
mod online_aws;
#[cfg(feature = "aws")]
mod outage;
mod prompt;
mod public;
mod quarantine;
mod service;
mod settling;
mod support;
#[cfg(feature = "system-tests")]
mod system;
mod terminal;
mod units;
mod vectors;
mod watching;
