//! That nothing of the AKS page is left out: its commands (`e2e/az/page.txt`) against the guide that runs them.

use podid_testkit::guide::{Step, steps};

const PAGE: &str = include_str!("../../../../../e2e/az/page.txt");
const GUIDE: &str = include_str!("../../../../../docs/guides/aks.md");
const DEMO: &str = include_str!("../../../../../docs/guides/demo.yaml");

#[test]
fn every_command_of_the_page_is_run_or_listed_as_a_mistake() {
    let run: Vec<String> = steps(GUIDE)
        .into_iter()
        .filter_map(|step| match step {
            Step::Command(command) => Some(command.text),
            Step::File { .. } => None,
        })
        .collect();
    let (_, mistakes) = GUIDE.split_once("## Mistakes of the page").unwrap();
    let mistaken: Vec<&str> = mistakes
        .lines()
        .filter_map(|row| row.strip_prefix("| ")?.split(" | ").next())
        .collect();
    let missing: Vec<&str> = PAGE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter(|line| !run.iter().any(|command| command == line))
        .filter(|line| !mistaken.iter().any(|cell| cell.contains(&format!("`{line}`"))))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn the_pod_is_the_pages() {
    let file = Step::File {
        name: "demo.yaml".to_owned(),
        content: DEMO.to_owned(),
    };
    assert!(steps(GUIDE).contains(&file));
}
