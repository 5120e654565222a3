//! What somebody at a terminal sees while a command waits for more than a second.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{sleep, timeout};

use super::output::{say_error, shown};

/// Nothing is shown before: what comes soon needs no explanation.
const FIRST: Duration = Duration::from_secs(1);

/// How often is looked what is waited for.
const AGAIN: Duration = Duration::from_millis(500);

/// How often the line is drawn again.
const TICK: Duration = Duration::from_millis(100);

/// Waits for `answer`. Where stderr is a terminal, what `now` says is shown there after a second, and is gone with the answer.
pub(super) async fn patiently<T>(answer: impl Future<Output = T>, now: impl AsyncFn() -> String) -> T {
    tokio::pin!(answer);
    if !std::io::stderr().is_terminal() {
        return answer.await;
    }
    if let Ok(answer) = timeout(FIRST, &mut answer).await {
        return answer;
    }
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
    let line = ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        .with_elapsed(FIRST);
    let (mut pause, mut known) = (Duration::ZERO, String::new());
    loop {
        let look = async {
            sleep(pause).await;
            now().await
        };
        tokio::select! {
            biased;
            answer = &mut answer => {
                line.finish_and_clear();
                return answer;
            }
            text = look => {
                line.set_message(shown(&text, true).replace('\n', " "));
                // From now on: there is nothing to see before.
                line.enable_steady_tick(TICK);
                if line.is_hidden() && text != known {
                    // A terminal on which lines cannot be drawn again.
                    say_error(&text);
                    known = text;
                }
            }
        }
        pause = AGAIN;
    }
}
