//! What is written by hand stays true where a machine can tell: links, commands, floors.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every Markdown file that people are led to.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<_> = ["", "docs", "benches"]
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).expect("a folder of this repository"))
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = text(&document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            let path = document.with_file_name("").join(file);
            assert!(path.exists(), "{} links to {target}", document.display());
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were found");
}

#[test]
fn every_make_target_that_is_named_exists() {
    let makefile = text(&root().join("Makefile"));
    let targets: BTreeSet<_> = makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target)
        .collect();
    let mut named = 0;
    for document in documents() {
        let text = text(&document);
        let words = text.split("`make ").skip(1);
        for target in words.filter_map(|rest| rest.split(['`', ' ']).next()) {
            assert!(targets.contains(target), "{}: make {target}", document.display());
            named += 1;
        }
    }
    assert!(named > 5, "only {named} targets were found");
}

#[test]
fn architecture_draws_the_floors_that_are_tested() {
    let tested: BTreeSet<_> = text(&root().join("proxy/tests/floors.rs"))
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("(\"")?
                .strip_suffix("),")?
                .split_once("\", ")
        })
        .map(|(room, floor)| (floor.to_owned(), room.to_owned()))
        .collect();
    let section = text(&root().join("ARCHITECTURE.md"));
    let section = section.split("## 3 Floors").nth(1).expect("the section is there");
    let drawn: BTreeSet<_> = section
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let (floor, rooms) = (cells.next()?, cells.next()?);
            floor.parse::<u8>().ok()?;
            Some((floor.to_owned(), rooms.to_owned()))
        })
        .flat_map(|(floor, rooms)| {
            let crates = rooms.find("crate").unwrap_or(rooms.len());
            let rooms: Vec<_> = rooms[..crates]
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect();
            rooms.into_iter().map(move |room| (floor.clone(), room))
        })
        .collect();
    assert!(!drawn.is_empty());
    assert_eq!(drawn, tested);
}
