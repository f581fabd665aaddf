//! The programs of a real Kubernetes, under `target/kube/<version>`: built once from a pinned Go module by the ordinary
//! Go client, the rest taken from Debian's packages, unpacked and not installed.
//!
//! ```text
//! kubeall/{go.mod,go.sum,main.go} ──go build──▶ bin/kubeall ◀── etcd, kube-apiserver, kubelet, kubectl, … (links)
//! apt-get download ──dpkg-deb -x──▶ bin/{containerd,runc,…}, cni/, lib/     cc ──▶ images/pause.tar
//! ```

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use super::images;
use crate::printer;

/// The components that `kubeall` is, by the name it is called.
const COMPONENTS: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];

/// Debian's packages with what a node runs besides: runtime, CNI plugins, kube-proxy's tools and their libraries, and
/// the shell of the test image.
const PACKAGES: [&str; 15] = [
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "nftables",
    "conntrack",
    "libnftables1",
    "libnftnl11",
    "libip4tc2",
    "libip6tc2",
    "libxtables12",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "busybox-static",
];

/// What of those packages ends in `bin`.
const PROGRAMS: [&str; 12] = [
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
    "usr/sbin/runc",
    "usr/sbin/xtables-nft-multi",
    "usr/sbin/xtables-legacy-multi",
    "usr/sbin/iptables-nft",
    "usr/sbin/iptables-nft-save",
    "usr/sbin/iptables-nft-restore",
    "usr/sbin/nft",
    "usr/sbin/conntrack",
    "bin/busybox",
];

/// kube-proxy's names → the backend that talks nf_tables.
const XTABLES: [&str; 6] = [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
];

/// The folder with everything in it.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    root: PathBuf,
}

impl Tools {
    /// What the control plane needs, plus kubectl and helm; built when missing, which takes about ten minutes once.
    pub(crate) fn control() -> anyhow::Result<Self> {
        let module = module();
        let version = kubernetes_version(&read(&module.join("go.mod"))?)?;
        let tools = Self::planned()?;
        if !tools.is_built() {
            tools.build(&module, &version)?;
        }
        Ok(tools)
    }

    /// The same if they are built already.
    pub(crate) fn built() -> anyhow::Result<Option<Self>> {
        Ok(Some(Self::planned()?).filter(Self::is_built))
    }

    fn is_built(&self) -> bool {
        self.program("helm").exists()
    }

    /// Where they are, or will be.
    fn planned() -> anyhow::Result<Self> {
        let module = module();
        let version = kubernetes_version(&read(&module.join("go.mod"))?)?;
        let mut hash = Sha256::new();
        for input in ["go.mod", "go.sum", "main.go"] {
            hash.update(read(&module.join(input))?);
        }
        let hash = format!("{:x}", hash.finalize());
        let root = target_folder()?
            .join("kube")
            .join(format!("{version}-{hash:.12}"));
        Ok(Self { root })
    }

    /// [`Self::control`], and what a node needs.
    pub(crate) fn node() -> anyhow::Result<Self> {
        let tools = Self::control()?;
        if !tools.images().join("box.tar").exists() {
            tools.unpack()?;
        }
        Ok(tools)
    }

    /// Tools that are known to be complete, by their folder.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of programs.
    pub(crate) fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// One program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// The folder of CNI plugins.
    pub(crate) fn cni(&self) -> PathBuf {
        self.root.join("cni")
    }

    /// The folder of libraries for [`PROGRAMS`] that are not static.
    pub(crate) fn lib(&self) -> PathBuf {
        self.root.join("lib")
    }

