//! The directory of definition files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::debug;

use super::entry::{ContentHash, Entry, Scan, Unread};
use super::overlay::Overlay;
use super::validator::name_of;
use super::{Definition, Invalid, Reader, ServerName};
use crate::yaml::{self, FileError, Mistake};

/// Why a directory of definitions cannot be read. Neither means that definitions were deleted.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// There is no such directory; whether that is right is the caller's to know.
    #[error("the directory {} does not exist", .path.display())]
    NotFound {
        /// The directory.
        path: PathBuf,
    },
    /// It is there and cannot be read.
    #[error("the directory {} cannot be read", .path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Reader {
    /// Reads a definition file. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// All mistakes of the file, or why it could not be read.
    pub fn read_file(&self, path: &Path) -> Result<Definition, Invalid> {
        match yaml::read_file(path) {
            Ok(content) => self.read(path, &content),
            Err(refusal) => Err(invalid(path, &refusal)),
        }
    }

    /// Reads every `*.yaml` and `*.yml` of `dir`, in any case. Hidden files and what editors leave behind are passed
    /// over; symbolic links are followed. What the operator wants of servers whose files cannot be written is in
    /// effect. So are the servers of the project's file, where there is one. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// When the directory cannot be listed. What is wrong with a file is in its entry.
    pub fn scan(&self, dir: &Path) -> Result<Scan, ScanError> {
        let failed = |source: io::Error| match source.kind() {
            // A link into the void is not a directory that was never made: what it leads to may come back.
            io::ErrorKind::NotFound if dir.symlink_metadata().is_err() => {
                ScanError::NotFound { path: dir.to_owned() }
            }
            _ => ScanError::Unreadable { path: dir.to_owned(), source },
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if is_definition(&name) {
                paths.push(dir.join(name));
            }
        }
        paths.sort();
        let mut entries: Vec<_> = paths.into_iter().filter_map(|path| self.entry(path)).collect();
        refuse_rivals(&mut entries);
        let of_directory = entries.len();
        let invalid = self.project().and_then(|project| {
            let file_of = |name: &ServerName| {
                let entry = entries.iter().find(|entry| entry.name.as_ref() == Some(name))?;
                Some(entry.path.clone())
            };
            let added = project.entries(self.validator(), file_of);
            added.map(|mut added| entries.append(&mut added)).err()
        });
        let (of_directory, of_project) = entries.split_at_mut(of_directory);
        if let Some(overlay) = self.overlay() {
            apply_intents(of_directory, all_intents(&overlay)?, &overlay);
            forget_intents(of_directory, &overlay);
        }
        let mut unread = invalid.map(|invalid| Unread { invalid, intents: BTreeMap::new() });
        if let Some(overlay) = self.project_overlay() {
            let intents = all_intents(&overlay)?;
            match &mut unread {
                Some(unread) => {
                    let known = intents.into_iter().filter_map(|(name, intent)| Some((name, intent.ok()?)));
                    unread.intents = known.collect();
                }
                None => {
                    apply_intents(of_project, intents, &overlay);
                    forget_intents(of_project, &overlay);
                }
            }
        }
        Ok(Scan { entries, unread })
    }

    /// `None` when the file went away since it was listed.
    fn entry(&self, path: PathBuf) -> Option<Entry> {
        let name = name_of(&path).ok();
        let (hash, outcome) = match yaml::read_file(&path) {
            Ok(content) => (Some(ContentHash::of(&content)), self.read(&path, &content).map(Arc::new)),
            Err(FileError::Absent) => return None,
            Err(refusal) => (None, Err(invalid(&path, &refusal))),
        };
        Some(Entry { path, name, hash, outcome, intent: None })
    }
}

fn all_intents(overlay: &Overlay) -> Result<BTreeMap<ServerName, io::Result<bool>>, ScanError> {
    overlay.all().map_err(|source| ScanError::Unreadable { path: overlay.directory().to_owned(), source })
}

/// What the operator wants counts more than what a definition says.
fn apply_intents(
    entries: &mut [Entry],
    mut intents: BTreeMap<ServerName, io::Result<bool>>,
    overlay: &Overlay,
) {
    for entry in entries {
        let Some(name) = &entry.name else { continue };
        match (intents.remove(name), &mut entry.outcome) {
            (Some(Ok(suspended)), outcome) => {
                entry.intent = Some(suspended);
                if let Ok(definition) = outcome {
                    Arc::make_mut(definition).suspended = suspended;
                }
            }
            (None, _) | (Some(Err(_)), Err(_)) => {}
            (Some(Err(error)), Ok(_)) => {
                let file = overlay.path(name);
                let problem =
                    format!("whether it is to be suspended cannot be read from {}: {error}", file.display());
                let mistake = Mistake::of_file(problem, Some("remove that file".to_owned()));
                entry.outcome = Err(Invalid { path: entry.path.clone(), mistakes: vec![mistake] });
            }
        }
    }
}

