//! All operations on the directory of definitions.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::overlay::Overlay;
use super::project::Found;
use super::resource::{complete, complete_patch, merge, render};
use super::store::is_definition;
use super::validator::name_of;
use super::{Definition, EditError, Invalid, Reader, Scan, ScanError, ServerName, disk, edit};
use crate::sync::lock;
use crate::yaml::{self, FileError, edit as text_edit};

/// How often a file may be changed by somebody else while it is being edited.
const TRIES: usize = 5;

/// The directory of definitions, to be read and written. Every operation blocks on the file system.
///
/// Invariants: a file is replaced whole or not at all; what somebody else wrote meanwhile is never overwritten; nothing is
/// written that the [`Reader`] would refuse; of two that create the same server exactly one succeeds. Nobody is told of
/// changes: an instance that runs notices those of files by itself, and of those of intents when it looks again.
#[derive(Clone, Debug)]
pub struct Definitions {
    reader: Reader,
    /// The operations of one process come one after the other.
    turn: Arc<Mutex<()>>,
}

/// What [`Definitions::suspend`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Suspension {
    /// Whether the server was as wished before.
    pub changed: bool,
    /// Where the wish stands now.
    pub stands_in: StandsIn,
}

/// Where the operator's wish stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandsIn {
    /// In the definition.
    Definition(PathBuf),
    /// Beside it, in a file of Sidegate's own, since the definition cannot be written.
    Overlay(PathBuf),
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The definition's file.
    pub path: PathBuf,
    /// Whether the file is another than before.
    pub changed: bool,
    /// The old text, where the file was written anew and comments may be lost.
    pub backup: Option<PathBuf>,
}

/// A definition's file.
///
/// `Debug` shows neither its text nor its values.
#[derive(Clone)]
#[non_exhaustive]
pub struct Stored {
    /// The file.
    pub path: PathBuf,
    /// Its text; of a server of the project's file, as it would be in a file of its own. It may hold secrets.
    pub text: String,
    /// What it says, without variables put in; `None` where it is no YAML. It may hold secrets.
    pub resource: Option<Value>,
    /// What it means; `suspended` is what is in effect.
    pub outcome: Result<Arc<Definition>, Invalid>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("path", &self.path)
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

impl Definitions {
    /// The definitions of the reader's configuration directory, which need not exist.
    pub fn new(reader: Reader) -> Self {
        Self { reader, turn: Arc::default() }
    }

    /// These definitions, for a value that is written here and read elsewhere: the variables that it needs and that are
    /// not set here are taken as set. Their names come with it.
    pub fn assuming_variables(&self, name: &ServerName, value: &Value) -> (Self, Vec<String>) {
        let (reader, unset) = self.reader.assuming(&complete(name, value)["spec"]);
        (Self { reader, turn: Arc::clone(&self.turn) }, unset)
    }

    /// The directory.
    pub fn directory(&self) -> PathBuf {
        self.reader.definitions_dir()
    }

    /// All definitions, right or wrong.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn scan(&self) -> Result<Scan, ScanError> {
        self.reader.scan(&self.directory())
    }

    /// The file that defines `name`, and can be written.
    ///
    /// # Errors
    ///
    /// There is none, or there are several; the directory cannot be read.
    pub fn find(&self, name: &ServerName) -> Result<PathBuf, EditError> {
        let mut paths = self.files_of(name)?;
        match (paths.pop(), paths.is_empty()) {
            (None, _) => Err(match self.reader.project().filter(|_| self.in_project(name).is_some()) {
                Some(project) => EditError::InProject { name: name.clone(), path: project.path().to_owned() },
                None => EditError::NotFound { name: name.clone() },
            }),
            (Some(path), true) => Ok(path),
            (Some(path), false) => {
                paths.push(path);
                Err(EditError::Ambiguous { name: name.clone(), paths })
            }
        }
    }