    /// The folder of images that every node has: `localhost/pause:1`, `localhost/box:1`.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    fn build(&self, module: &Path, version: &str) -> anyhow::Result<()> {
        if Command::new("go").arg("version").output().is_err() {
            bail!(
                "a real Kubernetes is built from its Go sources, and `go` is not in the PATH: install Go {} or newer \
                 (https://go.dev/dl)",
                go_version(&read(&module.join("go.mod"))?)
            );
        }
        printer::note(&format!(
            "building Kubernetes {version} in {}: about ten minutes on two cores, once",
            self.root.display()
        ));
        fs::create_dir_all(self.bin()).with_context(|| format!("make {}", self.bin().display()))?;
        let minor = version.split('.').nth(1).unwrap_or_default();
        let at = "k8s.io/component-base/version";
        let flags = format!(
            "-s -w -X {at}.gitVersion={version} -X {at}.gitMajor=1 -X {at}.gitMinor={minor} -X {at}.gitCommit=none \
             -X {at}.gitTreeState=clean"
        );
        self.go_build(module, ".", "kubeall", &flags)?;
        for component in COMPONENTS {
            link("kubeall", &self.program(component))?;
        }
        let helm = read(&module.join("go.mod"))?
            .lines()
            .find_map(|line| line.trim().strip_prefix("helm.sh/helm/v3 "))
            .and_then(|rest| rest.split_whitespace().next().map(str::to_owned))
            .context("kubeall/go.mod names no helm")?;
        let charts = "helm.sh/helm/v3/pkg/chartutil";
        let flags = format!(
            "-s -w -X helm.sh/helm/v3/internal/version.version={helm} -X {charts}.k8sVersionMajor=1 \
             -X {charts}.k8sVersionMinor={minor}"
        );
        self.go_build(module, "helm.sh/helm/v3/cmd/helm", "helm", &flags)
    }

    /// Builds a package to `bin/<name>`, which appears only when it is complete.
    fn go_build(&self, module: &Path, package: &str, name: &str, flags: &str) -> anyhow::Result<()> {
        let unfinished = self.program(&format!(".{name}.{}", std::process::id()));
        let built = Command::new("go")
            .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o"])
            .arg(&unfinished)
            .args(["-ldflags", flags, package])
            .current_dir(module)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "")
            .status()
            .context("run go build")?;
        if !built.success() {
            bail!("`go build {package}` failed ({built}); what it said is above");
        }
        fs::rename(&unfinished, self.program(name)).with_context(|| format!("put {name} in its place"))
    }

    fn unpack(&self) -> anyhow::Result<()> {
        for tool in ["apt-get", "dpkg-deb"] {
            if Command::new(tool).arg("--version").output().is_err() {
                bail!(
                    "a node's containerd, runc and CNI plugins are taken from Debian's packages, and `{tool}` is not \
                     here: run this on Debian or Ubuntu"
                );
            }
        }
        let work = tempfile::tempdir_in(&self.root).context("make a folder for the packages")?;
        let fetched = Command::new("apt-get")
            .args(["-o", "APT::Sandbox::User=root", "-q", "download"])
            .args(PACKAGES)
            .current_dir(work.path())
            .output()
            .context("run apt-get download")?;
        if !fetched.status.success() {
            bail!(
                "`apt-get download {}` failed; run `apt-get update` once if it knows no package lists:\n{}",
                PACKAGES.join(" "),
                String::from_utf8_lossy(&fetched.stderr).trim_end()
            );
        }
        let tree = work.path().join("tree");
        for entry in fs::read_dir(work.path())? {
            let package = entry?.path();
            if package.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&tree))?;
            }
        }
        for program in PROGRAMS {
            let name = program.rsplit('/').next().unwrap_or(program);
            let to = self.program(name);
            let _ = fs::remove_file(&to);
            run(Command::new("cp").arg("-a").arg(tree.join(program)).arg(&to))?;
        }
        for name in XTABLES {
            link("xtables-nft-multi", &self.program(name))?;
        }
        let libraries = tree
            .join("usr/lib")
            .join(format!("{}-linux-gnu", std::env::consts::ARCH));
        for (from, to) in [(libraries, self.lib()), (tree.join("usr/lib/cni"), self.cni())] {
            if to.exists() {
                fs::remove_dir_all(&to)?;
            }
            run(Command::new("cp").arg("-a").arg(&from).arg(&to))?;
        }
        images::write(&self.program("busybox"), &self.images())
    }
}

fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubeall")
}

/// The workspace's `target`.
pub(crate) fn target_folder() -> anyhow::Result<PathBuf> {
    let root = crate::root()?;
    Ok(std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder)))
}

fn kubernetes_version(go_mod: &str) -> anyhow::Result<String> {
    go_mod
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))
        .map(|version| version.trim().to_owned())
        .context("kubeall/go.mod names no version of k8s.io/kubernetes")
}

fn go_version(go_mod: &str) -> &str {
    go_mod
        .lines()
        .find_map(|line| line.strip_prefix("go "))
        .unwrap_or("1.26")
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Makes or replaces a link.
fn link(target: &str, at: &Path) -> anyhow::Result<()> {
    let _ = fs::remove_file(at);
    symlink(target, at).with_context(|| format!("link {} to {target}", at.display()))
}

/// Runs a program to its end; what it said on standard error is the error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let what = format!("{command:?}");
    let output = command.output().with_context(|| format!("start {what}"))?;
    if !output.status.success() {
        bail!(
            "{what} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a file can be run.
pub(super) fn runnable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|seen| seen.is_file() && seen.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_names_one_kubernetes_and_its_libraries_agree() {
        let go_mod = include_str!("../../kubeall/go.mod");
        let version = kubernetes_version(go_mod).unwrap();
        let minor = version.strip_prefix("v1.").unwrap();
        let replaced = go_mod.lines().filter(|line| line.starts_with("replace k8s.io/"));
        let others: Vec<&str> = replaced
            .filter(|line| !line.ends_with(&format!(" v0.{minor}")))
            .collect();
        assert_eq!(others, Vec::<&str>::new());
    }
}
