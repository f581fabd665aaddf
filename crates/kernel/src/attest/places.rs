//! Where a pod's network namespace is found: in a folder that says so, or through the pod's processes in `/proc`. No
//! container runtime is asked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::AttestError;
use crate::netns::Namespace;

/// How pods' network namespaces are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Places {
    /// A folder with one entry `<pod uid>` a pod: a link to (or mount of) its namespace. Only root may write to it.
    Folder(PathBuf),
    /// The processes that the given `/proc` shows, by their control group's name. The agent needs the node's own
    /// (hostPID, or the node's `/proc` mounted).
    Proc(PathBuf),
}

/// Where one pod's namespace was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    uid: String,
}

impl Places {
    /// The node's processes as this process sees them.
    pub fn proc() -> Self {
        Self::Proc("/proc".into())
    }

    /// Looks for a pod. Through `/proc` this reads one small file for each process of the node.
    pub fn find(&self, uid: &str) -> Result<Place, AttestError> {
        if uid.is_empty()
            || !uid
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(AttestError::BadUid(uid.to_owned()));
        }
        let path = match self {
            Self::Folder(folder) => Some(folder.join(uid)).filter(|path| path.symlink_metadata().is_ok()),
            Self::Proc(proc) => process_of(proc, uid).map(|process| process.join("ns/net")),
        };
        path.map(|path| Place {
            path,
            uid: uid.to_owned(),
        })
        .ok_or_else(|| AttestError::NotFound(uid.to_owned()))
    }
}

impl Place {
    /// The namespace that is there now.
    pub fn open(&self) -> Result<Namespace, AttestError> {
        match Namespace::open(&self.path) {
            // The process, or the sandbox behind the link, has just ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(AttestError::NotFound(self.uid.clone()))
            }
            other => Ok(other?),
        }
    }
}

/// The pod's first process: the lowest number, mostly the sandbox's own.
fn process_of(proc: &Path, uid: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(proc).ok()?.flatten();
    let number = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let mut pids: Vec<u32> = entries.filter_map(|entry| number(&entry)).collect();
    pids.sort_unstable();
    pids.into_iter()
        .map(|pid| proc.join(pid.to_string()))
        .find(|process| {
            fs::read_to_string(process.join("cgroup"))
                .is_ok_and(|groups| groups.lines().any(|line| is_of(line, uid)))
        })
}

/// Whether a line of `/proc/<pid>/cgroup` (`0::/path`) lies in the pod's control group. The first pod on the path counts: a container
/// that may make control groups of its own can name them after another pod, but only below its own.
fn is_of(line: &str, uid: &str) -> bool {
    let path = line.splitn(3, ':').nth(2).unwrap_or_default();
    path.split('/')
        .find_map(pod_uid)
        .is_some_and(|found| found == uid)
}

/// The pod's uid in one component: `pod<uid>` (cgroupfs driver) or `kubepods[-<class>]-pod<uid with _>.slice`
/// (systemd driver). Static pods' uids are hashes without dashes.
fn pod_uid(component: &str) -> Option<String> {
    let uid = match component.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods") => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        Some(_) => return None,
        None => component.strip_prefix("pod")?.to_owned(),
    };
    let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    (hex == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b51f8ca-97b9-4f2c-9a0e-3b7f3e6b8a11";
    const OTHER: &str = "7d9f9f3e-0000-4f2c-9a0e-3b7f3e6b8a11";

    #[test]
    fn control_groups_of_both_drivers_name_their_pod() {
        let systemd = "0b51f8ca_97b9_4f2c_9a0e_3b7f3e6b8a11";
        for line in [
            format!("0::/kubepods/burstable/pod{UID}/4d2c"),
            format!("12:pids:/kubepods/pod{UID}/4d2c"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/cri-containerd-4d2c.scope"
            ),
            format!("0::/../../kubepods-pod{systemd}.slice/cri-containerd-4d2c.scope"),
            format!("0::/kubelet.slice/kubelet-kubepods.slice/../kubepods-besteffort-pod{systemd}.slice"),
        ] {
            assert!(is_of(&line, UID), "{line}");
            assert!(!is_of(&line, OTHER), "{line}");
        }
    }

    #[test]
    fn a_control_group_inside_a_pods_own_cannot_claim_another_pod() {
        let line = format!("0::/kubepods/pod{OTHER}/4d2c/pod{UID}");
        assert!(is_of(&line, OTHER) && !is_of(&line, UID));
        for line in [
            "0::/",
            "",
            "0::/system.slice/podman.service",
            "0::/user.slice/pod1",
        ] {
            assert!(!is_of(line, UID), "{line}");
        }
    }

    #[test]
    fn a_uid_cannot_lead_out_of_the_folder() {
        let folder = Places::Folder("/etc".into());
        for uid in ["../proc/self/ns/net", "", ".", "a/b"] {
            assert!(matches!(folder.find(uid), Err(AttestError::BadUid(_))), "{uid}");
        }
    }

    #[test]
    fn the_lowest_process_of_the_pod_is_taken() {
        let proc = tempfile::tempdir().unwrap();
        let put = |pid: &str, group: &str| {
            fs::create_dir_all(proc.path().join(pid)).unwrap();
            fs::write(proc.path().join(pid).join("cgroup"), format!("0::{group}\n")).unwrap();
        };
        put("1", "/init.scope");
        put("900", &format!("/kubepods/pod{UID}/b"));
        put("1000", &format!("/kubepods/pod{UID}/a"));
        put("77", &format!("/kubepods/pod{OTHER}/a"));
        let place = Places::Proc(proc.path().into()).find(UID).unwrap();
        assert_eq!(place.path, proc.path().join("900/ns/net"));
    }
}
