//! Instances that are started by servers of others, so that none starts itself without end.
//!
//! An instance tells the commands that it starts whose they are ([`VARIABLE`]): what it serves, and what those serve whose commands
//! have started it. A circle of sessions is found in the sessions (`aggregator::behind`); an instance that a command starts has
//! started its own servers before the first of them is opened.

use std::ffi::OsString;
use std::path::Path;

use super::StartError;
use crate::config::dirs;
use crate::environment::Environment;

/// Set for stdio servers: what instances serve, with commas between, the outermost first. Of each there is a hash of its
/// configuration directory, and one of its project's file, where it has one, with a plus between.
pub(super) const VARIABLE: &str = "SIDEGATE_VIA";

/// So many instances may stand around one.
const DEEPEST: usize = 5;

/// The instances whose servers have started us.
#[derive(Clone, Debug)]
pub struct Nesting(Vec<String>);

impl Nesting {
    /// Reads what an instance has told its server.
    pub fn of(environment: &Environment) -> Self {
        // What is no text is not ours.
        let text = environment.get_os(VARIABLE).map(|text| text.to_string_lossy()).unwrap_or_default();
        Self(text.split(',').filter(|hop| !hop.is_empty()).map(str::to_owned).collect())
    }

    /// Whether an instance with the servers of these places would be started by a server of one that has some of them: it
    /// would be its own server, or start what runs. Reads links from the file system.
    pub fn has(&self, config_dir: &Path, project: Option<&Path>) -> bool {
        let own: Vec<String> = hashes(config_dir, project).collect();
        self.0.iter().flat_map(|hop| hop.split('+')).any(|known| own.iter().any(|own| own == known))
    }

    /// What an instance with the servers of these places tells its own.
    ///
    /// # Errors
    ///
    /// There are too many around it.
    pub(super) fn told(&self, config_dir: &Path, project: Option<&Path>) -> Result<OsString, StartError> {
        if self.0.len() >= DEEPEST {
            return Err(StartError::Nested { deepest: DEEPEST });
        }
        let mut hops = self.0.clone();
        hops.push(hashes(config_dir, project).collect::<Vec<_>>().join("+"));
        Ok(hops.join(",").into())
    }
}

fn hashes<'p>(config_dir: &'p Path, project: Option<&'p Path>) -> impl Iterator<Item = String> + use<'p> {
    [Some(config_dir), project].into_iter().flatten().map(dirs::hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_the_same_is_known_at_any_depth() {
        let [here, there, file] = ["/here", "/there", "/p/.mcp.json"].map(Path::new);
        let mut environment = Environment::default();
        let mut depth = 0;
        loop {
            let nesting = Nesting::of(&environment);
            assert_eq!(nesting.has(here, None), depth > 0);
            assert_eq!(nesting.has(there, Some(file)), depth > 0);
            assert!(!nesting.has(there, None));
            match nesting.told(here, Some(file)) {
                Ok(told) => environment = environment.with(VARIABLE, told.to_str().unwrap()),
                Err(error) => break assert!(error.to_string().contains('5'), "{error}"),
            }
            depth += 1;
        }
        assert_eq!(depth, DEEPEST);
    }
}
