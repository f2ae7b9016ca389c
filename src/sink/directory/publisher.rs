//! Writes the signatures of one rule: those that are ready while others are being written,
//! together.
//!
//! One thread does it for all, however many there are. Each of them would otherwise have a thread
//! of its own that waits for the disk, only to be woken with all others. What may take long,
//! reading a payload again or exchanging a signature, it leaves to others.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::blocking::blocking;
use crate::digest::Digest;
use crate::fs::flush::Flusher;
use crate::fs::private::Private;
use crate::fs::{FsError, Identity, Place, RelPath, Stat};
use crate::hold::AttemptError;
use crate::settle::PairVersion;
use crate::signature::{Signature, Suffix};
use crate::sink::directory::sign::{self, Payload, Spot};
use crate::sink::sight::Sight;
use crate::sink::{Old, Unwritten};
use crate::source::directory::source::Origin;
use crate::state::reason::RefusalReason;

/// Written together at most; bounds how long the first of them waits.
const MOST: usize = 256;

/// From how many on they wait a moment for more.
const MANY: usize = 4;

const MOMENT: Duration = Duration::from_millis(2);

/// A signature to be written beside its payload.
#[derive(Debug)]
pub(crate) struct Order {
    /// Where the payload lies, and what it was.
    pub(crate) origin: Origin,
    /// The payload, below the root.
    pub(crate) path: RelPath,
    /// What it must still hold.
    pub(crate) digest: Digest,
    /// The signature's path below the root.
    pub(crate) beside: RelPath,
    pub(crate) signature: Signature,
    pub(crate) suffix: Suffix,
    /// Whether the signature may have been seen.
    pub(crate) sight: Sight,
}

/// What became of it. Nothing: the payload's attributes have changed, at least, or something has
/// the signature's name.
type Written = Result<Option<PairVersion<Identity>>, AttemptError>;

/// What writes the signatures of one rule.
#[derive(Debug)]
pub(crate) struct Publisher {
    private: Arc<Private>,
    disk: Arc<Flusher>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<(Arc<Order>, oneshot::Sender<Written>)>,
    is_working: bool,
}

impl Publisher {
    /// For the rule's directory.
    pub(crate) fn new(private: Arc<Private>, disk: Arc<Flusher>) -> Self {
        Self { private, disk, queue: Mutex::default() }
    }

    /// Writes a signature where none is.
    ///
    /// # Errors
    /// Any step's. `Changed` when what was signed is not there any more, something else has the
    /// signature's name, or the runtime goes down.
    pub(crate) async fn write(self: &Arc<Self>, order: Order) -> Result<PairVersion<Identity>, Unwritten> {
        let order = Arc::new(order);
        let written = match self.write_with_others(Arc::clone(&order)).await {
            Ok(Some(written)) => Ok(written),
            Err(error) => Err(error),
            Ok(None) => {
                let (this, order) = (Arc::clone(self), Arc::clone(&order));
                blocking(move || this.alone(&order, None)).await
            }
        };
        written.map_err(|error| Unwritten { error, seen: order.sight.seen() })
    }

    /// Replaces a signature.
    ///
    /// # Errors
    /// As of [`Publisher::write`]; `Changed` also when another one is there.
    pub(crate) async fn replace(
        self: &Arc<Self>,
        order: Order,
        old: Old<Identity>,
    ) -> Result<PairVersion<Identity>, Unwritten> {
        let (this, order) = (Arc::clone(self), Arc::new(order));
        let of_work = Arc::clone(&order);
        let written = blocking(move || this.alone(&of_work, Some(&old))).await;
        written.map_err(|error| Unwritten { error, seen: order.sight.seen() })
    }

    async fn write_with_others(self: &Arc<Self>, order: Arc<Order>) -> Written {
        let (done, result) = oneshot::channel();
        let is_first = {
            let mut queue = self.queue();
            queue.waiting.push((Arc::clone(&order), done));
            !std::mem::replace(&mut queue.is_working, true)
        };
        if is_first {
            let this = Arc::clone(self);
            drop(tokio::task::spawn_blocking(move || this.work())); // it answers everyone by itself
        }
        result.await.map_err(|_gone| {
            order.sight.begins(); // nobody says what became of it
            AttemptError::Changed
        })?
    }