    /// Makes the server suspended, or not: in its file, else in the overlay. A file that is wrong cannot be edited, but what
    /// runs of it can be suspended; where that is the project's as a whole, any name may be one of it.
    ///
    /// # Errors
    ///
    /// The definition is not there, is wrong, or is laid out in a way that is not edited; neither place can be written.
    pub fn suspend(&self, name: &ServerName, suspended: bool) -> Result<Suspension, EditError> {
        let _turn = lock(&self.turn);
        let path = match self.find(name) {
            Ok(path) => path,
            Err(EditError::InProject { path, .. }) => {
                return self.suspend_in_project(name, path, suspended);
            }
            Err(EditError::NotFound { name }) => {
                // What runs of it may have been there before the mistake.
                let mistaken =
                    self.reader.project().and_then(|project| Some((project, project.fault(&name)?)));
                return match mistaken {
                    Some((project, _)) if suspended => {
                        self.suspend_in_project(&name, project.path().to_owned(), suspended)
                    }
                    Some((_, invalid)) => Err(EditError::Invalid(invalid)),
                    None => Err(EditError::NotFound { name }),
                };
            }
            Err(error) => return Err(error),
        };
        let overlay = self.reader.overlay();
        let said = said(overlay.as_ref(), name)?;
        let written = self.rewrite(&path, |content| {
            let edited = edit::suspend(&self.reader, &path, content, suspended)?;
            Ok(edited.map(|text| Edited { text, keeps_the_rest: true }))
        });
        match (written, &overlay) {
            (Ok(written), _) => {
                if let (Some(overlay), Some(_)) = (overlay, said) {
                    overlay.remove(name).map_err(|error| disk::failure(&overlay.path(name), error))?;
                }
                // Without an edit the file was so already, and what is new is that nothing contradicts it.
                let changed = said.map_or(written.changed, |said| said != suspended);
                Ok(Suspension { changed, stands_in: StandsIn::Definition(path) })
            }
            (Err(error), Some(overlay))
                if matches!(error, EditError::NotWritable { .. })
                    || (suspended && matches!(error, EditError::Invalid(_))) =>
            {
                let at = overlay.path(name);
                if said != Some(suspended) {
                    overlay.set(name, suspended).map_err(|error| disk::failure(&at, error))?;
                }
                Ok(Suspension { changed: said != Some(suspended), stands_in: StandsIn::Overlay(at) })
            }
            (Err(error), _) => Err(error),
        }
    }

    fn suspend_in_project(
        &self,
        name: &ServerName,
        file: PathBuf,
        suspended: bool,
    ) -> Result<Suspension, EditError> {
        let Some(overlay) = self.reader.project_overlay() else {
            return Err(EditError::InProject { name: name.clone(), path: file });
        };
        let said = said(Some(&overlay), name)?;
        let written = self.in_project(name).and_then(|found| found.outcome.ok());
        let before = said.or(written.map(|definition| definition.suspended));
        let at = overlay.path(name);
        if before != Some(suspended) {
            overlay.set(name, suspended).map_err(|error| disk::failure(&at, error))?;
        }
        Ok(Suspension { changed: before != Some(suspended), stands_in: StandsIn::Overlay(at) })
    }

    /// What the project's file says of a server.
    fn in_project(&self, name: &ServerName) -> Option<Found> {
        self.reader.project()?.find(self.reader.validator(), name)
    }

    /// Defines a new server; `value` is the resource or its `spec`.
    ///
    /// # Errors
    ///
    /// There is one of that name, right or wrong; the value is no definition; the directory cannot be written.
    pub fn create(&self, name: &ServerName, value: &Value) -> Result<Written, EditError> {
        self.validate(name, value)?;
        self.create_text(name, &render(&complete(name, value)))
    }

