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

impl Places {
    /// Which of the pods `among` has a process that holds the socket with this inode. Through `/proc` this reads one small
    /// file for each process of the node, and the open files of those that are of one of these pods.
    pub(super) fn holder(&self, inode: u32, among: &[String]) -> Option<String> {
        // A folder of namespaces tells nothing of processes.
        let Self::Proc(proc) = self else { return None };
        let socket = PathBuf::from(format!("socket:[{inode}]"));
        processes(proc).find_map(|process| {
            let uid = pod_of(&process).filter(|uid| among.contains(uid))?;
            let holds = fs::read_dir(process.join("fd"))
                .ok()?
                .flatten()
                .any(|file| fs::read_link(file.path()).is_ok_and(|target| target == socket));
            // The number may have gone to another process meanwhile.
            (holds && pod_of(&process).as_ref() == Some(&uid)).then_some(uid)
        })
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
    processes(proc).find(|process| {
        fs::read_to_string(process.join("cgroup"))
            .is_ok_and(|groups| groups.lines().any(|line| is_of(line, uid)))
    })
}

/// All processes, lowest number first.
fn processes(proc: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let number = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let mut pids: Vec<u32> = entries.filter_map(|entry| number(&entry)).collect();
    pids.sort_unstable();
    pids.into_iter().map(|pid| proc.join(pid.to_string()))
}

/// The pod of a process; none when its control groups name none, or more than one.
fn pod_of(process: &Path) -> Option<String> {
    let groups = fs::read_to_string(process.join("cgroup")).ok()?;
    let mut pods = groups.lines().filter_map(pod_on);
    let first = pods.next()?;
    pods.all(|other| other == first).then_some(first)
}

/// Whether a line of `/proc/<pid>/cgroup` lies in the pod's control group.
fn is_of(line: &str, uid: &str) -> bool {
    pod_on(line).is_some_and(|found| found == uid)
}

/// The pod in whose control group a line of `/proc/<pid>/cgroup` (`0::/path`) lies. The first pod on the path counts: a container
/// that may make control groups of its own can name them after another pod, but only below its own.
fn pod_on(line: &str) -> Option<String> {
    let path = line.splitn(3, ':').nth(2)?;
    path.split('/').find_map(pod_uid)
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
    fn a_socket_is_of_the_pod_whose_process_holds_it_and_of_nobody_else() {
        let proc = tempfile::tempdir().unwrap();
        let put = |pid: &str, groups: &str, socket: u32| {
            let fds = proc.path().join(pid).join("fd");
            fs::create_dir_all(&fds).unwrap();
            fs::write(proc.path().join(pid).join("cgroup"), groups).unwrap();
            std::os::unix::fs::symlink(format!("socket:[{socket}]"), fds.join("3")).unwrap();
        };
        put("7", "0::/system.slice/kubelet.service\n", 70);
        put("900", &format!("0::/kubepods/pod{UID}/b\n"), 90);
        put("901", &format!("0::/kubepods/pod{OTHER}/b\n"), 91);
        // Two pods at once: neither.
        put(
            "902",
            &format!("4:pids:/kubepods/pod{UID}/b\n0::/kubepods/pod{OTHER}/b\n"),
            92,
        );
        let places = Places::Proc(proc.path().into());
        let holder = |inode, among: &[&str]| {
            let among: Vec<String> = among.iter().map(|uid| (*uid).to_owned()).collect();
            places.holder(inode, &among)
        };
        assert_eq!(holder(90, &[OTHER, UID]).as_deref(), Some(UID));
        assert_eq!(holder(91, &[OTHER, UID]).as_deref(), Some(OTHER));
        for (inode, among) in [
            (91, &[UID][..]),
            (70, &[UID, OTHER]),
            (92, &[UID, OTHER]),
            (9, &[UID]),
            (90, &[]),
        ] {
            assert_eq!(holder(inode, among), None, "{inode} {among:?}");
        }
        assert_eq!(
            Places::Folder(proc.path().into()).holder(90, &[UID.to_owned()]),
            None
        );
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
