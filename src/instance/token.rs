//! The token that clients must send where one is set.

use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

use crate::mcpserver::Secret;
use crate::telemetry::secrets::Secrets;

/// Shorter tokens can be guessed.
const SHORTEST: usize = 16;

/// Random bytes of a token that is made here.
const CREATED: usize = 32;

/// A bearer token (RFC 6750), as its digest: what is not here cannot leak from here.
pub(super) struct Token([u8; 32]);

impl Token {
    /// Reads the token from a file. Where there is no such file it gets a token that nobody can guess, for this user only.
    ///
    /// Its text is one of `secrets` from then on.
    pub(super) fn read_or_create(path: &Path, secrets: &Secrets) -> Result<Self, TokenError> {
        let text = match Self::read(path) {
            Err(TokenError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create(path).map_err(|source| TokenError::Create { path: path.to_owned(), source })?;
                // Another instance may have been faster: its token is everybody's.
                Self::read(path)
            }
            read => read,
        }?;
        secrets.keep([text.expose()]);
        Ok(Self(Sha256::digest(text.expose()).into()))
    }

    /// Reads the token from a file, white space around it left out.
    fn read(path: &Path) -> Result<Secret, TokenError> {
        let failed = |source| TokenError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        if std::fs::metadata(path).map_err(failed)?.mode() & 0o077 != 0 {
            return Err(TokenError::Readable { path: path.to_owned() });
        }
        let token = text.trim();
        if token.len() < SHORTEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Weak { path: path.to_owned() });
        }
        Ok(token.to_owned().into())
    }

    /// Whether a request carries it. Digests are compared, so the time tells nothing of the token.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        token.is_some_and(|token| self.is(token))
    }

    /// Whether a text is the token.
    pub(super) fn is(&self, text: &str) -> bool {
        <[u8; 32]>::from(Sha256::digest(text)) == self.0
    }
}

/// Writes a new token. A file that is there by then stays as it is.
fn create(path: &Path) -> io::Result<()> {
    let mut bytes = [0; CREATED];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    // Readable by this user only from the start, and under its name only as a whole.
    let file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")));
    // The error would name a file that nobody has heard of.
    let mut file = file.map_err(|error| io::Error::from(error.kind()))?;
    writeln!(file, "{}", hex::encode(bytes))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => Ok(()),
    }
}

/// Whether an instance could use this token file; `false` where it would have to be written first.
///
/// # Errors
///
/// [`TokenError`]
pub fn check_token_file(path: &Path) -> Result<bool, TokenError> {
    match Token::read(path) {
        Ok(_) => Ok(true),
        Err(TokenError::Read { source, .. })
            if source.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It cannot be read.
    #[error("the token file {} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is none, and it cannot be written.
    #[error("the token file {} cannot be written", .path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it.
    #[error("the token file {} can be read by others", .path.display())]
    Readable {
        /// The file.
        path: PathBuf,
    },
    /// What it holds is no good token.
    #[error("the token file {} holds no token of at least {SHORTEST} printable characters", .path.display())]
    Weak {
        /// The file.
        path: PathBuf,
    },
}

impl TokenError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Readable { .. } => "take it out of others' sight: chmod 600",
            Self::Create { .. } => "name a file in a directory that you can write to (aggregator.tokenFile)",
            Self::Read { .. } => {
                "name a file that you can read (aggregator.tokenFile); one that is not there is made"
            }
            Self::Weak { .. } => {
                "write at least 16 letters and digits into it, or remove it: a new one is made"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn only_the_very_token_is_taken() {
        let secrets = Secrets::default();
        let token = Token::read_or_create(file("0123456789abcdef\n", 0o600).path(), &secrets).unwrap();
        assert_eq!(secrets.hide("it is 0123456789abcdef"), "it is ***");
        let is_in = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, http::HeaderValue::from_static(value));
            }
            token.is_in(&headers)
        };
        assert!(is_in(&["Bearer 0123456789abcdef"]));
        assert!(is_in(&["bearer 0123456789abcdef"]));
        for wrong in [
            &[][..],
            &["Bearer 0123456789abcdeX"],
            &["Bearer 0123456789abcdef0"],
            &["Basic 0123456789abcdef"],
            &["0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ] {
            assert!(!is_in(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(!check_token_file(&path).unwrap());
        Token::read_or_create(&path, &Secrets::default()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().len(), 2 * CREATED);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(check_token_file(&path).unwrap());

        create(&path).unwrap();
        Token::read_or_create(&path, &Secrets::default()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "what is there stays");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        let nowhere = Token::read_or_create(&directory.path().join("none/token"), &Secrets::default());
        assert!(matches!(nowhere, Err(TokenError::Create { .. })));
    }

    #[test]
    fn bad_files_are_refused() {
        assert!(matches!(Token::read(Path::new("/nonexistent")), Err(TokenError::Read { .. })));
        assert!(matches!(
            Token::read(file("0123456789abcdef", 0o644).path()),
            Err(TokenError::Readable { .. })
        ));
        assert!(matches!(Token::read(file("short", 0o600).path()), Err(TokenError::Weak { .. })));
        assert!(matches!(
            Token::read(file("with a space in it", 0o600).path()),
            Err(TokenError::Weak { .. })
        ));
    }
}
