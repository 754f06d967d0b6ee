//! Who could have written what is found in a backing directory.
//!
//! An entry is code, which whoever reads it runs. So only what root, the daemon's user and the directory's owner
//! alone could have written is served: the owner of each file and folder must be one of them, and nobody else may
//! have been able to write it, by its mode, its access control list, or a folder on the way to it.
//!
//! A group counts as trusted if the machine's accounts know nobody in it but trusted users: the group of a user's
//! own that many systems give him, with group-writable files by default, is no danger.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;

use parking_lot::Mutex;

use super::acl::{self, Acl};
use super::found::{Found, FoundKind};

const READ_WRITE_OTHERS: u32 = 0o2;

/// Why something is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// Another user owns it.
    Owner(u32),
    /// Everybody may write it.
    Everybody,
    /// Its group may, in which others are.
    Group(u32),
    /// Its access control list lets another user or group.
    Listed,
    /// Everybody, a group or somebody listed may write the folder that it is in.
    Folder,
}

impl std::fmt::Display for Stranger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Owner(uid) => write!(f, "user {uid} owns it"),
            Self::Everybody => f.write_str("everybody may write it"),
            Self::Group(gid) => write!(f, "group {gid} may write it"),
            Self::Listed => f.write_str("its access control list lets others write it"),
            Self::Folder => f.write_str("others may write the folder that it is in"),
        }
    }
}

/// What strangers may do with a folder on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// They can get to what is in it.
    pub reachable: bool,
    /// They can put things there, or replace them.
    pub open: bool,
}

/// The users whose files are served.
#[derive(Debug)]
pub struct Trusted {
    users: Vec<u32>,
    accounts: Accounts,
    groups: Mutex<HashMap<u32, bool>>,
}

impl Trusted {
    /// As [`Trusted::with_owner`], and all that are in `group`.
    pub fn with_group(owner: u32, group: u32) -> Self {
        let mut trusted = Self::with_owner(owner);
        trusted.users.extend(trusted.accounts.all_in(group));
        trusted.groups.lock().insert(group, true);
        trusted
    }

    /// Root, this process's user, and `owner`.
    pub fn with_owner(owner: u32) -> Self {
        let mut users = vec![0, rustix::process::geteuid().as_raw(), owner];
        users.sort_unstable();
        users.dedup();
        Self {
            users,
            accounts: Accounts::read(),
            groups: Mutex::default(),
        }
    }

    /// Whether a user is one of them.
    pub fn has_user(&self, uid: u32) -> bool {
        self.users.contains(&uid)
    }

    /// Whether nobody else is known to be in a group.
    pub fn has_group(&self, gid: u32) -> bool {
        let mut groups = self.groups.lock();
        *groups
            .entry(gid)
            .or_insert_with(|| self.accounts.only(gid, &self.users))
    }

    /// What strangers are permitted to do with something: 4 read, 2 write, 1 search.
    fn permitted(&self, found: &Found, acl: Option<&Acl>) -> (u32, Option<Stranger>) {
        let mut bits = 0;
        let mut why = None;
        let mut add = |permitted: u32, stranger| {
            bits |= permitted;
            if permitted & READ_WRITE_OTHERS != 0 && why.is_none() {
                why = Some(stranger);
            }
        };
        let others = acl.map_or(found.mode & 7, Acl::to_others);
        add(others, Stranger::Everybody);
        if !self.has_group(found.gid) {
            let group = acl.map_or(found.mode >> 3 & 7, Acl::to_group);
            add(group, Stranger::Group(found.gid));
        }
        if let Some(acl) = acl {
            let is_trusted = |user, id| match user {
                true => self.has_user(id),
                false => self.has_group(id),
            };
            add(acl.to_strangers(is_trusted), Stranger::Listed);
        }
        (bits, why)
    }

    /// Whether a stranger could have written what was found in a folder that `way` leads to.
    pub(super) fn judge(&self, found: &Found, acl: Option<&Acl>, way: Way) -> Result<(), Stranger> {
        if !self.has_user(found.uid) {
            return Err(Stranger::Owner(found.uid));
        }
        if way.open {
            return Err(Stranger::Folder);
        }
        match self.permitted(found, acl) {
            (_, Some(stranger)) if way.reachable && found.kind == FoundKind::File => Err(stranger),
            _ => Ok(()),
        }
    }