    /// Defines a new server with this text.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_text(&self, name: &ServerName, text: &str) -> Result<Written, EditError> {
        let _turn = lock(&self.turn);
        let path = self.new_path(name);
        self.reader.read(&path, text.as_bytes()).map_err(EditError::Invalid)?;
        if let Some(path) = self.files_of(name)?.pop() {
            return Err(EditError::AlreadyExists { name: name.clone(), path });
        }
        self.forget_intent(name)?;
        let exists = || EditError::AlreadyExists { name: name.clone(), path: path.clone() };
        disk::create(&path, text).map_err(|error| error.unwrap_or_else(exists))?;
        Ok(Written { path, changed: true, backup: None })
    }

    /// Defines a server, in the place of one of that name if there is one. The old text is kept.
    ///
    /// # Errors
    ///
    /// Several files define it; the value is no definition; the file cannot be written.
    pub fn create_or_replace(&self, name: &ServerName, value: &Value) -> Result<Written, EditError> {
        match self.create(name, value) {
            Err(EditError::AlreadyExists { .. }) => {}
            outcome => return outcome,
        }
        let _turn = lock(&self.turn);
        let path = self.find(name)?;
        let text = render(&complete(name, value));
        self.rewrite(&path, |content| {
            let same = content == text.as_bytes();
            Ok((!same).then(|| Edited { text: text.clone(), keeps_the_rest: false }))
        })
    }

    /// Changes a definition by a merge patch (RFC 7396) of the resource or of its `spec`: `null` clears.
    ///
    /// The text is edited where that keeps everything else; otherwise it is written anew, and the old one kept beside it.
    ///
    /// # Errors
    ///
    /// The definition is not there; what comes out is no definition; the file cannot be written.
    pub fn update(&self, name: &ServerName, patch: &Value) -> Result<Written, EditError> {
        let _turn = lock(&self.turn);
        let path = self.find(name)?;
        let patch = complete_patch(patch);
        self.rewrite(&path, |content| {
            let old = self.reader.resource(&path, content).map_err(EditError::Invalid)?;
            let mut new = old.clone();
            merge(&mut new, &patch);
            self.validate_as(&path, name, &new)?;
            if new == old {
                return Ok(None);
            }
            let edited = std::str::from_utf8(content).ok().and_then(|text| patched(text, &old, &patch));
            Ok(Some(match edited {
                Some(text) => Edited { text, keeps_the_rest: true },
                None => Edited { text: render(&new), keeps_the_rest: false },
            }))
        })
    }

    /// Removes a definition; of a symbolic link the link, not what it leads to.
    ///
    /// # Errors
    ///
    /// It is not there, several files define it, or the directory cannot be written.
    pub fn delete(&self, name: &ServerName) -> Result<PathBuf, EditError> {
        let _turn = lock(&self.turn);
        let path = self.find(name)?;
        if !disk::remove(&path).map_err(|error| disk::failure(&path, error))? {
            return Err(EditError::NotFound { name: name.clone() });
        }
        self.forget_intent(name)?;
        Ok(path)
    }

    /// The definition's file.
    ///
    /// # Errors
    ///
    /// It is not there, several files define it, or it cannot be read.
    pub fn get(&self, name: &ServerName) -> Result<Stored, EditError> {
        let (path, content, resource, mut outcome, overlay) = match self.find(name) {
            Ok(path) => {
                let content = read(&path)?;
                let resource = self.reader.resource(&path, &content).ok();
                let outcome = self.reader.read(&path, &content);
                (path, content, resource, outcome, self.reader.overlay())
            }
            Err(EditError::InProject { name, path }) => {
                let found = self.in_project(&name).ok_or(EditError::NotFound { name })?;
                let text = render(&found.resource);
                let overlay = self.reader.project_overlay();
                (path, text.into_bytes(), Some(found.resource), found.outcome, overlay)
            }
            Err(error) => return Err(error),
        };
        if let Ok(definition) = &mut outcome {
            definition.suspended = said(overlay.as_ref(), name)?.unwrap_or(definition.suspended);
        }
        Ok(Stored {
            resource,
            text: String::from_utf8_lossy(&content).into_owned(),
            outcome: outcome.map(Arc::new),
            path,
        })
    }

    /// What a resource or its `spec` would define. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`EditError::Invalid`], with mistakes that have keys and no positions: nobody has seen a text.
    pub fn validate(&self, name: &ServerName, value: &Value) -> Result<Definition, EditError> {
        self.validate_as(&self.new_path(name), name, value)
    }

    fn validate_as(&self, path: &Path, name: &ServerName, value: &Value) -> Result<Definition, EditError> {
        // In flow style the value is written in full, also what is wrong with it.
        let text = yaml::emit::flow(&complete(name, value));
        self.reader.read(path, text.as_bytes()).map_err(|mut invalid| {
            invalid.mistakes.iter_mut().for_each(|mistake| mistake.position = None);
            EditError::Invalid(invalid)
        })
    }

    fn new_path(&self, name: &ServerName) -> PathBuf {
        self.directory().join(format!("{name}.yaml"))
    }

    /// The files whose stem is the name, sorted. A directory that is not there has none.
    fn files_of(&self, name: &ServerName) -> Result<Vec<PathBuf>, EditError> {
        let directory = self.directory();
        let failed = |source| EditError::Io { path: directory.clone(), source };
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let file = entry.map_err(failed)?.file_name();
            if is_definition(&file) && name_of(Path::new(&file)).as_ref() == Ok(name) {
                paths.push(directory.join(file));
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn forget_intent(&self, name: &ServerName) -> Result<(), EditError> {
        let Some(overlay) = self.reader.overlay() else { return Ok(()) };
        overlay.remove(name).map_err(|error| disk::failure(&overlay.path(name), error))
    }

    /// Edits a file until nobody is in the way.
    fn rewrite(
        &self,
        path: &Path,
        mut edit: impl FnMut(&[u8]) -> Result<Option<Edited>, EditError>,
    ) -> Result<Written, EditError> {
        for _ in 0..TRIES {
            let content = read(path)?;
            let Some(Edited { text, keeps_the_rest }) = edit(&content)? else {
                return Ok(Written { path: path.to_owned(), changed: false, backup: None });
            };
            // Whatever the edit thinks: nothing is written that would be refused.
            self.reader.read(path, text.as_bytes()).map_err(EditError::Invalid)?;
            let target = disk::target(path)?;
            let backup = (!keeps_the_rest).then(|| backup_of(&target));
            if let Some(backup) = &backup {
                disk::put(backup, &content).map_err(|error| disk::failure(backup, error))?;
            }
            match disk::replace(&target, &content, &text) {
                Ok(()) => return Ok(Written { path: path.to_owned(), changed: true, backup }),
                Err(EditError::Changed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(EditError::Changed { path: path.to_owned() })
    }
}

/// What stands in the overlay, where there is one.
fn said(overlay: Option<&Overlay>, name: &ServerName) -> Result<Option<bool>, EditError> {
    let Some(overlay) = overlay else { return Ok(None) };
    overlay.get(name).map_err(|error| disk::failure(&overlay.path(name), error))
}

/// The new text of a file.
struct Edited {
    text: String,
    /// Comments and layout are those of the old text.
    keeps_the_rest: bool,
}

/// Beside the file, with an ending that no scan takes for a definition.
fn backup_of(target: &Path) -> PathBuf {
    let mut backup = target.as_os_str().to_owned();
    backup.push(".bak");
    backup.into()
}

fn read(path: &Path) -> Result<Vec<u8>, EditError> {
    yaml::read_file(path).map_err(|error| match error {
        FileError::Io(source) => EditError::Io { path: path.to_owned(), source },
        other => EditError::Invalid(Invalid { path: path.to_owned(), mistakes: vec![other.mistake()] }),
    })
}

/// The text with a patch applied, entry by entry; `None` where that cannot be done without touching more.
fn patched(text: &str, old: &Value, patch: &Value) -> Option<String> {
    fn walk<'p>(text: String, old: &Value, patch: &'p Value, path: &mut Vec<&'p str>) -> Option<String> {
        let mut text = text;
        for (key, value) in patch.as_object()? {
            path.push(key);
            text = match (old.get(key), value) {
                (None, Value::Null) => text,
                (Some(_), Value::Null) => text_edit::remove(&text, path).ok()?,
                (Some(old @ Value::Object(_)), Value::Object(_)) => walk(text, old, value, path)?,
                (Some(old), new) if old == new => text,
                (_, new) => {
                    let mut set = Value::Null;
                    merge(&mut set, new);
                    text_edit::set(&text, path, &set).ok()?
                }
            };
            path.pop();
        }
        Some(text)
    }
    walk(text.to_owned(), old, patch, &mut Vec::new())
}

#[cfg(test)]
mod tests;
