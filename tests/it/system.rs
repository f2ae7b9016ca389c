//! What needs root, mounts or minutes: the daemon killed at every system call, failed at every one,
//! cut off from power, and out of room, descriptors and rights; and its package in a Debian of its
//! own.

mod attacker;
mod boundaries;
mod crash;
mod errno;
mod file_systems;
mod host;
mod inspection;
mod job;
mod limits;
#[cfg(feature = "aws")]
mod metrics;
mod pages;
mod power;
mod quarantine;
mod removal;
mod roots;
mod sender;
mod service;
#[cfg(feature = "aws")]
mod status;
mod systemd;
mod users;
mod watching;
