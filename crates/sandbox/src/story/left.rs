//! What the machine has of a world, and whether it is all gone afterwards. It looks from outside, in `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::control::Info;

/// What belongs to a world while it lives.
#[derive(Debug)]
pub(crate) struct Belongings {
    folder: PathBuf,
    supervisor: u32,
    pid_namespace: PathBuf,
    networks: BTreeSet<PathBuf>,
    processes: usize,
}

impl Belongings {
    /// Of the living world.
    pub(crate) fn of(info: &Info) -> std::io::Result<Self> {
        let pid_namespace = fs::read_link(format!("/proc/{}/ns/pid_for_children", info.supervisor))?;
        let mut networks = BTreeSet::new();
        let mut processes = 0;
        for process in processes_of(&pid_namespace) {
            processes += 1;
            networks.extend(fs::read_link(process.join("ns/net")));
        }
        Ok(Self {
            folder: info.folder.clone(),
            supervisor: info.supervisor,
            pid_namespace,
            networks,
            processes,
        })
    }

    /// In a few words.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} processes and {} network namespaces were there",
            self.processes,
            self.networks.len()
        )
    }

    /// What is still there of it.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        if self.folder.exists() {
            left.push(format!("the folder {}", self.folder.display()));
        }
        if Path::new(&format!("/proc/{}", self.supervisor)).exists() {
            left.push(format!("the supervisor {}", self.supervisor));
        }
        for process in processes_of(&self.pid_namespace) {
            left.push(format!("the process {}", process.display()));
        }
        for process in all_processes() {
            if let Ok(network) = fs::read_link(process.join("ns/net"))
                && self.networks.contains(&network)
            {
                left.push(format!("{} in a network of the world", process.display()));
            }
        }
        let folder = self.folder.display().to_string();
        if fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounts.contains(&folder)) {
            left.push(format!("a mount in {folder}"));
        }
        left
    }
}

/// The machine's own addresses and routes, which no world may change. Rules are in no file; what they lead to is.
pub(crate) fn machine_routes() -> String {
    ["/proc/net/route", "/proc/net/fib_trie", "/proc/net/dev"]
        .iter()
        .map(|file| fs::read_to_string(file).unwrap_or_default())
        .map(|text| {
            // Counters change all the time; names and routes do not.
            text.lines()
                .map(|line| line.split_once(':').map_or(line, |(name, _counters)| name))
                .collect::<Vec<_>>()
                .join("\n")
        })
        .collect()
}

fn all_processes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .map(|entry| entry.path())
        .collect()
}

fn processes_of(pid_namespace: &Path) -> Vec<PathBuf> {
    all_processes()
        .into_iter()
        .filter(|process| fs::read_link(process.join("ns/pid")).is_ok_and(|found| found == pid_namespace))
        .collect()
}
