//! Access control lists, as the kernel hands them out (`system.posix_acl_access`, acl(5)).
//!
//! The mount has no lists: the kernel checks modes there. A list says more than the mode does, whose group bits are
//! then the list's mask. So what has a list is served with a mode that gives nobody more than the list gives him.

use std::ffi::OsStr;

use rustix::io::Errno;

/// The list that applies to a thing itself.
pub(super) const ACCESS: &str = "system.posix_acl_access";
/// The list that what is made in a directory begins with.
pub(super) const DEFAULT: &str = "system.posix_acl_default";

/// The version of the form (Linux, include/uapi/linux/posix_acl_xattr.h).
const VERSION: u32 = 2;

/// Entries by kind (Linux, include/uapi/linux/posix_acl.h), with what they permit: 4 read, 2 write, 1 search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Acl {
    owner: u32,
    users: Vec<(u32, u32)>,
    group: u32,
    groups: Vec<(u32, u32)>,
    mask: Option<u32>,
    other: u32,
}

impl Acl {
    /// Reads the stored form. What cannot be read permits nothing to anybody but the owner.
    pub(super) fn parse(stored: &[u8]) -> Self {
        let mut acl = Self {
            owner: 7,
            ..Self::default()
        };
        let Some((version, entries)) = stored.split_first_chunk() else {
            return acl;
        };
        let (entries, rest) = entries.as_chunks::<8>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
            return acl;
        }
        for entry in entries {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let perm = u32::from(u16::from_le_bytes([entry[2], entry[3]])) & 7;
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            match tag {
                0x01 => acl.owner = perm,
                0x02 => acl.users.push((id, perm)),
                0x04 => acl.group = perm,
                0x08 => acl.groups.push((id, perm)),
                0x10 => acl.mask = Some(perm),
                0x20 => acl.other = perm,
                _ => {}
            }
        }
        acl
    }

    fn masked(&self, perm: u32) -> u32 {
        perm & self.mask.unwrap_or(7)
    }

    /// Permission bits that give nobody more than the list does. Who is named in it may be in the group or not, so
    /// both classes get what every such user has, too; who is in a named group and not in the owning one is among
    /// the others by the bits.
    pub(super) fn strict_bits(&self) -> u32 {
        let users = self.users.iter().fold(7, |all, (_, perm)| all & perm);
        let groups = self.groups.iter().fold(7, |all, (_, perm)| all & perm);
        let group = self.masked(self.group & users);
        let named = match self.users.is_empty() && self.groups.is_empty() {
            true => 7,
            false => self.masked(users & groups),
        };
        self.owner << 6 | group << 3 | (self.other & named)
    }

    /// What the list permits to users and groups that `is_trusted` does not know: the user's (`true`) or group's id.
    pub(super) fn to_strangers(&self, is_trusted: impl Fn(bool, u32) -> bool) -> u32 {
        let strangers = |list: &[(u32, u32)], user| {
            list.iter()
                .filter(|(id, _)| !is_trusted(user, *id))
                .fold(0, |any, (_, perm)| any | perm)
        };
        self.masked(strangers(&self.users, true) | strangers(&self.groups, false))
    }

    /// What the list permits to the owning group.
    pub(super) fn to_group(&self) -> u32 {
        self.masked(self.group)
    }

    /// What the list permits to everybody else.
    pub(super) fn to_others(&self) -> u32 {
        self.other
    }
}

/// The result of reading a list: `None` where there is none, or no such thing.
pub(super) fn read(
    read: impl FnOnce(&OsStr) -> rustix::io::Result<Vec<u8>>,
    list: &str,
) -> rustix::io::Result<Option<Acl>> {
    match read(OsStr::new(list)) {
        Ok(stored) => Ok(Some(Acl::parse(&stored))),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut stored = VERSION.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            stored.extend(tag.to_le_bytes());
            stored.extend(perm.to_le_bytes());
            stored.extend(id.to_le_bytes());
        }
        stored
    }

    const ANY: u32 = u32::MAX;

    #[test]
    fn the_bits_give_nobody_more_than_the_list() {
        // A file that only one named user may read: st_mode shows the mask as the group's bits, 0640.
        let named = stored(&[
            (1, 6, ANY),
            (2, 4, 4001),
            (4, 0, ANY),
            (0x10, 4, ANY),
            (0x20, 0, ANY),
        ]);
        assert_eq!(Acl::parse(&named).strict_bits(), 0o600);
        // A named user who may do less than everybody.
        let barred = stored(&[
            (1, 6, ANY),
            (2, 0, 4001),
            (4, 4, ANY),
            (0x10, 4, ANY),
            (0x20, 4, ANY),
        ]);
        assert_eq!(Acl::parse(&barred).strict_bits(), 0o600);
        // A named group that may do less than everybody.
        let group = stored(&[
            (1, 6, ANY),
            (4, 6, ANY),
            (8, 0, 50),
            (0x10, 6, ANY),
            (0x20, 4, ANY),
        ]);
        assert_eq!(Acl::parse(&group).strict_bits(), 0o660);
        // The mask takes from the owning group too.
        let masked = stored(&[
            (1, 7, ANY),
            (2, 7, 4001),
            (4, 7, ANY),
            (0x10, 5, ANY),
            (0x20, 5, ANY),
        ]);
        assert_eq!(Acl::parse(&masked).strict_bits(), 0o755);
        // Without named entries the bits are the mode's.
        let plain = stored(&[(1, 6, ANY), (4, 4, ANY), (0x20, 4, ANY)]);
        assert_eq!(Acl::parse(&plain).strict_bits(), 0o644);
        for nonsense in [&b""[..], b"\x02\0\0", b"\x03\0\0\0", &named[..9]] {
            assert_eq!(Acl::parse(nonsense).strict_bits(), 0o700);
        }
    }

    #[test]
    fn what_strangers_may_do_is_what_any_of_them_may() {
        let list = stored(&[
            (1, 7, ANY),
            (2, 7, 33),
            (2, 5, 4001),
            (4, 5, ANY),
            (8, 2, 50),
            (0x10, 7, ANY),
            (0x20, 0, ANY),
        ]);
        let acl = Acl::parse(&list);
        assert_eq!(acl.to_strangers(|user, id| user && id == 33), 7);
        assert_eq!(acl.to_strangers(|user, id| user && id == 33 || id == 50), 5);
        assert_eq!(acl.to_strangers(|_, _| true), 0);
    }
}
