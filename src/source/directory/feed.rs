//! What may have changed in a watched directory: events, and a walk that begins with watching each
//! directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::task::block_in_place;

use crate::chain;
use crate::clock::Moment;
use crate::fs::{Dir, FsError, Staging};
use crate::message::log;
use crate::source::directory::folder::Folder;
use crate::source::directory::hint::{Change, Hints};
use crate::source::directory::scan::{Leftover, Meaning, Walk, enter, meaning};
use crate::source::{Batch, EventFault, Feed, Hint, News, Urgency};

/// How long the event of our own file may take.
const COOKIE: Duration = Duration::from_secs(10);
/// How late this feed may be asked itself to notice that it did not come.
const LATE: Duration = Duration::from_secs(1);

/// How the names begin that servers give to an upload, and take away again when it breaks off: what
/// is renamed then is half a file (proftpd with HiddenStores, pure-ftpd -0).
const RENAMED_PARTIALS: [&[u8]; 2] = [b".in.", b".pureftpd-upload."];

/// What a change tells of whether the file is complete.
fn hint(change: &Change) -> Hint {
    match change {
        Change::Any | Change::Left => Hint::Changed,
        Change::Begun => Hint::Begun,
        Change::Closed => Hint::Closed,
        Change::MovedIn(Some(from))
            if RENAMED_PARTIALS.iter().any(|begin| from.as_bytes().starts_with(begin)) =>
        {
            Hint::Begun
        }
        Change::MovedIn(_) => Hint::MovedIn,
    }
}

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
            all_seen: true,
            is_first: true,
        }
    }

    fn rule(&self) -> &str {
        &self.folder.rule.name
    }

    /// What a change of this path below the root means.
    fn tell(&self, below: &Path, change: &Change, news: &mut News) {
        let Some(name) = below.file_name() else {
            news.scan_soon(); // the root was moved or removed, perhaps: the scan compares
            return;
        };
        match meaning(&self.folder.rule, below.parent().unwrap_or(Path::new("")), name) {
            Meaning::Pair(path) => news.paths.push((path, hint(change))),
            Meaning::Unsignable(..) => news.scan_soon(),
            Meaning::Signature(path) => news.signatures.push(path),
            Meaning::Nothing => {}
        }
        // A download may have ended.
        let rule = &self.folder.rule;
        if let Some(payload) = rule.controlled(name) {
            let below = below.parent().unwrap_or(Path::new(""));
            if let Meaning::Pair(path) = meaning(rule, below, payload) {
                news.paths.push((path, Hint::Changed));
            }
        }
        // What is in a new directory, and watching it, is the scan's.
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
                let error = chain::one_line(&error);
                log!(EventsUnavailable, rule = self.rule(), error);
                self.fault = Some(EventFault::Refused(error));
            }
        }
    }

    /// Makes a file of our own appear where the same watcher watches. Its event proves that events
    /// arrive (W11).
    fn send_cookie(&mut self, now: Moment) {
        let (Some(hints), Some(dir)) = (&mut self.hints, &self.cookies) else { return };
        let name = OsStr::new(&self.folder.rule.name);
        let make = || Staging::new(dir)?.publish(dir, name).and_then(|_| dir.unlink(name));
        let is_sent = hints.watch_once(dir).is_ok() && make().is_ok();
        // One that could not be made proves nothing; the scans go on.
        self.cookie_due = is_sent.then_some(now + COOKIE);
    }

    fn walk_on(&mut self, names: usize) -> Result<Option<Batch<Leftover>>, FsError> {
        let Some(walk) = &mut self.walk else { return Ok(None) };
        let (root, hints) = (&self.folder.root, &mut self.hints);
        let mut unwatched = None;
        let read = walk.next(root, names, |below| {
            if let Some(hints) = hints.as_mut()
                && let Err(e) = hints.watch(root, below)
            {
                unwatched.get_or_insert(e);
            }
        });
        if let Some(error) = unwatched {
            let error = chain::one_line(&error);
            log!(WatchIncomplete, rule = self.rule(), error);
            self.hints = None;
            self.fault = Some(EventFault::Refused(error));
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
        let root = self.folder.root.by_descriptor();
        let cookie = self.cookies.as_ref().map(|dir| dir.by_descriptor().join(&self.folder.rule.name));
        for (path, change) in changes.paths {
            if Some(&path) == cookie.as_ref() {
                self.cookie_due = None;
                if self.fault == Some(EventFault::Silent) {
                    self.fault = None;
                }
            } else if let Ok(below) = path.strip_prefix(&root) {
                self.tell(below, &change, &mut news);
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
        self.all_seen = true;
    }

    async fn next(&mut self, names: usize) -> Result<Option<Batch<Leftover>>, FsError> {
        block_in_place(|| self.walk_on(names))
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

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, rename, write};
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::clock::Clock;
    use crate::fs::RelPath;
    use crate::source::directory::scan::tests::downloads;

    /// Far more than an event takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A feed of a folder at this path, opened there, whose own files go to `cookies` beside it.
    fn feed(temp: &Path, folder: &str) -> DirectoryFeed {
        let (_folder, rule, _root) = downloads();
        for dir in [folder, "cookies"] {
            create_dir_all(temp.join(dir)).unwrap();
        }
        let root = Dir::open(&temp.join(folder)).unwrap();
        let cookies = Dir::open(&temp.join("cookies")).unwrap();
        let file_system = root.file_system().unwrap();
        DirectoryFeed::new(Folder { rule, root, file_system }, Some(cookies), true)
    }

    fn scan(feed: &mut DirectoryFeed, clock: Clock) {
        feed.begin();
        while feed.walk_on(100).unwrap().is_some() {}
        feed.end(clock.now());
    }

    /// Takes what has come until `is_it`; returns all of it.
    fn news_until(
        feed: &mut DirectoryFeed,
        clock: Clock,
        is_it: impl Fn(&DirectoryFeed, &News) -> bool,
    ) -> News {
        let (began, mut all) = (clock.now(), News::default());
        while !is_it(feed, &all) {
            assert!(clock.now() < began + PATIENCE, "only {all:?}, and {:?}", feed.due());
            let news = feed.take(clock.now());
            all.paths.extend(news.paths);
            all.scan = all.scan.max(news.scan);
            std::thread::yield_now();
        }
        all
    }

    fn has(news: &News, path: &str) -> bool {
        news.paths.iter().any(|(told, _)| *told == RelPath::new(path).unwrap())
    }

    #[test]
    fn what_is_said_of_a_name_last_is_told_but_for_its_attributes() {
        let (temp, clock) = (tempfile::tempdir().unwrap(), Clock::start());
        let mut feed = feed(temp.path(), "in");
        scan(&mut feed, clock);
        let (inside, outside) = (temp.path().join("in"), temp.path());
        let put = |path: &Path| write(path, "").unwrap();
        let mv = |from: &Path, to: &Path| rename(from, to).unwrap();
        for name in ["moved-in", "moved-then-written"] {
            put(&outside.join(name));
            mv(&outside.join(name), &inside.join(name));
        }
        put(&inside.join("moved-then-written"));
        for (before, after) in [
            (".f.Xa12", "renamed"),
            (".in.f.", "partial-of-proftpd"),
            (".pureftpd-upload.1.2.3", "partial-of-pure-ftpd"),
        ] {
            put(&inside.join(before));
            mv(&inside.join(before), &inside.join(after));
        }
        put(&inside.join("written-then-replaced"));
        put(&outside.join("other"));
        mv(&outside.join("other"), &inside.join("written-then-replaced"));
        std::fs::hard_link(inside.join("renamed"), inside.join("linked")).unwrap();
        std::fs::remove_file(inside.join("linked")).unwrap();
        std::fs::hard_link(inside.join("moved-in"), inside.join("linked")).unwrap();
        put(&inside.join("written"));
        put(&inside.join("last"));
        let news = news_until(&mut feed, clock, |_, news| has(news, "last"));
        let told = |name: &str| {
            let path = RelPath::new(name).unwrap();
            let told = news.paths.iter().rev().find(|(told, hint)| *told == path && *hint != Hint::Changed);
            told.map(|(_, hint)| *hint)
        };
        for (name, hint) in [
            ("moved-in", Hint::MovedIn), // to which a link was made since, of which its attributes tell
            ("moved-then-written", Hint::Closed),
            ("renamed", Hint::MovedIn),
            ("partial-of-proftpd", Hint::Begun),
            ("partial-of-pure-ftpd", Hint::Begun),
            ("written-then-replaced", Hint::MovedIn),
            ("linked", Hint::Begun),
            ("written", Hint::Closed),
        ] {
            assert_eq!(told(name), Some(hint), "{name}");
        }
    }

    /// Moves what is at `path` away and puts a link in its place.
    fn put_a_link_in_place_of(path: &Path, target: &Path) {
        rename(path, path.with_extension("moved")).unwrap();
        symlink(target, path).unwrap();
    }

    #[test]
    fn p9_the_directory_that_was_opened_is_heard_whatever_its_path_leads_to_by_then() {
        let (temp, clock) = (tempfile::tempdir().unwrap(), Clock::start());
        let mut feed = feed(temp.path(), "home/drop/out");
        create_dir_all(temp.path().join("private/out")).unwrap();
        put_a_link_in_place_of(&temp.path().join("home/drop"), &temp.path().join("private"));
        put_a_link_in_place_of(&temp.path().join("cookies"), &temp.path().join("private"));
        scan(&mut feed, clock);
        write(temp.path().join("private/out/theirs"), "").unwrap();
        write(temp.path().join("home/drop.moved/out/new"), "").unwrap();
        let news = news_until(&mut feed, clock, |feed, news| has(news, "new") && feed.due().is_none());
        assert!(!has(&news, "theirs"), "{news:?}");
        assert_eq!(feed.fault(), None);
    }

    #[test]
    fn p9_a_watch_below_that_a_link_led_elsewhere_is_followed_by_a_scan_that_puts_it_right() {
        let (temp, clock) = (tempfile::tempdir().unwrap(), Clock::start());
        let mut feed = feed(temp.path(), "in");
        let at = |path: &str| temp.path().join(path);
        for dir in ["in/a/b", "elsewhere/b"] {
            create_dir_all(at(dir)).unwrap();
        }
        scan(&mut feed, clock);
        news_until(&mut feed, clock, |feed, _| feed.due().is_none());
        // A scan is about to watch a/b in this moment.
        put_a_link_in_place_of(&at("in/a"), &at("elsewhere"));
        news_until(&mut feed, clock, |_, news| has(news, "a"));
        feed.hints.as_mut().unwrap().watch(&feed.folder.root, Path::new("a/b")).unwrap();
        std::fs::remove_file(at("in/a")).unwrap();
        rename(at("in/a.moved"), at("in/a")).unwrap();
        news_until(&mut feed, clock, |_, news| news.scan.is_some());
        scan(&mut feed, clock);
        write(at("in/a/b/new"), "").unwrap();
        news_until(&mut feed, clock, |_, news| has(news, "a/b/new"));
    }
}
