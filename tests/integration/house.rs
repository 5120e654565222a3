//! What the sources themselves promise: which parts know which, also within a part, and how much is in one file.

use std::collections::{BTreeMap, BTreeSet};
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

/// The modules directly within a part or module, each with those of its siblings that it names: by `super`, by `crate`, or by a
/// name that their root passes on. What the root itself defines is everybody's. Tests may look at everything.
fn modules_within(part: &Path, sources: &BTreeMap<PathBuf, String>) -> BTreeMap<String, BTreeSet<String>> {
    let within = sources.iter().filter_map(|(path, text)| Some((path.strip_prefix(part).ok()?, text)));
    let within: Vec<_> = within.filter(|(path, _)| !path.ends_with("tests.rs")).collect();
    let module =
        |path: &Path| path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
    let mut owners: BTreeMap<String, String> =
        within.iter().map(|(path, _)| (module(path), module(path))).collect();
    let is_root = |path: &Path| path == Path::new("mod.rs");
    let root = sources.get(&part.join("mod.rs")).unwrap_or_else(|| &sources[&part.with_extension("rs")]);
    for (owner, names) in uses(root).filter_map(|used| used.split_once("::")) {
        if owners.contains_key(owner) {
            owners.extend(words(names).map(|name| (name.to_owned(), owner.to_owned())));
        }
    }
    let ours = format!("crate::{}::", part.display().to_string().replace('/', "::"));
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in within.iter().filter(|(path, _)| !is_root(path)) {
        let depth = path.components().count() - usize::from(path.ends_with("mod.rs"));
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = lines.flat_map(|line| [line, "\n"]).collect();
        let named = modules.entry(module(path)).or_default();
        for root in [ours.clone(), "super::".repeat(depth)] {
            // What stands behind one `super` more is further above.
            let places = code.match_indices(&root).filter(|(at, _)| !code[..*at].ends_with("super::"));
            for rest in places.map(|(at, _)| &code[at + root.len()..]) {
                let group = rest.strip_prefix('{').and_then(|group| group.split(';').next());
                let names = words(group.unwrap_or(rest)).take(if group.is_some() { usize::MAX } else { 1 });
                named.extend(names.filter_map(|name| owners.get(name)).cloned());
            }
        }
        named.remove(&module(path));
    }
    modules
}

/// What the `use` declarations of a source say.
fn uses(text: &str) -> impl Iterator<Item = &str> {
    text.split("use ").skip(1).filter_map(|rest| rest.split(';').next())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| character != '_' && !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

/// Those that lead back to themselves.
fn in_circles(modules: &BTreeMap<String, BTreeSet<String>>) -> Vec<&str> {
    let leads_back = |start: &&String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![*start]);
        while let Some(module) = next.pop() {
            next.extend(modules.get(module).into_iter().flatten().filter(|used| seen.insert(*used)));
        }
        seen.contains(start)
    };
    modules.keys().filter(leads_back).map(String::as_str).collect()
}

#[test]
fn modules_within_a_part_know_each_other_one_way() {
    let sources = sources();
    let parents: BTreeSet<&Path> = sources.keys().filter_map(|path| path.parent()).collect();
    let parents: Vec<&Path> = parents.into_iter().filter(|path| *path != Path::new("")).collect();
    for known in ["aggregator", "aggregator/endpoint", "http1", "wire/client"] {
        assert!(parents.contains(&Path::new(known)), "{known} is not looked at");
    }
    for parent in parents {
        assert_eq!(in_circles(&modules_within(parent, &sources)), [""; 0], "{}", parent.display());
    }
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
