//! Who is at the other end of the socket.

/// Who is at the other end of the socket, as the kernel says (unix(7), `SO_PEERCRED`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    uid: u32,
}

impl Peer {
    pub(super) const fn user(uid: u32) -> Self {
        Self { uid }
    }

    pub(super) const fn uid(self) -> u32 {
        self.uid
    }

    /// Whether they may give orders.
    pub(super) fn commands(self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }
}