    /// Until nobody waits.
    fn work(&self) {
        let _batch = Batch(self);
        let mut is_first = true;
        loop {
            let waiting = {
                let mut queue = self.queue();
                if queue.waiting.is_empty() {
                    queue.is_working = false; // before anybody else can look
                    return;
                }
                // Later ones have gathered while those before them were written.
                if std::mem::take(&mut is_first) && (MANY..MOST).contains(&queue.waiting.len()) {
                    drop(queue);
                    std::thread::sleep(MOMENT);
                    queue = self.queue();
                }
                let some = queue.waiting.len().min(MOST);
                queue.waiting.drain(..some).collect::<Vec<_>>()
            };
            let (orders, waiters): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
            for (waiter, written) in waiters.into_iter().zip(self.write_all(&orders)) {
                drop(waiter.send(written)); // a caller that was cancelled needs no answer
            }
        }
    }

    fn write_all(&self, orders: &[Arc<Order>]) -> Vec<Written> {
        let payloads: Vec<_> = orders.iter().map(|order| || order.unchanged()).collect();
        let mut batch = Vec::new();
        for (order, payload) in orders.iter().zip(&payloads) {
            match self.spot(order, payload) {
                Ok(spot) => batch.push((spot, &order.signature)),
                // A bug: nothing that is written rests. Each of them says so by itself.
                Err(_) => return orders.iter().map(|_| Ok(None)).collect(),
            }
        }
        let written = orders.iter().zip(sign::write(&batch));
        let written = written.map(|(order, written)| {
            let written = written.map_err(|error| order.failed(error))?;
            Ok(written.map(|signature| order.versions(order.origin.payload.identity, &signature)))
        });
        written.collect()
    }

    /// Writes a signature, or replaces one, even if attributes of the payload have changed: it is
    /// read again then.
    fn alone(
        &self,
        order: &Order,
        old: Option<&Old<Identity>>,
    ) -> Result<PairVersion<Identity>, AttemptError> {
        let version = Cell::new(order.origin.payload.identity);
        let payload = || order.payload(&version);
        let spot = self.spot(order, &payload)?;
        let written = match old {
            None => sign::write(&[(spot, &order.signature)]).pop().unwrap_or(Ok(None)),
            Some(old) => sign::replace(&spot, old, &order.signature),
        };
        let written = written.map_err(|error| order.failed(error))?;
        // Without one the payload is another, or somebody else put a signature there meanwhile.
        let written = written.ok_or(AttemptError::Changed)?;
        Ok(order.versions(version.get(), &written))
    }

    fn spot<'a>(
        &'a self,
        order: &'a Order,
        payload: &'a dyn Fn() -> Result<Payload, FsError>,
    ) -> Result<Spot<'a>, AttemptError> {
        let place = order.origin.parent()?;
        let (private, path, sight, disk) = (&self.private, &order.beside, &order.sight, &self.disk);
        Ok(Spot { private, place, path, payload, sight, disk })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    /// What has the payload's name; what has other attributes counts as another.
    fn unchanged(&self) -> Result<Payload, FsError> {
        let Ok(place) = self.origin.parent() else { return Ok(Payload::Other) };
        match self.origin.is_in(place, self.path.name())? {
            true => Ok(Payload::Same),
            false => self.unless_same(place),
        }
    }

    /// What has the payload's name, which is read again if need be; `version` is its present one if
    /// it is what was signed.
    fn payload(&self, version: &Cell<Identity>) -> Result<Payload, FsError> {
        let Ok(place) = self.origin.parent() else { return Ok(Payload::Other) };
        match self.origin.version_of_same(place, self.path.name(), &self.digest, &version.get())? {
            Some(there) => {
                version.set(there);
                Ok(Payload::Same)
            }
            None => self.unless_same(place),
        }
    }

    fn unless_same(&self, place: &Place) -> Result<Payload, FsError> {
        let is_away = place.stat_of(self.path.name())?.is_none();
        Ok(if is_away { Payload::Away } else { Payload::Other })
    }

    const fn versions(&self, payload: Identity, signature: &Stat) -> PairVersion<Identity> {
        PairVersion { payload: Some(payload), signature: Some(signature.identity) }
    }

    fn failed(&self, error: FsError) -> AttemptError {
        // What cannot be made may be looked for all the same.
        if error.source == Errno::NAMETOOLONG
            && error.path.file_name() == Some(self.beside.name())
            && let Ok(place) = self.origin.parent()
        {
            let longest = place.looking().longest_name().min(self.beside.name().len() - 1);
            return AttemptError::Refused(RefusalReason::name_too_long(longest, self.suffix));
        }
        error.into()
    }
}

/// However a batch ends, the next caller can start another, and nobody waits for this one.
struct Batch<'p>(&'p Publisher);

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.queue() = Queue::default();
        }
    }
}
