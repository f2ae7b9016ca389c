//! What needs root, mounts or minutes: the daemon killed at every system call, failed at every one, cut off
//! from power, and out of room, descriptors and rights; and its package in a Debian of its own.

mod attacker;
mod crash;
mod errno;
mod inspection;
mod job;
mod limits;
mod mount;
mod pages;
mod power;
mod quarantine;
mod removal;
mod roots;
mod sender;
mod systemd;
mod trace;
mod users;
