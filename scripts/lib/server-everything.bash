# Sourced by scripts that want @modelcontextprotocol/server-everything, the reference server of the protocol's authors, and
# their TypeScript SDK. Needs Node, which is why everything works without it.

readonly server_everything=(@modelcontextprotocol/server-everything@2026.1.26 @modelcontextprotocol/sdk@1.32.2)

# Installs it below DIRECTORY, once. Where that cannot be, prints why and fails.
install_server_everything() {
  local directory=$1 stamp=$1/installed
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    printf 'no node and npm on PATH'
    return 1
  fi
  if [[ -f $stamp && $(<"$stamp") == "${server_everything[*]}" ]]; then
    return
  fi
  rm -rf "$directory"
  mkdir -p "$directory"
  local options=(--prefix "$directory" --no-save --no-audit --no-fund --ignore-scripts --loglevel error)
  if ! timeout 180 npm install "${options[@]}" "${server_everything[@]}" >"$directory/install.log" 2>&1; then
    printf 'npm install failed: see %s' "$directory/install.log"
    return 1
  fi
  printf '%s\n' "${server_everything[*]}" >"$stamp"
}
