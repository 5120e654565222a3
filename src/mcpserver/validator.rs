//! The one way from a text to a [`Definition`]: the resource's envelope, and what all parts of it share.

use std::io;
use std::path::{Path, PathBuf};

use super::context::Context;
use super::expand::assume;
use super::resource::{API_VERSION, KIND};
use super::{Definition, Invalid, ServerName, spec};
use crate::environment::Environment;
use crate::yaml::{Collector, Fields, Mistake, Value, parse_bytes, shown};

/// Every rule for definitions is applied by it and nowhere else, whether they come from files or from tools.
#[derive(Clone, Debug)]
pub(super) struct Validator {
    config_dir: PathBuf,
    environment: Environment,
}

impl Validator {
    /// Resolves relative paths against `config_dir` and `${VAR}` from `environment`.
    ///
    /// # Errors
    ///
    /// When `config_dir` is relative and there is no current directory, or it is empty.
    pub(super) fn new(config_dir: &Path, environment: Environment) -> io::Result<Self> {
        Ok(Self { config_dir: std::path::absolute(config_dir)?, environment })
    }

    pub(super) fn config_dir(&self) -> &Path {
        &self.config_dir
    }

    /// This validator, in whose environment the variables that `spec` needs and that are not set have a stand-in; and their
    /// names.
    pub(super) fn assuming(&self, spec: &serde_json::Value) -> (Self, Vec<String>) {
        let mut validator = self.clone();
        let mut unset = Vec::new();
        for key in ["url", "command", "args", "env", "cwd", "headers"] {
            for text in texts(&spec[key]) {
                // A URL that is a variable is one from its beginning.
                let stand_in = if key == "url" && text.starts_with("${") { "http://unset" } else { "1" };
                let (environment, assumed) = assume(text, validator.environment, stand_in);
                validator.environment = environment;
                unset.extend(assumed);
            }
        }
        (validator, unset)
    }

    /// Reads `content` as the content of the file `path`, whose stem is the server's name. The file is not touched.
    ///
    /// # Errors
    ///
    /// All mistakes of the content.
    pub(super) fn read(&self, path: &Path, content: &[u8]) -> Result<Definition, Invalid> {
        let mistakes = Collector::default();
        let definition = self.definition(path, content, &mistakes);
        match definition {
            Some(definition) if mistakes.is_empty() => Ok(definition),
            _ => Err(Invalid { path: path.to_owned(), mistakes: mistakes.into_sorted() }),
        }
    }

    /// What `content` says, without variables put in, right or wrong.
    ///
    /// # Errors
    ///
    /// It is no YAML, or not what JSON can hold.
    pub(super) fn resource(&self, path: &Path, content: &[u8]) -> Result<serde_json::Value, Invalid> {
        let mistakes = Collector::default();
        let root = parse_bytes(content, &mistakes);
        let value = root.map_or(Some(serde_json::Value::Null), |root| Value::root(&root, &mistakes).json());
        match value {
            Some(value) if mistakes.is_empty() => Ok(value),
            _ => Err(Invalid { path: path.to_owned(), mistakes: mistakes.into_sorted() }),
        }
    }

    fn definition(&self, path: &Path, content: &[u8], mistakes: &Collector) -> Option<Definition> {
        let name = match name_of(path) {
            Ok(name) => Some(name),
            Err(mistake) => {
                mistakes.push(mistake);
                None
            }
        };
        let root = parse_bytes(content, mistakes);
        let Some(root) = root else {
            if mistakes.is_empty() {
                let advice = format!("write apiVersion: {API_VERSION}, kind: {KIND}, metadata and spec");
                mistakes.push(Mistake::of_file("the file is empty", Some(advice)));
            }
            return None;
        };
        let root = Value::root(&root, mistakes);
        let fields = root.fields(&["apiVersion", "kind", "metadata", "spec"])?;
        envelope(&fields, path, name.as_ref());
        let context = Context::new(&self.config_dir, &self.environment);
        let spec = fields.need("spec", "add it with the server's type and its command or url")?;
        spec::read(spec, name?, context)
    }
}

/// The texts of a value that is one, or a list or an object of them.
fn texts(value: &serde_json::Value) -> Vec<&str> {
    use serde_json::Value::{Array, Object, String};
    match value {
        String(text) => vec![text],
        Array(items) => items.iter().filter_map(|item| item.as_str()).collect(),
        Object(map) => map.values().filter_map(|value| value.as_str()).collect(),
        _ => Vec::new(),
    }
}

/// The server's name, from the stem of its file.
pub(super) fn name_of(path: &Path) -> Result<ServerName, Mistake> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.parse().map_err(|_| {
        let problem = format!("{} is not a server name", shown(&stem));
        let advice =
            "rename the file: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
        Mistake::of_file(problem, Some(advice.to_owned()))
    })
}

fn envelope(fields: &Fields<'_>, path: &Path, name: Option<&ServerName>) {
    if let Some(version) = fields.need("apiVersion", format!("add apiVersion: {API_VERSION}")) {
        version.one_of(&[(API_VERSION, ()), ("muster.giantswarm.io/v1alpha1", ())]);
    }
    if let Some(kind) = fields.need("kind", format!("add kind: {KIND}")) {
        kind.one_of(&[(KIND, ())]);
    }
    // The stem says who the server is; metadata may repeat it and hold what Kubernetes tools put there.
    let Some(metadata) = fields
        .get("metadata")
        .and_then(|value| value.fields(&["name", "namespace", "labels", "annotations"]))
    else {
        return;
    };
    if let Some(value) = metadata.get("name")
        && let (Some(text), Some(name)) = (value.text(), name)
        && text != name.as_str()
    {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let problem = format!("{} in the file of {:?}", shown(text), name.as_str());
        value.wrong(problem, format!("write {:?}, or rename {}", name.as_str(), shown(&file)));
    }
    if let Some(namespace) = metadata.get("namespace") {
        namespace.text();
    }
    for key in ["labels", "annotations"] {
        for (_, value) in metadata.get(key).and_then(Value::entries).unwrap_or_default() {
            value.text();
        }
    }
}
