//! Finishing what a killed process left in the store.

use std::ffi::OsStr;
use std::path::Path;

use super::folder::{Holds, PAYLOAD, SIGNATURE, discard, has_part, ids, signature_name};
use super::item::sweep;
use super::record::{path_of, read_record};
use crate::fs::private::Private;
use crate::fs::{Dir, FsError, Place, RelPath, root};
use crate::sink::directory::removal;

/// Finishes what a killed process left in the store: takes the signature of a payload that was
/// moved alone, removes folders that hold a record and nothing else, and what is left of items that
/// were let go. Leaves what another process works on.
///
/// # Errors
/// The store cannot be listed. Single items that resist are left.
pub fn recover(store: &Dir) -> Result<(), FsError> {
    sweep(store)?;
    for id in ids(store)? {
        if let Ok(item) = store.descend(Path::new(&id))
            && matches!(item.lock(), Ok(true))
        {
            // An item that resists is still an item; nothing in it is lost.
            recover_item(store, &item, OsStr::new(&id)).unwrap_or_default();
        }
    }
    Ok(())
}

fn recover_item(store: &Dir, item: &Dir, id: &OsStr) -> Result<(), FsError> {
    if !has_part(item)? {
        return discard(store, item, &id.to_string_lossy(), Holds::Originals);
    }
    let Some(record) = read_record(item) else { return Ok(()) };
    let (Some(signature), None) = (&record.signature, item.stat_of(OsStr::new(SIGNATURE))?) else {
        return Ok(());
    };
    let (Some(root), Some(path)) = (path_of(&record.root_hex), path_of(&record.path_hex)) else {
        return Ok(());
    };
    let Some(path) = RelPath::new(path) else { return Ok(()) };
    let Ok(root) = root::open(&root) else { return Ok(()) };
    let source = Place::open(&root, path.parent())?;
    let name = signature_name(path.name());
    let payload = item.stat_of(OsStr::new(PAYLOAD))?;
    // A rename keeps the inode, and leads to no other file system, where the same number is another
    // inode's.
    let is_elsewhere = item.stat()?.identity.dev != source.stat().identity.dev;
    let was_copied = payload.is_some_and(|there| is_elsewhere || there.identity.ino != record.payload.inode);
    let in_place = source.stat_of(path.name())?.is_some_and(|stat| record.payload.is_still(&stat));
    if in_place && was_copied {
        // The copying was cut short: the source is judged anew, and copied whole.
        return discard(store, item, &id.to_string_lossy(), Holds::Copies);
    }
    if source.stat_of(&name)?.is_some_and(|stat| signature.describes(&stat)) {
        let there = OsStr::new(SIGNATURE);
        source.take(&name, item, there)?;
        let is_it =
            item.stat_of(there)?.is_some_and(|stat| signature.describes(&stat)) && source.is_in_place()?;
        if !is_it {
            // Somebody's who was quicker. Where its name is taken by now it waits among the claims.
            let path = RelPath::new(path.parent().join(&name));
            return match (source.put_back(item, there, &name), path) {
                (Err(_), Some(path)) => removal::set_aside(&Private::new(root), &path, item, there),
                (given, _) => given,
            };
        }
        item.sync()?;
    }
    Ok(())
}
