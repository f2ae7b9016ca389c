//! Tests of the built program, as its users meet it.

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
mod batch;
mod cli;
mod control;
#[cfg(feature = "aws")]
mod credentials;
mod daemon;
mod docs;
mod explain;
mod harness;
mod history;
mod manual;
#[cfg(feature = "aws")] // without it some metrics tell nothing
mod metrics;
mod model;
#[cfg(feature = "aws")]
mod moto;
mod online;
#[cfg(feature = "aws")]
mod online_aws;
#[cfg(feature = "aws")]
mod outage;
#[cfg(feature = "aws")]
mod proxy;
mod quarantine;
mod service;
#[cfg(feature = "system-tests")]
mod system;
#[cfg(all(feature = "system-tests", feature = "aws"))]
mod system_metrics;
#[cfg(feature = "system-tests")]
mod system_service;
#[cfg(all(feature = "system-tests", feature = "aws"))]
mod system_status;
#[cfg(feature = "system-tests")]
mod system_watching;
mod terminal;
mod units;
mod vectors;
mod watching;
