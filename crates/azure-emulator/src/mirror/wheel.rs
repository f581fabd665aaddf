//! The extension as a Python wheel: a zip of its files and of the metadata that pip reads. Made from the sources at the
//! first request, always the same bytes.

use std::fmt::Write as _;
use std::io::{Cursor, Write as _};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::digest::{SHA256, digest as hash};
use zip::ZipWriter;
use zip::result::ZipResult;
use zip::write::SimpleFileOptions;

/// Name of the extension: the one that the tutorial's commands ask for.
pub(super) const NAME: &str = "aks-preview";
/// Above 0.5.10, the first version of the original that had all of the tutorial's flags.
pub(super) const VERSION: &str = "0.5.99";
/// File name. Source of the form: <https://packaging.python.org/specifications/binary-distribution-format/>.
pub(super) const FILE: &str = "aks_preview-0.5.99-py3-none-any.whl";
/// What it is, in one line.
pub(super) const SUMMARY: &str = "Pod identity for az aks, by podid; not Microsoft's extension of this name";

/// Its files.
const FILES: [(&str, &str); 5] = [
    (
        "azext_aks_preview/__init__.py",
        include_str!("../../aks-preview/azext_aks_preview/__init__.py"),
    ),
    (
        "azext_aks_preview/_help.py",
        include_str!("../../aks-preview/azext_aks_preview/_help.py"),
    ),
    (
        "azext_aks_preview/_params.py",
        include_str!("../../aks-preview/azext_aks_preview/_params.py"),
    ),
    (
        "azext_aks_preview/azext_metadata.json",
        include_str!("../../aks-preview/azext_aks_preview/azext_metadata.json"),
    ),
    (
        "azext_aks_preview/custom.py",
        include_str!("../../aks-preview/azext_aks_preview/custom.py"),
    ),
];

static WHEEL: LazyLock<Bytes> =
    LazyLock::new(|| Bytes::from(build().expect("a zip of a few short files can be written to memory")));

/// The wheel.
pub(super) fn bytes() -> Bytes {
    WHEEL.clone()
}

/// SHA-256 of the wheel, in hexadecimal.
pub(super) fn digest() -> String {
    hash(&SHA256, &WHEEL)
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{byte:02x}");
            text
        })
}

fn build() -> ZipResult<Vec<u8>> {
    let info = format!("aks_preview-{VERSION}.dist-info");
    let metadata = format!(
        "Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\nSummary: {SUMMARY}\nLicense: Apache-2.0\n"
    );
    let kind = "Wheel-Version: 1.0\nGenerator: podid\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let top = "azext_aks_preview\n";
    let mut files: Vec<(String, &str)> = FILES
        .iter()
        .map(|(path, text)| ((*path).to_owned(), *text))
        .collect();
    files.push((format!("{info}/METADATA"), &metadata));
    files.push((format!("{info}/WHEEL"), kind));
    files.push((format!("{info}/top_level.txt"), top));
    let record = record(&files, &info);
    files.push((format!("{info}/RECORD"), &record));
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (path, text) in &files {
        zip.start_file(path.as_str(), options)?;
        zip.write_all(text.as_bytes())?;
    }
    Ok(zip.finish()?.into_inner())
}

/// The list of all files with their hashes, which names itself without one.
fn record(files: &[(String, &str)], info: &str) -> String {
    let mut record = String::new();
    for (path, text) in files {
        let digest = URL_SAFE_NO_PAD.encode(hash(&SHA256, text.as_bytes()));
        let _infallible = writeln!(record, "{path},sha256={digest},{}", text.len());
    }
    let _infallible = writeln!(record, "{info}/RECORD,,");
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wheel_lists_every_file_it_has_and_its_name_says_its_version() {
        let mut wheel = zip::ZipArchive::new(Cursor::new(bytes())).unwrap();
        let names: Vec<String> = (0..wheel.len())
            .map(|at| {
                wheel
                    .by_index(at)
                    .unwrap()
                    .name()
                    .map(std::borrow::Cow::into_owned)
                    .unwrap()
            })
            .collect();
        let record =
            std::io::read_to_string(wheel.by_name("aks_preview-0.5.99.dist-info/RECORD").unwrap()).unwrap();
        let listed: Vec<&str> = record.lines().filter_map(|line| line.split(',').next()).collect();
        assert_eq!(listed, names);
        assert!(FILE.starts_with(&format!("aks_preview-{VERSION}-")));
    }
}
