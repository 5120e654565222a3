//! What the page answers with: the headers of every answer, and refusals.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use maud::Markup;

use crate::wire::server::Body;

/// Nothing from elsewhere, nothing inline, forms to ourselves only, in no frame. Pictures in results of tools are in the
/// page itself; only pages that show one allow that.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
const POLICY_WITH_IMAGES: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// One answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// A page.
    Page { status: StatusCode, markup: Markup, has_images: bool },
    /// A file that belongs to the page.
    Asset { kind: &'static str, text: &'static str },
    /// Somewhere else on the page, after a form was taken.
    Go { to: String, cookie: Option<HeaderValue> },
}

impl Answer {
    /// An ordinary page.
    pub(super) fn page(markup: Markup) -> Self {
        Self::Page { status: StatusCode::OK, markup, has_images: false }
    }

    /// As HTTP.
    pub(super) fn into_response(self) -> Response<Body> {
        let (mut policy, mut headers) = (POLICY, HeaderMap::new());
        let (status, kind, body) = match self {
            Self::Page { status, markup, has_images } => {
                if has_images {
                    policy = POLICY_WITH_IMAGES;
                }
                if status == StatusCode::UNAUTHORIZED {
                    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                (status, "text/html; charset=utf-8", Body::text(markup.into_string()))
            }
            Self::Asset { kind, text } => (StatusCode::OK, kind, Body::text(text)),
            Self::Go { to, cookie } => {
                match HeaderValue::try_from(to) {
                    Ok(to) => headers.insert(header::LOCATION, to),
                    // Paths are made of names that are URL safe; if one is not, the way leads to the start.
                    Err(_) => headers.insert(header::LOCATION, HeaderValue::from_static(super::ROOT)),
                };
                if let Some(cookie) = cookie {
                    headers.insert(header::SET_COOKIE, cookie);
                }
                (StatusCode::SEE_OTHER, "text/plain; charset=utf-8", Body::empty())
            }
        };
        for (name, value) in [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // Not `no-referrer`: browsers then send `Origin: null` with our own forms (Fetch, "append a request Origin header").
            (header::REFERRER_POLICY, "same-origin"),
            (header::CACHE_CONTROL, "no-store"),
            (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The token was not given.
    #[error("sign in first")]
    SignedOut,
    /// It is another page's request.
    #[error(
        "this request comes from another page, so nothing was done; a proxy in front must pass the Host header on"
    )]
    Elsewhere,
    /// The form's secret is missing, or of another run.
    #[error(
        "this form is of an earlier run of Sidegate, so nothing was done; go back, reload the page and try again"
    )]
    OldForm,
    /// There is no such page.
    #[error("there is nothing here")]
    NothingHere,
    /// There is no such thing; it may have gone a moment ago.
    #[error("{0}")]
    NotFound(String),
    /// The path is for another method.
    #[error("this address does not take this method")]
    Method,
    /// The form cannot be read.
    #[error("{0}")]
    Form(String),
    /// It is larger than the limit.
    #[error("the form is larger than {0} KiB")]
    TooLarge(usize),
    /// There is too much to do already.
    #[error("too many calls from this page are under way; wait for one to end")]
    Busy,
    /// What was asked for did not work out.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::SignedOut => StatusCode::UNAUTHORIZED,
            Self::Elsewhere | Self::OldForm => StatusCode::FORBIDDEN,
            Self::NothingHere | Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Form(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
