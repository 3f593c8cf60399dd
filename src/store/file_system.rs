//! File systems that the database must not be on.
//!
//! SQLite's write-ahead log needs memory that all its processes share, and the lock of the data
//! directory must exclude servers of other machines. Network file systems provide neither, and two
//! servers would damage the database.

use std::path::Path;

use super::Error;

/// Names of network file systems by the type in `statfs`; numbers from `linux/magic.h` and the
/// sources of the file systems. FUSE and 9p are accepted, because local disks and the roots of
/// sandboxes use them too.
const NETWORK: &[(u32, &str)] = &[
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "SMB (CIFS)"),
    (0xFE53_4D42, "SMB"),
    (0x564C, "NCP"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0xAAD7_AAEA, "PanFS"),
];

/// Refuses a directory on a network file system.
///
/// # Errors
/// [`Error::NetworkFileSystem`], [`Error::Directory`].
pub(super) fn check(directory: &Path) -> Result<(), Error> {
    #[cfg(target_os = "linux")]
    {
        let found = rustix::fs::statfs(directory)
            .map_err(|source| Error::directory(directory, source.into()))?;
        // The type has 32 bits; some architectures extend its sign.
        let kind = found.f_type as u32;
        if let Some(kind) = network(kind) {
            return Err(Error::NetworkFileSystem {
                directory: directory.to_owned(),
                kind,
            });
        }
    }
    Ok(())
}

/// The name of a network file system.
fn network(kind: u32) -> Option<&'static str> {
    let found = NETWORK.iter().find(|(number, _)| *number == kind);
    found.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as `stat -f -c %t` prints them.
    #[test]
    fn network_file_systems_are_refused_and_others_accepted() {
        for (number, name) in [
            ("6969", "NFS"),
            ("ff534d42", "SMB (CIFS)"),
            ("fe534d42", "SMB"),
            ("c36400", "Ceph"),
            ("bd00bd0", "Lustre"),
            ("5346414f", "AFS"),
        ] {
            assert_eq!(
                network(u32::from_str_radix(number, 16).unwrap()),
                Some(name)
            );
        }
        let accepted = [
            ("ext4", "ef53"),
            ("xfs", "58465342"),
            ("btrfs", "9123683e"),
            ("tmpfs", "1021994"),
            ("overlayfs", "794c7630"),
            ("fuseblk", "65735546"),
            ("zfs", "2fc12fc1"),
            ("f2fs", "f2f52010"),
            ("9p", "1021997"),
        ];
        for (name, number) in accepted {
            let number = u32::from_str_radix(number, 16).unwrap();
            assert_eq!(network(number), None, "{name}");
        }
    }

    #[test]
    fn a_directory_of_this_machine_is_accepted() {
        check(tempfile::tempdir().unwrap().path()).unwrap();
        let missing = check(Path::new("/nonexistent/visage"));
        assert!(matches!(missing, Err(Error::Directory { .. })));
    }
}
