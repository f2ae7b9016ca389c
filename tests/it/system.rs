//! What needs root, mounts or minutes: the daemon killed at every system call, failed at every one, cut off
//! from power, and out of room, descriptors and rights.

mod crash;
mod errno;
mod job;
mod limits;
mod mount;
mod power;
mod trace;
