//! What may have changed in a watched directory: events, and a walk that begins with watching each
//! directory.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use tokio::task::block_in_place;

use crate::clock::Moment;
use crate::fs::{Dir, FsError, Staging};
use crate::message::log;
use crate::source::directory::folder::Folder;
use crate::source::directory::hint::Hints;
use crate::source::directory::scan::{Leftover, Meaning, Walk, enter, meaning};
use crate::source::{Batch, EventFault, Feed, News, Urgency};

/// How long the event of our own file may take.
const COOKIE: Duration = Duration::from_secs(10);
/// How late this feed may be asked itself to notice that it did not come.
const LATE: Duration = Duration::from_secs(1);

/// Events and scans of one directory.
pub(crate) struct DirectoryFeed {
    folder: Folder,
    /// Where files are made whose events prove that events arrive.
    cookies: Option<Dir>,
    listens: bool,
    hints: Option<Hints>,
    watchers_built: usize,
    /// Until when the event of our own file must have come, while it is awaited.
    cookie_due: Option<Moment>,
    /// Why events are not to be relied on, as far as it is known.
    fault: Option<EventFault>,
    walk: Option<Walk>,
    /// Whether each directory of the walk is to be watched as it is begun.
    watches: bool,
    /// Every directory could be read so far.
    all_seen: bool,
    /// What a killed process left may still lie about. Later on it is what is being written.
    is_first: bool,
}

impl DirectoryFeed {
    pub(crate) const fn new(folder: Folder, cookies: Option<Dir>, listens: bool) -> Self {
        Self {
            folder,
            cookies,
            listens,
            hints: None,
            watchers_built: 0,
            cookie_due: None,
            fault: None,
            walk: None,
            watches: true,
            all_seen: true,
            is_first: true,
        }
    }

    fn rule(&self) -> &str {
        &self.folder.rule.name
    }

    /// What a change of this path, which is absolute, means.
    fn tell(&self, path: &Path, news: &mut News) {
        let root = self.folder.root.path();
        if path == root {
            news.scan_soon(); // moved or removed, perhaps: the scan compares
            return;
        }
        let Ok(below) = path.strip_prefix(root) else { return };
        let Some(name) = below.file_name() else { return };
        match meaning(&self.folder.rule, below.parent().unwrap_or(Path::new("")), name) {
            Meaning::Pair(path) => news.paths.push(path),
            Meaning::Unsignable(..) => news.scan_soon(),
            // Mostly one that was just made. One without its file is the next scan's to find.
            Meaning::Signature(_) | Meaning::Nothing => {}
        }
        // What is in a new directory, and watching it, is the scan's.
        let rule = &self.folder.rule;
        if rule.recursive && enter(rule, below).is_ok() && self.folder.is_directory(below) {
            news.scan_soon();
        }
    }

    /// Whether our own event did not come in time.
    fn is_silent(&mut self, now: Moment) -> bool {
        match self.cookie_due {
            Some(due) if now > due + LATE => {
                // The process stood still (stopped, frozen, its machine paused), and so did the
                // watcher.
                self.cookie_due = Some(now + COOKIE);
                false
            }
            Some(due) => now >= due,
            None => false,
        }
    }

    fn listen(&mut self) {
        match Hints::new() {
            Ok(hints) => {
                self.watchers_built += 1;
                self.hints = Some(hints);
            }
            Err(error) => {
                log!(EventsUnavailable, rule = self.rule(), %error);
                self.fault = Some(EventFault::Refused(error.to_string()));
            }
        }
    }

    /// Makes a file of our own appear where the same watcher watches. Its event proves that events
    /// arrive (W11).
    fn send_cookie(&mut self, now: Moment) {
        let (Some(hints), Some(dir)) = (&mut self.hints, &self.cookies) else { return };
        let name = OsStr::new(&self.folder.rule.name);
        let make = || Staging::new(dir)?.publish(dir, name).and_then(|_| dir.unlink(name));
        let is_sent = hints.watch_once(dir.path()).is_ok() && make().is_ok();
        // One that could not be made proves nothing; the scans go on.
        self.cookie_due = is_sent.then_some(now + COOKIE);
    }

