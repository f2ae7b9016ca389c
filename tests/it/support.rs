//! What tests stand on: the daemon and the program under test, what stands in for KMS and the
//! service manager, the policies and files of a case, and the tools of the system tests. One noun a
//! file; no tests.

// The program
pub(crate) mod check;
pub(crate) mod control;
pub(crate) mod daemon;
pub(crate) mod place;
pub(crate) mod run;
pub(crate) mod side_by_side;
pub(crate) mod wait;

// What it is given, and what it leaves
pub(crate) mod document;
pub(crate) mod files;
pub(crate) mod policy;
pub(crate) mod quarantine;

// Who talks to it
pub(crate) mod doorbell;
#[cfg(feature = "aws")]
pub(crate) mod http;
#[cfg(feature = "aws")]
pub(crate) mod kms;
#[cfg(feature = "aws")]
pub(crate) mod metrics;
#[cfg(feature = "aws")]
pub(crate) mod ministack;
#[cfg(feature = "aws")]
pub(crate) mod monitoring;
#[cfg(feature = "aws")]
pub(crate) mod moto;
#[cfg(feature = "aws")]
pub(crate) mod observed_daemon;
#[cfg(feature = "aws")]
pub(crate) mod proxy;
#[cfg(feature = "aws")]
pub(crate) mod python;
#[cfg(feature = "aws")]
pub(crate) mod quota;
pub(crate) mod service_manager;

// Where the system tests run it
#[cfg(feature = "system-tests")]
pub(crate) mod mapping;
#[cfg(feature = "system-tests")]
pub(crate) mod mount;
#[cfg(feature = "system-tests")]
pub(crate) mod site;
pub(crate) mod stock;
#[cfg(feature = "system-tests")]
pub(crate) mod trace;
#[cfg(feature = "system-tests")]
pub(crate) mod user;