    /// What strangers may do with a folder that `way` leads to. With a sticky bit they can put their own things
    /// there, which are theirs to see, and replace nobody's.
    pub(super) fn way(&self, found: &Found, acl: Option<&Acl>, way: Way) -> Way {
        const STICKY: u32 = 0o1000;
        let (bits, _) = self.permitted(found, acl);
        let reachable = way.reachable && bits & 1 != 0;
        Way {
            reachable,
            open: reachable && bits & 2 != 0 && found.mode & STICKY == 0,
        }
    }
}

fn list_of(file: impl AsFd, list: &str) -> rustix::io::Result<Option<Acl>> {
    let read = |list: &OsStr| {
        let mut value = vec![0; 65_536];
        let len = rustix::fs::fgetxattr(file.as_fd(), list, value.as_mut_slice())?;
        value.truncate(len);
        Ok(value)
    };
    acl::read(read, list)
}

/// Whether anybody but `users` is permitted anything with an open file by its group's bits, which its access control
/// list may turn into rights of named users.
pub fn permits_strangers(file: impl AsFd, users: &[u32]) -> bool {
    match list_of(file, acl::ACCESS) {
        Ok(Some(acl)) => {
            acl.to_group() | acl.to_others() != 0
                || acl.to_strangers(|user, id| user && users.contains(&id)) != 0
        }
        Ok(None) | Err(_) => true,
    }
}

/// Who may write an open directory, other than those who are trusted: by its mode or its access control list.
pub fn writer(directory: impl AsFd, trusted: &Trusted) -> rustix::io::Result<Option<Stranger>> {
    let directory = directory.as_fd();
    let stat = rustix::fs::fstat(directory)?;
    let found = super::found::found(OsString::new(), FoundKind::Directory, &stat);
    let acl = list_of(directory, acl::ACCESS)?;
    Ok(trusted.permitted(&found, acl.as_ref()).1)
}

/// What the machine knows of users and groups.
#[derive(Debug, Default)]
struct Accounts {
    /// By group: those whose first group it is.
    primary: HashMap<u32, Vec<u32>>,
    /// By group: those who are members beside; `None`: a member that is no known user.
    members: HashMap<u32, Vec<Option<u32>>>,
}

impl Accounts {
    fn read() -> Self {
        let text = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into();
        let (users, groups): (String, String) = (text("/etc/passwd"), text("/etc/group"));
        Self::parse(&users, &groups)
    }

    fn parse(users: &str, groups: &str) -> Self {
        let mut accounts = Self::default();
        let mut by_name = HashMap::new();
        for line in users.lines() {
            let mut fields = line.split(':');
            let (Some(name), Some(uid), Some(gid)) = (fields.next(), fields.nth(1), fields.next())
            else {
                continue;
            };
            if let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) {
                by_name.insert(name, uid);
                accounts.primary.entry(gid).or_default().push(uid);
            }
        }
        for line in groups.lines() {
            let mut fields = line.split(':');
            let (Some(gid), Some(members)) = (fields.nth(2), fields.next()) else {
                continue;
            };
            let Ok(gid) = gid.parse() else { continue };
            let members = members.split(',').filter(|name| !name.is_empty());
            let members = members.map(|name| by_name.get(name).copied());
            accounts.members.entry(gid).or_default().extend(members);
        }
        accounts
    }

    fn all_in(&self, gid: u32) -> impl Iterator<Item = u32> {
        let members = self.members.get(&gid).into_iter().flatten().flatten();
        members
            .chain(self.primary.get(&gid).into_iter().flatten())
            .copied()
    }

    /// Whether `users` alone are in a group. Nothing is known of a group that is nowhere named: then it is this
    /// process's own or not trusted.
    fn only(&self, gid: u32, users: &[u32]) -> bool {
        let (primary, members) = (self.primary.get(&gid), self.members.get(&gid));
        if primary.is_none() && members.is_none() {
            return gid == rustix::process::getegid().as_raw();
        }
        let trusted = |uid: &u32| users.contains(uid);
        primary.is_none_or(|all| all.iter().all(trusted))
            && members.is_none_or(|all| all.iter().all(|uid| uid.as_ref().is_some_and(trusted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_trusted_if_nobody_else_is_in_it() {
        let accounts = Accounts::parse(
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\nbob:x:1001:100::/:\nbad line\n",
            "root:x:0:\napp:x:1000:\nusers:x:100:\nweb:x:33:app\nstaff:x:50:app,bob\nghosts:x:51:gone\n",
        );
        let users = [0, 1000];
        for gid in [0, 1000, 33] {
            assert!(accounts.only(gid, &users), "{gid}");
        }
        for gid in [100, 50, 51, 4_000_000] {
            assert!(!accounts.only(gid, &users), "{gid}");
        }
    }
}
