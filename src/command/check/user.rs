//! Whom a check is made as: what the daemon's user may do is what matters, and root may do
//! everything.
//!
//! Root becomes the daemon's user for the rest of the check. That user is whose the state is; where
//! there is none yet, nobody knows who it will be.

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::diagnose::inspect::Finding;
use crate::escape::{Escaped, quoted};
use crate::fs::chown::Owner;
use crate::fs::stat_path;
use crate::policy::Policy;

/// Becomes the daemon's user, if this is root and the daemon would not run as root; and says so.
///
/// Only the calling thread does, and those that it begins from now on: to be called before there
/// are others.
pub(super) fn take_on(policy: &Policy) -> Option<Finding> {
    if !rustix::process::geteuid().is_root() || policy.allow_root {
        return None;
    }
    let state = stat_path(&policy.state_dir).ok().flatten().filter(|state| state.uid != 0);
    let Some(state) = state else {
        return Some(Finding::note(
            "user",
            "checked as root, as whom the daemon would not run: what its user may do was not found out",
            "run this as the daemon's user",
        ));
    };
    let read = |path| std::fs::read(path).unwrap_or_default();
    let user = User::of(Owner::of(&state), &read("/etc/passwd"), &read("/etc/group"));
    let who = user.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let who = format!("user {}{who}, whose the state is", state.uid);
    let hint = match &user.name {
        Some(name) => {
            let policy = quoted(&policy.file);
            format!(
                "for the last word run it as that user: runuser -u {name} -- kms-sig check --policy {policy}"
            )
        }
        None => "for the last word run it as that user".to_owned(),
    };
    let says = match user.take_on() {
        Ok(()) => format!("run by root, and checked as {who}"),
        Err(error) => format!("checked as root, which could not become {who}: {error}"),
    };
    Some(Finding::note("user", says, hint))
}

/// A user, as this host's files know it. No name service is asked.
#[derive(Debug, PartialEq, Eq)]
struct User {
    /// As it may be shown.
    name: Option<String>,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl User {
    /// By the text of passwd(5) and group(5). Who is in neither has the group of what is theirs.
    fn of(owner: Owner, passwd: &[u8], group: &[u8]) -> Self {
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u32>().ok();
        let account = passwd.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let (login, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            (number(uid)? == owner.uid).then_some((login, number(gid)?))
        });
        let Some((login, gid)) = account else {
            return Self { name: None, uid: owner.uid, gid: owner.gid, groups: Vec::new() };
        };
        let of_group = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b':');
            let (_, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let is_in_it = members.split(|byte| *byte == b',').any(|member| member == login);
            if is_in_it { number(gid) } else { None }
        };
        let groups = group.split(|byte| *byte == b'\n').filter_map(of_group).collect();
        let name = Some(Escaped::text(&String::from_utf8_lossy(login)).to_string());
        Self { name, uid: owner.uid, gid, groups }
    }

    fn take_on(&self) -> rustix::io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<_> = self.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_groups_that_this_hosts_files_say() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nshort:x\nkms-sig:x:995:994::/var/lib/kms-sig:/usr/sbin/nologin\n";
        let group = b"root:x:0:\nkms-sig:x:994:\nkms-sig-drop:x:993:ada,kms-sig\nother:x:992:kms-sigma\nx\n";
        let of = |uid, gid| User::of(Owner { uid, gid }, passwd, group);
        let known = User { name: Some("kms-sig".to_owned()), uid: 995, gid: 994, groups: vec![993] };
        assert_eq!(of(995, 7), known);
        assert_eq!(of(7001, 7002), User { name: None, uid: 7001, gid: 7002, groups: vec![] });
    }
}
