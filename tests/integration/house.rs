//! What the sources themselves promise: which parts know which, and how much is in one file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file that is longer does more than one thing.
const LONGEST_FILE: usize = 600;

fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut directories, mut files) = (vec![root.clone()], BTreeMap::new());
    while let Some(directory) = directories.pop() {
        for entry in fs_err::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs_err::read_to_string(&path).unwrap();
                files.insert(path.strip_prefix(&root).unwrap().to_path_buf(), text);
            }
        }
    }
    files
}

/// The parts, in the order of the table in the crate's documentation.
fn parts(lib: &str) -> Vec<&str> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | "));
    let first_cells = rows.filter_map(|row| row.split(" | ").next());
    first_cells
        .filter_map(|cell| cell.trim_matches(['[', ']']).strip_prefix('`')?.strip_suffix('`'))
        .collect()
}

/// The parts that a source names: `crate::part`, also in a group, but not in comments.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1)).flat_map(|rest| {
        let (group, is_group) = rest.strip_prefix('{').map_or((rest, false), |group| (group, true));
        let names = group.split(", ").take(if is_group { usize::MAX } else { 1 });
        names.filter_map(|name| {
            name.split(|character: char| character != '_' && !character.is_alphanumeric()).next()
        })
    })
}

#[test]
fn parts_know_only_those_below_them() {
    let sources = sources();
    let parts = parts(&sources[Path::new("lib.rs")]);
    let place = |part: &str| parts.iter().position(|other| *other == part);
    let mut wrong = Vec::new();
    for (path, text) in &sources {
        let part = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main", "cli"].contains(&part) {
            continue;
        }
        let Some(own) = place(part) else {
            wrong.push(format!("{}: {part} is not in the table of src/lib.rs", path.display()));
            continue;
        };
        let above = named(text).filter(|name| place(name).is_some_and(|other| other < own));
        wrong.extend(above.map(|name| format!("{}: {part} knows {name}", path.display())));
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn files_do_one_thing() {
    let sources = sources();
    let long = sources.iter().map(|(path, text)| (path, text.lines().count()));
    let long: Vec<_> = long.filter(|(_, lines)| *lines > LONGEST_FILE).collect();
    assert_eq!(long, vec![]);
    let without_words = sources.iter().filter(|(path, text)| {
        // Tests are of the file that they are named after.
        !path.ends_with("tests.rs") && !text.starts_with("//!")
    });
    assert_eq!(without_words.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}
