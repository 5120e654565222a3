//! The page in a real browser: what a person sees and reaches, and that it asks nobody else for anything.

use serde_json::json;

use super::super::support::browser::Browser;
use super::super::support::definitions::{built_in, example, remote};
use super::super::support::optional::chromium;
use super::super::support::{McpClient, Sidegate};
use super::near;

/// Texts whose contrast with what is behind them is below WCAG's AA (2.2, 1.4.3): 4.5 to 1.
const TOO_FAINT: &str = r#"(() => {
  const channels = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return {rgb: [r, g, b], a};
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const {rgb, a} = channels(getComputedStyle(e).backgroundColor);
      if (a === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const found = [];
  let count = 0;
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.checkVisibility && !element.checkVisibility()) continue;
    count += 1;
    const [a, b] = [luminance(channels(getComputedStyle(element).color).rgb), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return {count, found};
})()"#;

/// What can be pressed or filled in and has no name that can be read out.
const NAMELESS: &str = r#"[...document.querySelectorAll("a, button, input:not([type=hidden]), select, textarea, summary")]
  .filter((e) => !(e.textContent.trim() || e.labels?.length || e.getAttribute("aria-label"))).map((e) => e.outerHTML)"#;

/// How far the page is wider than its window.
const TOO_WIDE: &str = "document.documentElement.scrollWidth - document.documentElement.clientWidth";

async fn busy() -> Sidegate {
    near()
        .definition("all", &example("everything", &[]))
        .definition(
            "a-server-with-a-name-that-is-as-long-as-such-names-can-be-here",
            &remote("http://127.0.0.1:9/mcp"),
        )
        .definition("wrong", "kind: MCPServer\nspec: {type: stdio, comand: x}\n")
        .start()
        .await
}

/// Calls that go well, and calls that do not.
async fn call_some(sidegate: &Sidegate) {
    let client = McpClient::connect(sidegate.url()).await;
    for tool in ["x_near_now", "x_all_test_error_handling", "x_near_no_such_tool"] {
        client.call(tool, json!({})).await;
    }
}

#[tokio::test]
async fn it_can_be_read_and_reached_by_everyone() {
    let Some(chromium) = chromium() else { return };
    let sidegate = busy().await;
    let origin = sidegate.url().strip_suffix("/mcp").unwrap().to_owned();
    call_some(&sidegate).await;
    let mut browser = Browser::start(&chromium).await;
    for (width, dark) in [(400, false), (400, true), (1200, false), (1200, true)] {
        browser.look(width, dark).await;
        for path in [
            "/ui",
            "/ui/servers/all",
            "/ui/servers/wrong",
            "/ui/tools",
            "/ui/tool?name=x_all_json_schema_2020_12_tool",
            "/ui/tool?name=x_near_random_number",
            "/ui/calls",
            "/ui/logs",
            "/ui/gateway",
            "/ui/nothing",
        ] {
            browser.open(&format!("{origin}{path}")).await;
            let at = format!("{path}, {width} px, dark: {dark}");
            let contrast = browser.run(TOO_FAINT).await;
            assert!(contrast["count"].as_u64().unwrap() > 3, "{at}: {contrast}");
            assert_eq!(contrast["found"], json!([]), "{at}");
            assert_eq!(browser.run(TOO_WIDE).await, 0, "{at}");
            assert_eq!(browser.run(NAMELESS).await, json!([]), "{at}");
            assert_eq!(browser.run("document.querySelectorAll('h1').length").await, 1, "{at}");
            let twice = "(() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); \
                         return ids.length - new Set(ids).size; })()";
            assert_eq!(browser.run(twice).await, 0, "{at}");
        }
    }
    let foreign: Vec<String> =
        browser.requests().into_iter().filter(|url| !url.starts_with(&format!("{origin}/ui"))).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    // The page that is not there is the only thing to complain about.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|text| text.contains("404")), "{complaints:?}");
    assert_eq!(complaints.len(), 4, "{complaints:?}");
}

