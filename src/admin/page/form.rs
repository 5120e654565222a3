//! Forms and queries, as browsers send them.

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use url::form_urlencoded;

use super::answer::Refusal;

/// Bytes that a form may have.
pub(super) const LARGEST: usize = 1 << 20;

/// The field that carries the secret of forms.
pub(super) const SECRET: &str = "csrf";

/// Names and values in the order they came.
#[derive(Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the query of an address.
    pub(super) fn of_query(query: Option<&str>) -> Self {
        Self::parse(query.unwrap_or_default().as_bytes())
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    ///
    /// It is no form, or too large.
    pub(super) async fn read<B>(headers: &HeaderMap, body: B) -> Result<Self, Refusal>
    where
        B: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
    {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal::Form("the body is no form".to_owned()));
        }
        match Limited::new(body, LARGEST).collect().await {
            Ok(body) => Ok(Self::parse(&body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge(LARGEST / 1024)),
            Err(error) => Err(Refusal::Form(format!("the form could not be read: {error}"))),
        }
    }

    fn parse(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// The first value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The number of a page, counted from 1.
    pub(super) fn page(&self) -> usize {
        self.get("page").and_then(|page| page.parse().ok()).unwrap_or(1).max(1)
    }
}

/// An address on the page, with a query.
pub(super) fn address(path: &str, query: &[(&str, &str)]) -> String {
    let given = query.iter().filter(|(_, value)| !value.is_empty());
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_any_name() {
        let name = "a b&c=d\"<é>/../?#%";
        let address = address("/ui/tool", &[("name", name), ("q", "")]);
        assert!(
            address.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>#".contains(&byte)),
            "{address}"
        );
        let form = Form::of_query(address.split_once('?').map(|(_, query)| query));
        assert_eq!((form.get("name"), form.get("q")), (Some(name), None));
    }

    #[test]
    fn pages_begin_with_one() {
        for (query, page) in [("page=3", 3), ("page=0", 1), ("page=-1", 1), ("page=x", 1), ("", 1)] {
            assert_eq!(Form::of_query(Some(query)).page(), page);
        }
    }
}
