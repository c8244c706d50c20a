//! How much memory there is for this process: what the system has, and what the control groups it is in leave.

use std::path::{Path, PathBuf};

/// Memory that can be had without swapping, in bytes, where the system says. Files that are cached count as free, mapped weights too:
/// whoever goes on reading those subtracts them.
pub fn available() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kib: u64 = field(&text, "MemAvailable:")?.trim_end_matches("kB").trim().parse().ok()?;
        kib.checked_mul(1024)
    });
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok();
    let groups = groups.and_then(|text| left_by_groups(&text, Path::new("/sys/fs/cgroup")));
    [system, groups].into_iter().flatten().min()
}

/// What stands behind a name at the beginning of a line.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The least that a control group leaves of which this process is a member, or one that such a group is in. `memberships` is
/// /proc/self/cgroup; none where nothing is limited.
fn left_by_groups(memberships: &str, root: &Path) -> Option<u64> {
    let groups = memberships.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (version, folder) = if controllers.is_empty() {
            (&VERSION_2, root.to_owned())
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (&VERSION_1, root.join("memory"))
        } else {
            return None;
        };
        Some((version, folder, path.trim_start_matches('/')))
    });
    let lefts = groups.flat_map(|(version, folder, path)| {
        // In a container the path may be the host's, of which only the root is there: groups that are not there say nothing.
        let group: PathBuf = path.into();
        let folders: Vec<_> = group.ancestors().map(|part| folder.join(part)).collect();
        folders.into_iter().filter_map(|folder| version.left(&folder))
    });
    lefts.min()
}

/// What a version of control groups calls its files.
struct Version {
    limit: &'static str,
    usage: &'static str,
    /// Of memory.stat: cached files, which go when memory is wanted.
    files: [&'static str; 2],
}

const VERSION_1: Version = Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    files: ["total_inactive_file ", "total_active_file "],
};
const VERSION_2: Version =
    Version { limit: "memory.max", usage: "memory.current", files: ["inactive_file ", "active_file "] };

impl Version {
    /// What the group in a folder leaves, if it has a limit.
    fn left(&self, folder: &Path) -> Option<u64> {
        let number = |name: &str| -> Option<u64> {
            std::fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
        };
        // "max" where there is none.
        let limit = number(self.limit)?;
        let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cached = self.files.iter().filter_map(|name| field(&stat, name)?.parse::<u64>().ok()).sum();
        let used = number(self.usage).unwrap_or_default().saturating_sub(cached);
        Some(limit.saturating_sub(used))
    }
}

#[cfg(test)]
mod tests {
    use super::{available, left_by_groups};
    use std::path::Path;

    fn put(root: &Path, group: &str, files: &[(&str, &str)]) {
        let folder = root.join(group);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_second_version_counts_all_groups_on_the_way_up() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        put(root, "a/b", &[("memory.max", "max\n"), ("memory.current", "9000\n")]);
        put(
            root,
            "a",
            &[
                ("memory.max", "5000\n"),
                ("memory.current", "2500\n"),
                ("memory.stat", "anon 1500\nfile 1000\ninactive_file 700\nactive_file 300\n"),
            ],
        );
        assert_eq!(left_by_groups("0::/a/b\n", root), Some(3500));
        put(root, "", &[("memory.max", "2000\n"), ("memory.current", "1900\n")]);
        assert_eq!(left_by_groups("0::/a/b\n", root), Some(100));
        // The path of a host that a container does not see.
        assert_eq!(left_by_groups("0::/docker/0123\n", root), Some(100));
        put(root, "", &[("memory.current", "9999\n")]);
        assert_eq!(left_by_groups("0::/\n", root), Some(0), "more in use than allowed");
    }

    #[test]
    fn the_first_version_is_below_memory() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let stat = "inactive_file 1\ntotal_inactive_file 60\ntotal_active_file 40\n";
        put(
            root,
            "memory/a",
            &[("memory.limit_in_bytes", "1000\n"), ("memory.usage_in_bytes", "600\n"), ("memory.stat", stat)],
        );
        let memberships = "12:cpu,cpuacct:/a\n5:hugetlb,memory:/a\n1:name=systemd:/a\n";
        assert_eq!(left_by_groups(memberships, root), Some(500));
        assert_eq!(left_by_groups("12:cpu,cpuacct:/a\n", root), None);
        assert_eq!(left_by_groups("nonsense", root), None);
    }

    #[test]
    fn this_machine_says_something() {
        assert!(!Path::new("/proc/meminfo").exists() || available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
