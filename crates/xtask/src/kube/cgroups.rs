//! A node's control groups: made in every hierarchy before its kubelet starts, removed after its last process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::process::wait_until;

/// Makes group `name` below the root of every hierarchy.
pub(super) fn create(name: &str) -> anyhow::Result<()> {
    for root in roots()? {
        let group = root.join(name);
        fs::create_dir_all(&group).with_context(|| {
            format!(
                "make the control group {} (a node needs root and writable control groups)",
                group.display()
            )
        })?;
        // In the old hierarchy a new cpuset is empty, and no process may enter it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = group.join(file);
            if own.exists() && fs::read_to_string(&own)?.trim().is_empty() {
                fs::write(&own, fs::read_to_string(root.join(file))?)
                    .with_context(|| format!("fill {}", own.display()))?;
            }
        }
    }
    Ok(())
}

/// Removes group `name` and what is below it, once the last process has left.
pub(super) fn remove(name: &str) -> anyhow::Result<()> {
    let roots = roots()?;
    let gone = wait_until(Duration::from_secs(10), || {
        roots.iter().all(|root| {
            let group = root.join(name);
            remove_tree(&group);
            !group.exists()
        })
    });
    if !gone {
        bail!("the control groups of {name} cannot be removed: a process is still in them");
    }
    Ok(())
}

/// Removes folders from the leaves up. Their files are the kernel's and vanish with them.
fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

fn roots() -> anyhow::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    Ok(mount_points(&mounts))
}

/// The mount points of all hierarchies, old and new.
fn mount_points(mounts: &str) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind) = (fields.next()?, fields.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(point))
        })
        .collect();
    points.sort();
    points.dedup();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hierarchies_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let points = mount_points(mounts);
        assert_eq!(
            points,
            [
                Path::new("/sys/fs/cgroup/cpu"),
                Path::new("/sys/fs/cgroup/unified")
            ]
        );
    }
}
