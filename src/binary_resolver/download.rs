//! Downloading an asset: tries, resumption, the cap, hashing on the way.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::Duration;

use http::header::{CONTENT_RANGE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Response;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use url::Url;

use super::Digest;
use super::error::ResolveError;
use super::progress::{Event, Progress};
use super::transport::{Rest, Transport, shown, transfer_failed};

/// The bounds of a download.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// How long connecting may take.
    pub connect: Duration,
    /// How long a server may be silent. There is no limit on the whole: a slow line is no fault.
    pub idle: Duration,
    /// How often a download is tried.
    pub tries: u32,
    /// The pause before the second try; it doubles with each try and varies by a quarter.
    pub backoff: Duration,
    /// How large an asset may be, in bytes.
    pub max_size: u64,
    /// How many redirects are followed for one request.
    pub max_redirects: usize,
    /// How long a given binary may take to say its version.
    pub probe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            tries: 3,
            backoff: Duration::from_secs(1),
            max_size: 512 * 1024 * 1024,
            max_redirects: 5,
            probe: Duration::from_secs(10),
        }
    }
}

/// Downloads what is at `url` into `file`.
///
/// Returns when everything is written and has the digest `expected`; the file is not synced yet.
pub(super) async fn download(
    url: &Url,
    expected: Digest,
    file: &NamedTempFile,
    transport: &Transport,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<(), ResolveError> {
    let mut partial = Partial::new(file)?;
    let mut attempt = 1;
    loop {
        let error = match partial.receive(url, transport, limits, progress).await {
            Ok(from) => match partial.finish().await? {
                actual if actual == expected => return Ok(()),
                // Two versions of the asset may have been joined, by a server that changed it without saying so.
                actual if partial.resumed && attempt < limits.tries => {
                    partial.reset().await?;
                    ResolveError::DownloadMismatch { url: from, expected, actual }
                }
                actual => return Err(ResolveError::DownloadMismatch { url: from, expected, actual }),
            },
            Err(error) if !error.is_transient() => return Err(error),
            Err(error) => error,
        };
        if attempt == limits.tries {
            return Err(ResolveError::GaveUp { url: shown(url), tries: attempt, source: Box::new(error) });
        }
        let delay = pause(limits.backoff, attempt);
        attempt += 1;
        progress.report(Event::Retrying { error: &error, attempt, delay });
        tokio::time::sleep(delay).await;
    }
}

/// The pause after the given number of failed tries.
fn pause(base: Duration, failed: u32) -> Duration {
    let whole = base.saturating_mul(1 << failed.saturating_sub(1).min(6));
    // Without randomness from the system all instances retry together, which is no reason to fail.
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    whole.mul_f64(0.75 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

/// What has arrived so far.
struct Partial {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    bytes: u64,
    /// Names the version of the asset the bytes are of, where the server gave it a name that can be relied on.
    validator: Option<HeaderValue>,
    /// Whether the bytes came in more than one piece.
    resumed: bool,
}

impl Partial {
    fn new(file: &NamedTempFile) -> Result<Self, ResolveError> {
        let handle = file.as_file().try_clone().map_err(ResolveError::io("opening", file.path()))?;
        Ok(Self {
            file: File::from_std(handle),
            path: file.path().to_owned(),
            hasher: Sha256::new(),
            bytes: 0,
            validator: None,
            resumed: false,
        })
    }

    /// One try. Returns where the bytes came from, for messages.
    async fn receive(
        &mut self,
        url: &Url,
        transport: &Transport,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> Result<String, ResolveError> {
        let rest = self.validator.clone().map(|validator| Rest { from: self.bytes, validator });
        let rest = rest.filter(|rest| rest.from > 0);
        let mut response = transport.get(url, rest.as_ref()).await?;
        let from = response.url().clone();
        let total = self.accept(&response, &from, rest.as_ref()).await?;

        let too_large = || ResolveError::TooLarge { url: shown(&from), limit: limits.max_size };
        if total.is_some_and(|total| total > limits.max_size) {
            return Err(too_large());
        }
        progress.report(Event::Started { url: &shown(&from), total, resumed_at: self.bytes });
        while let Some(chunk) =
            response.chunk().await.map_err(|source| transfer_failed(&from, self.bytes, source))?
        {
            if self.bytes + chunk.len() as u64 > limits.max_size {
                return Err(too_large());
            }
            self.file.write_all(&chunk).await.map_err(ResolveError::io("writing", &self.path))?;
            self.hasher.update(&chunk);
            self.bytes += chunk.len() as u64;
            progress.report(Event::Received { bytes: self.bytes, total });
        }
        Ok(shown(&from))
    }

    /// Makes what is here fit to what the answer brings: the whole asset or the rest. Returns the size of the whole.
    async fn accept(
        &mut self,
        response: &Response,
        from: &Url,
        rest: Option<&Rest>,
    ) -> Result<Option<u64>, ResolveError> {
        match (response.status(), rest) {
            (StatusCode::OK, _) => {
                self.reset().await?;
                self.validator = validator(response.headers());
                Ok(response.content_length())
            }
            (StatusCode::PARTIAL_CONTENT, Some(rest)) => match continuation(response.headers(), rest) {
                Some(total) => {
                    self.resumed = true;
                    Ok(Some(total))
                }
                None => {
                    self.reset().await?;
                    Err(ResolveError::BadRange { url: shown(from) })
                }
            },
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
                self.reset().await?;
                Err(ResolveError::BadRange { url: shown(from) })
            }
            (status, _) => Err(ResolveError::Status { url: shown(from), status }),
        }
    }

    /// Forgets what has arrived.
    async fn reset(&mut self) -> Result<(), ResolveError> {
        if self.bytes > 0 {
            let failed = || ResolveError::io("writing", &self.path);
            self.file.flush().await.map_err(failed())?;
            self.file.set_len(0).await.map_err(failed())?;
            self.file.seek(SeekFrom::Start(0)).await.map_err(failed())?;
        }
        self.hasher.reset();
        self.bytes = 0;
        self.validator = None;
        self.resumed = false;
        Ok(())
    }

    /// The digest of what has arrived, all of which is handed to the kernel now.
    async fn finish(&mut self) -> Result<Digest, ResolveError> {
        self.file.flush().await.map_err(ResolveError::io("writing", &self.path))?;
        Ok(Digest::new(self.hasher.finalize_reset().into()))
    }
}

/// What names this version of the asset byte for byte. A weak ETag does not.
fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    let strong = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
    strong.or_else(|| headers.get(LAST_MODIFIED)).cloned()
}

/// The size of the whole asset, when a 206 answer brings the rest of the version that we have: `bytes 500-999/1000`.
fn continuation(headers: &HeaderMap, rest: &Rest) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (span, total) = range.split_once('/')?;
    let (start, end) = span.split_once('-')?;
    let (start, end, total): (u64, u64, u64) = (start.parse().ok()?, end.parse().ok()?, total.parse().ok()?);
    let same_version = validator(headers).is_none_or(|validator| validator == rest.validator);
    (start == rest.from && end.checked_add(1) == Some(total) && same_version).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_strong_names_are_relied_on() {
        let date = "Tue, 01 Jul 2025 00:00:00 GMT";
        assert_eq!(validator(&headers(&[(ETAG, "\"a\""), (LAST_MODIFIED, date)])).unwrap(), "\"a\"");
        assert_eq!(validator(&headers(&[(ETAG, "W/\"a\""), (LAST_MODIFIED, date)])).unwrap(), date);
        assert_eq!(validator(&headers(&[(ETAG, "W/\"a\"")])), None);
    }

    #[test]
    fn a_continuation_begins_where_we_are_and_ends_at_the_end() {
        let rest = Rest { from: 500, validator: HeaderValue::from_static("\"a\"") };
        for (range, tag, expected) in [
            ("bytes 500-999/1000", Some("\"a\""), Some(1000)),
            ("bytes 500-999/1000", None, Some(1000)),
            ("bytes 500-999/1000", Some("\"b\""), None),
            ("bytes 0-999/1000", Some("\"a\""), None),
            ("bytes 500-900/1000", Some("\"a\""), None),
            ("bytes 500-999/*", Some("\"a\""), None),
            ("bytes */1000", Some("\"a\""), None),
            ("bytes 500-18446744073709551615/0", None, None),
        ] {
            let mut pairs = vec![(CONTENT_RANGE, range)];
            pairs.extend(tag.map(|tag| (ETAG, tag)));
            assert_eq!(continuation(&headers(&pairs), &rest), expected, "{range} {tag:?}");
        }
    }

    #[test]
    fn pauses_double_and_vary_by_a_quarter() {
        for (failed, middle) in [(1, 1000), (2, 2000), (3, 4000), (60, 64000)] {
            let pause = pause(Duration::from_secs(1), failed).as_millis();
            assert!((middle * 3 / 4..=middle * 5 / 4).contains(&pause), "{failed}: {pause}");
        }
    }
}
