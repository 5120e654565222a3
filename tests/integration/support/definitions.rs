//! Definitions of the servers that tests use.

use std::fmt::Write;
use std::path::Path;

use super::example_path;
use super::sidegate::binary;

const HEAD: &str = "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec:\n";

/// A stdio server that is one of this package's examples.
pub(crate) fn example(name: &str, arguments: &[&str]) -> String {
    stdio(example_path(name).to_str().unwrap(), arguments)
}

/// The server that is built into the binary.
pub(crate) fn built_in() -> String {
    stdio(binary().to_str().unwrap(), &["example-server"])
}

/// A stdio server.
pub(crate) fn stdio(command: &str, arguments: &[&str]) -> String {
    // A list in JSON is one in YAML, too.
    let arguments = serde_json::to_string(arguments).unwrap();
    format!("{HEAD}  type: stdio\n  command: {command:?}\n  args: {arguments}\n")
}

/// A server over HTTP.
pub(crate) fn remote(url: &str) -> String {
    format!("{HEAD}  type: streamable-http\n  url: {url:?}\n")
}

/// A server that speaks the HTTP+SSE transport of 2024-11-05.
pub(crate) fn sse(url: &str) -> String {
    format!("{HEAD}  type: sse\n  url: {url:?}\n")
}

/// A definition with this text as its `spec`, right or wrong.
pub(crate) fn spec(text: &str) -> String {
    format!("{}{text}\n", HEAD.replace("spec:\n", "spec: "))
}

/// The same definition with one more line in its `spec`.
pub(crate) fn with(mut definition: String, line: &str) -> String {
    writeln!(definition, "  {line}").unwrap();
    definition
}

/// A stdio server whose only tool says that it has begun, and answers when a file is there.
pub(crate) fn waiting_server(go: &Path) -> String {
    let script = r#"
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case $line in
    *'"initialize"'*) result='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"0"}}' ;;
    *'"tools/list"'*) result='{"tools":[{"name":"wait","inputSchema":{"type":"object"}}]}' ;;
    *'"tools/call"'*)
      token=$(printf '%s' "$line" | sed -n 's/.*"progressToken":\([0-9]*\).*/\1/p')
      printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1}}\n' "$token"
      while [ ! -e "$1" ]; do sleep 0.02; done
      result='{"content":[{"type":"text","text":"'$$$$'"}]}' ;;
    *) continue ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
"#;
    stdio("/bin/sh", &["-c", script, "sh", go.to_str().unwrap()])
}