    fn walk_on(&mut self, names: usize) -> Result<Option<Batch<Leftover>>, FsError> {
        let Some(walk) = &mut self.walk else { return Ok(None) };
        let (root, hints, watches) = (&self.folder.root, &mut self.hints, self.watches);
        let mut unwatched = None;
        let read = walk.next(root, names, |below| {
            if let Some(hints) = hints.as_mut().filter(|_| watches)
                && let Err(e) = hints.watch(&root.path().join(below))
            {
                unwatched.get_or_insert(e);
            }
        });
        if let Some(error) = unwatched {
            log!(WatchIncomplete, rule = self.rule(), %error);
            self.hints = None;
            self.fault = Some(EventFault::Refused(error.to_string()));
        }
        let Some(mut batch) = read? else { return Ok(None) };
        self.all_seen &= batch.failed.is_empty();
        batch.leftovers.retain(|leftover| match leftover {
            Leftover::PrivateFolder(_) => true,
            Leftover::StandIn(_) => self.is_first,
        });
        Ok(Some(batch))
    }
}

impl Feed for DirectoryFeed {
    type Leftover = Leftover;

    fn take(&mut self, now: Moment) -> News {
        let mut news = News::default();
        let changes = self.hints.as_ref().map(Hints::take).unwrap_or_default();
        if changes.broken {
            log!(EventsLost, rule = self.rule());
            self.hints = None;
        }
        if changes.everything {
            news.scan_soon();
        }
        let cookie = self.cookies.as_ref().map(|dir| dir.path().join(&self.folder.rule.name));
        for path in changes.paths {
            if Some(&path) == cookie.as_ref() {
                self.cookie_due = None;
                if self.fault == Some(EventFault::Silent) {
                    self.fault = None;
                }
            } else {
                self.tell(&path, &mut news);
            }
        }
        if self.is_silent(now) {
            log!(EventsStopped, rule = self.rule());
            self.cookie_due = None;
            self.fault = Some(EventFault::Silent);
            self.hints = None;
            news.scan = Some(Urgency::Now);
        }
        news
    }

    async fn wait(&self) {
        match &self.hints {
            Some(hints) => hints.wait().await,
            None => std::future::pending().await,
        }
    }

    fn due(&self) -> Option<Moment> {
        self.cookie_due
    }

    fn probe_events(&mut self, now: Moment) {
        let is_relied_on = !self.folder.file_system.is_remote() && self.fault != Some(EventFault::Silent);
        if is_relied_on && self.cookie_due.is_none() && self.walk.is_none() {
            self.send_cookie(now);
        }
    }

    fn begin(&mut self) {
        if self.listens && self.hints.is_none() {
            self.listen();
        }
        self.walk = Some(Walk::new(&self.folder.rule));
        self.watches = true;
        self.all_seen = true;
    }

    async fn next(&mut self, names: usize) -> Result<Option<Batch<Leftover>>, FsError> {
        block_in_place(|| self.walk_on(names))
    }

    fn again(&mut self) {
        self.walk = Some(Walk::new(&self.folder.rule));
        self.watches = false;
    }

    fn end(&mut self, now: Moment) -> bool {
        self.is_first = false;
        self.send_cookie(now);
        if self.hints.is_some() && self.fault != Some(EventFault::Silent) {
            self.fault = (!self.all_seen).then_some(EventFault::Unseen);
        }
        self.walk.take().is_some_and(|walk| walk.capped)
    }

    fn fault(&self) -> Option<EventFault> {
        if self.folder.file_system.is_remote() { Some(EventFault::Remote) } else { self.fault.clone() }
    }

    fn watchers_built(&mut self) -> usize {
        std::mem::take(&mut self.watchers_built)
    }
}
