//! Where this program is found, for those who are to start it later.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use sidegate::environment::Environment;

/// The entry of PATH that leads to this program, else the program itself. An entry stays where it is when another version takes
/// the place of what it leads to.
///
/// # Errors
///
/// It is not known where the program is.
pub(super) fn own_path(environment: &Environment) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let called = std::env::args_os().next().unwrap_or_default();
    Ok(on_path(environment, &called, &own).unwrap_or(own))
}

/// The entry of PATH that `own` is called by.
fn on_path(environment: &Environment, called: &OsStr, own: &Path) -> Option<PathBuf> {
    let name = Path::new(called).file_name()?;
    let path = environment.get_os("PATH")?;
    // Relative entries lead elsewhere tomorrow. What cannot be looked at is not ours.
    let entries = std::env::split_paths(path).filter(|directory| directory.is_absolute());
    let mut entries = entries.map(|directory| directory.join(name));
    let file = own.canonicalize().ok()?;
    entries.find(|entry| entry.canonicalize().is_ok_and(|entry| entry == file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_on_path_goes_before_what_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let [bin, other, file] = ["bin", "other", "sidegate-7"].map(|name| directory.path().join(name));
        for place in [&bin, &other] {
            std::fs::create_dir(place).unwrap();
        }
        std::fs::write(&file, "").unwrap();
        std::fs::write(other.join("sidegate"), "").unwrap();
        symlink(&file, bin.join("sidegate")).unwrap();
        let found = |path: &[&Path], called: &str| {
            let path = std::env::join_paths(path).unwrap();
            let environment = Environment::from_iter([("PATH", path.to_str().unwrap())]);
            on_path(&environment, OsStr::new(called), &file)
        };
        let whole = other.join("sidegate");
        for called in ["sidegate", whole.to_str().unwrap()] {
            assert_eq!(found(&[&other, &bin], called), Some(bin.join("sidegate")));
        }
        assert_eq!(found(&[&other], "sidegate"), None);
        assert_eq!(found(&[Path::new("bin"), &other], "sidegate"), None);
        assert_eq!(found(&[&bin], "elsewhere"), None);
    }
}