/// Intents of servers that are gone go as well. Where there are none at all nothing is concluded: a volume that is not
/// mounted looks like that, and another branch of a project.
fn forget_intents(entries: &[Entry], overlay: &Overlay) {
    let defined: BTreeSet<_> = entries.iter().filter_map(|entry| entry.name.as_ref()).collect();
    if defined.is_empty() {
        return;
    }
    if let Err(error) = overlay.retain(&defined) {
        // They do no harm while their servers are gone, and the next look tries again.
        debug!(%error, "intents of servers that are gone cannot be removed");
    }
}

fn invalid(path: &Path, refusal: &FileError) -> Invalid {
    Invalid { path: path.to_owned(), mistakes: vec![refusal.mistake()] }
}

pub(super) fn is_definition(file: &OsStr) -> bool {
    let path = Path::new(file);
    let known = path.extension().is_some_and(|extension| {
        extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
    });
    // Dot files are also how a ConfigMap volume keeps its generations ("..data"); "#x#" and "~$x" are editors'.
    known && !matches!(file.as_encoded_bytes().first(), Some(b'.' | b'#' | b'~'))
}

/// Files that would define the same server are all refused: which one was meant only their author knows.
fn refuse_rivals(entries: &mut [Entry]) {
    let mut files: BTreeMap<ServerName, Vec<usize>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Some(name) = &entry.name {
            files.entry(name.clone()).or_default().push(index);
        }
    }
    for (name, indices) in files.into_iter().filter(|(_, indices)| indices.len() > 1) {
        let paths: Vec<_> = indices.iter().map(|&index| entries[index].path.display().to_string()).collect();
        let problem = format!("{} all define the server {:?}", paths.join(" and "), name.as_str());
        for index in indices {
            let entry = &mut entries[index];
            let rivals = Mistake::of_file(problem.clone(), Some("keep one of them".to_owned()));
            match &mut entry.outcome {
                Ok(_) => entry.outcome = Err(Invalid { path: entry.path.clone(), mistakes: vec![rivals] }),
                Err(invalid) => invalid.mistakes.push(rivals),
            }
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rstest::rstest;

    use super::*;
    use crate::mcpserver::tests::reader;
    use crate::yaml::MAX_BYTES;

    const TIME: &str =
        "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec: {type: stdio, command: x}\n";

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    /// What a scan finds, a line for each entry.
    fn found(dir: &Path) -> Vec<String> {
        let line = |entry: &Entry| {
            let file = entry.path.file_name().unwrap().to_string_lossy();
            match &entry.outcome {
                Ok(definition) => format!("{file} = {}", definition.name),
                Err(invalid) => format!("{file}: {}", invalid.mistakes[0].problem),
            }
        };
        reader().scan(dir).unwrap().entries.iter().map(line).collect()
    }

    #[test]
    fn definitions_are_found_and_the_rest_is_passed_over() {
        let dir = directory(&[
            ("a.yaml", TIME),
            ("b.yml", TIME),
            ("c.YAML", TIME),
            ("d.Yml", TIME),
            ("README.md", ""),
            ("yaml", ""),
            (".yaml", ""),
            (".a.yaml.swp", ""),
            (".hidden.yaml", ""),
            ("a.yaml~", ""),
            ("#a.yaml#", ""),
            ("#a.yaml", ""),
            ("~$a.yaml", ""),
            ("a.yaml.tmp", ""),
        ]);
        symlink("nowhere", dir.path().join(".#a.yaml")).unwrap();
        assert_eq!(found(dir.path()), ["a.yaml = a", "b.yml = b", "c.YAML = c", "d.Yml = d"]);
    }

    #[test]
    fn a_bad_file_does_not_hide_a_good_one() {
        let dir = directory(&[
            ("bad.yaml", "spec: ["),
            ("empty.yaml", ""),
            ("Bad Name.yaml", TIME),
            ("good.yaml", TIME),
        ]);
        assert_eq!(
            found(dir.path()),
            [
                "Bad Name.yaml: \"Bad Name\" is not a server name",
                "bad.yaml: not YAML: while parsing a node, did not find expected node content",
                "empty.yaml: the file is empty",
                "good.yaml = good",
            ]
        );
        let scan = reader().scan(dir.path()).unwrap();
        assert_eq!(scan.entries[0].name, None);
        assert_eq!(scan.entries[1].name.as_ref().map(ServerName::as_str), Some("bad"));
        assert_eq!(scan.entries[3].hash, Some(ContentHash::of(TIME.as_bytes())));
    }

    #[test]
    fn files_of_one_name_are_all_refused() {
        let dir = directory(&[("a.yaml", TIME), ("a.yml", "{}"), ("a.YML", TIME), ("b.yaml", TIME)]);
        let scan = reader().scan(dir.path()).unwrap();
        for entry in &scan.entries[..3] {
            let report = entry.outcome.as_ref().unwrap_err().to_string();
            assert!(
                ["a.YML and ", "a.yaml and ", "a.yml all define the server \"a\""]
                    .iter()
                    .all(|p| report.contains(p)),
                "{report}"
            );
        }
        assert!(scan.entries[3].outcome.is_ok());

        fs::remove_file(dir.path().join("a.yml")).unwrap();
        fs::remove_file(dir.path().join("a.YML")).unwrap();
        let after = reader().scan(dir.path()).unwrap();
        assert!(after.entries[0].outcome.is_ok());
        assert_eq!(after.entries[0].hash, scan.entries[1].hash);
        assert_ne!(after.entries[0], scan.entries[1]);
    }

    #[test]
    fn scans_compare_by_meaning() {
        let dir = directory(&[("a.yaml", TIME)]);
        let first = reader().scan(dir.path()).unwrap();
        fs::write(dir.path().join("a.yaml"), TIME).unwrap();
        assert_eq!(reader().scan(dir.path()).unwrap(), first);
        fs::write(dir.path().join("a.yaml"), TIME.replace("command: x", "command: y")).unwrap();
        assert_ne!(reader().scan(dir.path()).unwrap(), first);
    }

    /// As the kubelet lays out a volume: files are links through "..data", which is renamed into place.
    #[test]
    fn config_map_volumes_are_followed() {
        let dir = directory(&[]);
        let publish = |generation: &str, command: &str| {
            let hidden = dir.path().join(generation);
            fs::create_dir(&hidden).unwrap();
            fs::write(hidden.join("time.yaml"), TIME.replace("command: x", command)).unwrap();
            symlink(generation, dir.path().join("..data_tmp")).unwrap();
            fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        };
        publish("..2026_01_01", "command: one");
        symlink("..data/time.yaml", dir.path().join("time.yaml")).unwrap();
        let first = reader().scan(dir.path()).unwrap();
        assert_eq!(found(dir.path()), ["time.yaml = time"]);

        publish("..2026_01_02", "command: two");
        let second = reader().scan(dir.path()).unwrap();
        assert_eq!(found(dir.path()), ["time.yaml = time"]);
        assert_ne!(first.entries[0].hash, second.entries[0].hash);
    }

    #[test]
    fn what_cannot_be_read_is_an_entry() {
        let dir = directory(&[]);
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("dir.yaml")).unwrap();
        fs::write(at("large.yaml"), vec![b' '; MAX_BYTES + 1]).unwrap();
        symlink("nowhere", at("dangling.yaml")).unwrap();
        symlink("loop.yaml", at("loop.yaml")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe.yaml"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let found = found(dir.path());
        assert!(found[3].starts_with("loop.yaml: cannot be read: "), "{found:?}");
        assert_eq!(found[0], "dangling.yaml: a symbolic link to a file that does not exist");
        assert_eq!(found[1], "dir.yaml: not a regular file");
        assert_eq!(found[2], "large.yaml: 1048577 bytes large");
        assert_eq!(found[4], "pipe.yaml: not a regular file");
    }

    #[test]
    fn a_file_of_the_largest_size_is_read() {
        let dir = directory(&[("a.yaml", &format!("{TIME}{}", "#".repeat(MAX_BYTES - TIME.len())))]);
        assert_eq!(found(dir.path()), ["a.yaml = a"]);
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_no_empty_one() {
        let dir = directory(&[("file", "")]);
        symlink("loop", dir.path().join("loop")).unwrap();
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        for name in ["file", "loop", "dangling"] {
            let error = reader().scan(&dir.path().join(name)).unwrap_err();
            assert!(matches!(error, ScanError::Unreadable { .. }), "{error:?}");
        }
        let error = reader().scan(&dir.path().join("absent")).unwrap_err();
        assert!(matches!(error, ScanError::NotFound { .. }), "{error:?}");
        assert_eq!(reader().scan(directory(&[]).path()).unwrap(), Scan::default());
    }

    #[rstest]
    #[case("absent.yaml", "the file does not exist")]
    #[case("bad.yaml", "expected a mapping, found text; write \"key: value\" lines below it")]
    fn single_files_are_read(#[case] file: &str, #[case] problem: &str) {
        let dir = directory(&[("good.yaml", TIME), ("bad.yaml", "x")]);
        assert_eq!(reader().read_file(&dir.path().join("good.yaml")).unwrap().name.as_str(), "good");
        let report = reader().read_file(&dir.path().join(file)).unwrap_err().to_string();
        assert!(
            report.starts_with(&format!("{}/{file}:", dir.path().display())) && report.ends_with(problem),
            "{report}"
        );
    }
}
