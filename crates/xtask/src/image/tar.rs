//! The part of the tar format that an image layer and an image archive need (POSIX.1-1988 ustar): files, folders,
//! links. Everything belongs to root and is as old as the epoch, so that the same input gives the same bytes.

use anyhow::{Context as _, bail};

const BLOCK: usize = 512;

/// A tar file in memory.
#[derive(Debug, Default)]
pub(super) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// A folder; `name` without slashes at its ends.
    pub(super) fn folder(&mut self, name: &str, mode: u32) -> anyhow::Result<()> {
        self.header(&format!("{name}/"), mode, 0, b'5', "")
    }

    /// A file.
    pub(super) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        self.header(name, mode, content.len(), b'0', "")?;
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, name: &str, target: &str) -> anyhow::Result<()> {
        self.header(name, 0o777, 0, b'2', target)
    }

    /// The finished file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn pad(&mut self) {
        let full = self.bytes.len().next_multiple_of(BLOCK);
        self.bytes.resize(full, 0);
    }

    fn header(&mut self, name: &str, mode: u32, size: usize, kind: u8, target: &str) -> anyhow::Result<()> {
        let (prefix, name) = split(name)?;
        let mut block = Vec::with_capacity(BLOCK);
        let mut field = |text: &str, width: usize| -> anyhow::Result<()> {
            if text.len() > width {
                bail!("{text:?} is longer than the {width} bytes that a tar header has for it");
            }
            block.extend_from_slice(text.as_bytes());
            block.resize(block.len() + width - text.len(), 0);
            Ok(())
        };
        field(name, 100)?;
        field(&format!("{mode:07o}"), 8)?;
        field("0000000", 8)?;
        field("0000000", 8)?;
        field(&format!("{size:011o}"), 12)?;
        field("00000000000", 12)?;
        field("        ", 8)?; // the checksum counts itself as blanks
        field(std::str::from_utf8(&[kind]).context("a kind is a digit")?, 1)?;
        field(target, 100)?;
        field("ustar", 6)?;
        field("00", 2)?;
        field("root", 32)?;
        field("root", 32)?;
        field("0000000", 8)?;
        field("0000000", 8)?;
        field(prefix, 155)?;
        block.resize(BLOCK, 0);
        let sum: u32 = block.iter().copied().map(u32::from).sum();
        let checksum = format!("{sum:06o}\0 ");
        block.splice(148..156, checksum.bytes());
        self.bytes.append(&mut block);
        Ok(())
    }
}

/// Prefix and name of a path: the name field has 100 bytes, and 155 more stand before a slash.
fn split(path: &str) -> anyhow::Result<(&str, &str)> {
    if path.len() <= 100 {
        return Ok(("", path));
    }
    path.match_indices('/')
        .filter_map(|(at, _)| path.split_at_checked(at))
        .map(|(prefix, rest)| (prefix, rest.trim_start_matches('/')))
        .find(|(prefix, name)| prefix.len() <= 155 && name.len() <= 100 && !name.is_empty())
        .with_context(|| format!("{path} is too long for a tar header"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_tar_of_the_machine_reads_it() {
        let long = format!("{}/{}", "d".repeat(90), "n".repeat(60));
        let mut tar = Tar::default();
        tar.folder("bin", 0o755).unwrap();
        tar.file("bin/hello", 0o755, b"hello").unwrap();
        tar.link("bin/hi", "hello").unwrap();
        tar.file(&long, 0o644, &[7; 513]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), tar.finish()).unwrap();
        let listed = Command::new("tar").arg("tvf").arg(file.path()).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let lines: Vec<&str> = listed.lines().collect();
        assert_eq!(lines.len(), 4, "{listed}");
        assert!(lines[0].starts_with("drwxr-xr-x root/root") && lines[0].ends_with("bin/"));
        assert!(lines[1].starts_with("-rwxr-xr-x") && lines[1].contains(" 5 1970-01-01"));
        assert!(lines[2].ends_with("bin/hi -> hello"));
        assert!(lines[3].contains(" 513 ") && lines[3].ends_with(&long));
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let refused = Tar::default().file(&"n".repeat(101), 0o644, b"").unwrap_err();
        assert!(refused.to_string().contains("too long"), "{refused}");
    }
}