#[tokio::test]
async fn keys_are_enough() {
    let Some(chromium) = chromium() else { return };
    let sidegate = near().start().await;
    let origin = sidegate.url().strip_suffix("/mcp").unwrap().to_owned();
    let mut browser = Browser::start(&chromium).await;
    browser.look(1200, false).await;
    browser.open(&format!("{origin}/ui")).await;
    let focused = "document.activeElement.textContent";
    browser.press("Tab").await;
    assert_eq!(browser.run(focused).await, "Skip to the content");
    assert_eq!(browser.run("document.activeElement.getBoundingClientRect().top >= 0").await, true);
    browser.press("Enter").await;
    browser.press("Tab").await;
    assert_eq!(browser.run(focused).await, "near", "what follows is in the content");
    let mut seen = Vec::new();
    for _ in 0..3 {
        browser.press("Tab").await;
        seen.push(browser.run(focused).await.as_str().unwrap().to_owned());
    }
    assert_eq!(seen, ["7 tools of near", "Restart near", "Stop near"]);
    browser.press("Enter").await;
    browser.until("document.querySelector('.state')?.textContent === 'stopped'").await;
    assert!(sidegate.read("config/mcpservers/near.yaml").contains("suspended: true"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn it_follows_what_happens() {
    let Some(chromium) = chromium() else { return };
    let sidegate = near().definition("all", &example("everything", &[])).start().await;
    let origin = sidegate.url().strip_suffix("/mcp").unwrap().to_owned();
    let mut browser = Browser::start(&chromium).await;
    browser.open(&format!("{origin}/ui")).await;
    browser.run("document.getElementById('stop-near').focus()").await;
    sidegate.write_definition("later", &built_in());
    browser.until("document.querySelector('a[href=\"/ui/servers/later\"]') !== null").await;
    assert_eq!(browser.run("document.activeElement.id").await, "stop-near", "the focus stays");
    browser.until("document.getElementById('summary').textContent.includes('3 running')").await;

    browser.open(&format!("{origin}/ui/logs?of=all")).await;
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_all_stderr", json!({"text": "<b>said</b> meanwhile"})).await.result();
    browser
        .until("document.querySelector('.log')?.textContent.includes('<b>said</b> meanwhile') === true")
        .await;
    assert_eq!(browser.run("document.querySelectorAll('b').length").await, 0);
    assert_eq!(browser.complaints(), Vec::<String>::new());

    sidegate.kill().await;
    browser
        .until("document.getElementById('connection').textContent.startsWith('Sidegate does not answer')")
        .await;
    assert_eq!(browser.run("document.getElementById('connection').hidden").await, false);
}

#[tokio::test]
async fn a_tool_is_called_and_its_picture_seen() {
    let Some(chromium) = chromium() else { return };
    let sidegate = busy().await;
    let origin = sidegate.url().strip_suffix("/mcp").unwrap().to_owned();
    let mut browser = Browser::start(&chromium).await;
    browser.open(&format!("{origin}/ui/tool?name=x_near_calculate")).await;
    browser.run("document.querySelector('[name=\"arg.expression\"]').value = '6 * 7'").await;
    browser.go("document.querySelector('form.call button').click()").await;
    assert_eq!(browser.run("document.querySelector('.result').textContent.includes('42')").await, true);
    browser.until("document.activeElement.id === 'result'").await;

    browser.open(&format!("{origin}/ui/tool?name=x_all_test_image_content")).await;
    browser.go("document.querySelector('form.call button').click()").await;
    browser.until("document.querySelector('.result img')?.naturalWidth > 0").await;
    // A page without a picture allows none.
    browser.open(&format!("{origin}/ui/tool?name=x_near_now")).await;
    let blocked = "new Promise((done) => { const image = new Image(); image.onload = () => done('loaded'); \
                   image.onerror = () => done('blocked'); \
                   image.src = 'data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='; })";
    assert_eq!(browser.run(blocked).await, "blocked");
}

#[tokio::test]
async fn a_page_elsewhere_reaches_nothing() {
    let Some(chromium) = chromium() else { return };
    let (sidegate, other) = (near().start().await, Sidegate::builder().start().await);
    let origin = |sidegate: &Sidegate| sidegate.url().strip_suffix("/mcp").unwrap().to_owned();
    let (target, elsewhere) = (origin(&sidegate), origin(&other));
    let mut browser = Browser::start(&chromium).await;
    // Another port of the same host, and a text that holds no policy against it.
    browser.open(&format!("{elsewhere}/healthz")).await;
    let post = format!(
        "fetch('{target}/ui/servers/near/stop', {{method: 'POST', mode: 'no-cors', \
         body: new URLSearchParams({{csrf: 'guess'}})}}).then((answer) => answer.type, () => 'refused')"
    );
    assert!(["opaque", "refused"].contains(&browser.run(&post).await.as_str().unwrap()));
    let read = format!("fetch('{target}/ui').then((answer) => answer.text(), () => 'refused')");
    assert_eq!(browser.run(&read).await, "refused");
    let frame = format!(
        "new Promise((done) => {{ const frame = document.createElement('iframe'); frame.src = '{target}/ui'; \
         frame.onload = () => done(frame.contentDocument === null ? 'nothing' : 'something'); \
         document.body.append(frame); }})"
    );
    assert_eq!(browser.run(&frame).await, "nothing");
    browser.open(&format!("{target}/ui")).await;
    assert_eq!(browser.run("document.querySelector('.state').textContent").await, "running");
}

#[tokio::test]
async fn it_is_signed_in_to() {
    let Some(chromium) = chromium() else { return };
    let sidegate = near().config("aggregator: {tokenFile: token}\n").start().await;
    let token = fs_err::read_to_string(sidegate.ready.token_file.clone().unwrap()).unwrap();
    let origin = sidegate.url().strip_suffix("/mcp").unwrap().to_owned();
    let mut browser = Browser::start(&chromium).await;
    browser.open(&format!("{origin}/ui/tools")).await;
    assert_eq!(browser.run("document.title").await, "Sign in · Sidegate");
    browser.run(&format!("document.getElementById('token').value = '{}'", token.trim())).await;
    browser.go("document.querySelector('form button').click()").await;
    assert_eq!(browser.run("document.title").await, "Servers · Sidegate");
    assert_eq!(browser.run("document.cookie").await, "", "scripts do not see it");
    browser.go("document.querySelector('.sign-out button').click()").await;
    assert_eq!(browser.run("document.title").await, "Sign in · Sidegate");
}

/// Writes pictures of every page to the directory that `SIDEGATE_TEST_PICTURES` names:
/// `SIDEGATE_TEST_PICTURES=DIR cargo nextest run --run-ignored only -E 'test(pictures)'`.
#[tokio::test]
#[ignore = "makes pictures for people to look at"]
async fn pictures() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    let directory = std::path::PathBuf::from(std::env::var_os("SIDEGATE_TEST_PICTURES").unwrap());
    let chromium = chromium().expect("a browser");
    let sidegate = busy().await;
    let origin = sidegate.url().strip_suffix("/mcp").unwrap().to_owned();
    call_some(&sidegate).await;
    let mut browser = Browser::start(&chromium).await;
    for (width, dark) in [(400, false), (400, true), (1200, false), (1200, true)] {
        browser.look(width, dark).await;
        for (name, path) in [
            ("servers", "/ui"),
            ("server", "/ui/servers/all"),
            ("tools", "/ui/tools"),
            ("tool", "/ui/tool?name=x_all_json_schema_2020_12_tool"),
            ("form", "/ui/tool?name=x_near_random_number"),
            ("image", "/ui/tool?name=x_all_test_multiple_content_types"),
            ("calls", "/ui/calls"),
            ("logs", "/ui/logs?of=gateway"),
            ("gateway", "/ui/gateway"),
        ] {
            browser.open(&format!("{origin}{path}")).await;
            if name == "image" {
                browser.go("document.querySelector('form.call button').click()").await;
            }
            let file = format!("{name}-{width}-{}.png", if dark { "dark" } else { "light" });
            let out = fs_err::File::create(directory.join(file)).unwrap();
            let mut decode = Command::new("base64")
                .arg("-d")
                .stdin(Stdio::piped())
                .stdout(out.into_file())
                .spawn()
                .unwrap();
            decode.stdin.take().unwrap().write_all(browser.screenshot().await.as_bytes()).unwrap();
            assert!(decode.wait().unwrap().success());
        }
    }
}
