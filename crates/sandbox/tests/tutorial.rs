//! `docs/guides/tutorial.md`, line by line, as far as it needs nothing but what this workspace builds; the lines with
//! kubectl and those for a cluster are run by `cargo xtask e2e tutorial`.

#![expect(clippy::unwrap_used, reason = "a test says by a panic what did not hold")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use podid_testkit::guide::{Step, steps};
use podid_testkit::shell::Shell;

const GUIDE: &str = include_str!("../../../docs/guides/tutorial.md");
const KOREAN: &str = include_str!("../../../docs/guides/tutorial.ko.md");
const SANDBOX: &str = env!("CARGO_BIN_EXE_podid-sandbox");
/// Blocks that are not for this test: building, which `cargo test` has done; kubectl, which may not be here; clusters.
const WITHOUT: [&str; 3] = ["build", "kubectl", "cluster"];
/// How long a command may take, on a machine that is busy.
const PATIENCE: Duration = Duration::from_mins(2);

/// The folder of programs. `cargo test` builds those of the whole workspace, `cargo test -p podid-sandbox` does not.
fn programs() -> &'static Path {
    let folder = Path::new(SANDBOX).parent().unwrap();
    if !folder.join("podid").exists() || !folder.join("podid-demo").exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--package",
                "podid-cli",
                "--package",
                "podid-demo",
            ])
            .args(["--target-dir"])
            .arg(folder.parent().unwrap())
            .status();
        assert!(built.unwrap().success(), "podid and podid-demo do not build");
    }
    folder
}

#[test]
fn the_laptops_part_of_the_tutorial_is_true() {
    let home = tempfile::Builder::new().prefix("tut").tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(
        [programs().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&path)),
    );
    let mut bash = Command::new("bash");
    bash.args(["--noprofile", "--norc"])
        .current_dir(home.path())
        .env("PATH", path.unwrap())
        .env("XDG_RUNTIME_DIR", home.path())
        .env_remove("PODID_WORLD");
    let mut shell = Shell::start(bash).unwrap();
    let told = steps(GUIDE).into_iter().try_for_each(|step| match step {
        Step::File { name, content } => {
            std::fs::write(home.path().join(name), content).map_err(|error| error.to_string())
        }
        Step::Command(command) if command.words.iter().any(|word| WITHOUT.contains(&word.as_str())) => Ok(()),
        Step::Command(command) => shell.run(&command, PATIENCE, |_| {}),
    });
    if told.is_err() {
        // The world is not the shell's child, and would stay.
        let _ended = Command::new(SANDBOX)
            .arg("down")
            .env("XDG_RUNTIME_DIR", home.path())
            .output();
    }
    assert_eq!(told, Ok(()), "docs/guides/tutorial.md");
    assert!(!home.path().join("podid").exists(), "the world left something");
}

/// A step without the heading, which is translated, and without the line, which may be another one.
fn bare(step: Step) -> Step {
    match step {
        Step::Command(mut command) => {
            command.heading.clear();
            command.line = 0;
            Step::Command(command)
        }
        file @ Step::File { .. } => file,
    }
}

#[test]
fn the_translation_has_the_same_steps() {
    let [english, korean] = [GUIDE, KOREAN].map(|page| steps(page).into_iter().map(bare).collect::<Vec<_>>());
    assert_eq!(english, korean);
}
