# Sourced by scripts that want the protocol authors' Python SDK, their time server, and pytest. Needs Python 3.10 or newer, which is
# why everything works without it.

readonly python_mcp=(mcp==2.3.0 mcp-server-time==2026.10.19 pytest==9.2.0)

# Installs it into a virtual environment at DIRECTORY, once. Where that cannot be, prints why and fails.
install_python_mcp() {
  local directory=$1 stamp=$1/installed log=$1.log
  if ! python3 -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    printf 'no Python 3.10 or newer with venv on PATH'
    return 1
  fi
  if [[ -f $stamp && $(<"$stamp") == "${python_mcp[*]}" ]]; then
    return
  fi
  rm -rf "$directory"
  if ! { python3 -m venv "$directory" &&
    timeout 180 "$directory/bin/pip" install --quiet --disable-pip-version-check --retries 1 "${python_mcp[@]}"; } \
    >"$log" 2>&1; then
    printf 'pip install failed: see %s' "$log"
    return 1
  fi
  printf '%s\n' "${python_mcp[*]}" >"$stamp"
}
