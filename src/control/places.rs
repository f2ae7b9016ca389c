//! Who may have how many connections to the control socket, and follow events how many times.
//!
//! Every user has so many and no more, and the daemon's own user and root have places that nobody
//! else can take: so whoever may ask cannot keep the daemon from answering its owner. Counts; knows
//! no socket.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::peer::Peer;

/// Who shares places: the owner, or any other user alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    /// The daemon's own user, and root.
    Owner,
    User(u32),
}

/// How many of a thing there may be at the same time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The owner's, which nobody else has.
    pub(super) owner: usize,
    /// Any other user's.
    pub(super) user: usize,
    /// All other users' together.
    pub(super) users: usize,
}

/// Places, and who has them.
#[derive(Debug)]
pub(super) struct Places {
    bounds: Bounds,
    taken: Mutex<HashMap<Holder, usize>>,
}

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    holder: Holder,
}

impl Places {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, taken: Mutex::default() })
    }

    /// A place for them, if there is one.
    pub(super) fn take(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let holder = if peer.commands() { Holder::Owner } else { Holder::User(peer.uid()) };
        let mut taken = self.taken();
        let of_holder = taken.get(&holder).copied().unwrap_or_default();
        let is_free = match holder {
            Holder::Owner => of_holder < self.bounds.owner,
            Holder::User(_) => {
                let owner = taken.get(&Holder::Owner).copied().unwrap_or_default();
                let users = taken.values().sum::<usize>().saturating_sub(owner);
                of_holder < self.bounds.user && users < self.bounds.users
            }
        };
        is_free.then(|| {
            taken.insert(holder, of_holder + 1);
            Place { places: Arc::clone(self), holder }
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Holder, usize>> {
        // Right after every single step.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        match taken.get(&self.holder) {
            Some(2..) => drop(taken.entry(self.holder).and_modify(|count| *count -= 1)),
            Some(_) | None => drop(taken.remove(&self.holder)), // one entry for each user who is there
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_takes_no_place_of_the_owners_and_no_user_takes_all() {
        let places = Places::new(Bounds { owner: 2, user: 3, users: 5 });
        let user = |uid: u32| Peer::user(uid + 1 + rustix::process::geteuid().as_raw());
        let held: Vec<_> = (0..9).filter_map(|_| places.take(user(1))).collect();
        assert_eq!(held.len(), 3);
        let others: Vec<_> = (0..9).filter_map(|_| places.take(user(2))).collect();
        assert_eq!(others.len(), 2);
        assert!(places.take(user(3)).is_none());
        let root = places.take(Peer::user(0)).unwrap();
        let own = places.take(Peer::user(rustix::process::geteuid().as_raw())).unwrap();
        assert!(places.take(Peer::user(0)).is_none(), "its own are bounded, too");
        drop((root, held));
        assert!(places.take(Peer::user(0)).is_some());
        assert!(places.take(user(3)).is_some());
        drop((own, others));
        assert!(places.taken().is_empty(), "who has gone is forgotten");
    }
}
