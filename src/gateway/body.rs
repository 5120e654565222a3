//! Response bodies.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::{Lease, poll_body};

/// A body of our own, or one that passes through.
pub(super) enum ResponseBody {
    Own(Bytes),
    Upstream {
        // Before the lease: what it leaves unread is seen by the connection before it is judged reusable.
        incoming: Incoming,
        lease: Lease,
    },
}

impl ResponseBody {
    pub(super) const EMPTY: Self = Self::Own(Bytes::new());
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Upstream { incoming, lease } => {
                poll_body(lease, cx, |cx| Pin::new(&mut *incoming).poll_frame(cx))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_empty(),
            Self::Upstream { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream { incoming, .. } => incoming.size_hint(),
        }
    }
}
