"""Sidegate for tests: an instance with its own port, directory, key and logs, which leaves nothing behind.

Nothing but Python's own library is needed, and the `sidegate` binary: on PATH, or named by SIDEGATE_BINARY.
"""

import json
import os
import pathlib
import subprocess
import tempfile


class Sidegate:
    """A running instance. Servers are the `spec` of definitions, by name:

    with Sidegate({"time": {"type": "stdio", "command": "uvx", "args": ["mcp-server-time"]}}) as sidegate:
        print(sidegate.url)
    """

    def __init__(self, servers, options=(), binary=None):
        self.binary = binary or os.environ.get("SIDEGATE_BINARY", "sidegate")
        self._servers = servers
        self._options = list(options)

    def __enter__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="sidegate-config-")
        try:
            self._start(pathlib.Path(self._directory.name))
        except BaseException:
            self._directory.cleanup()
            raise
        return self

    def _start(self, directory):
        definitions = directory / "mcpservers"
        definitions.mkdir()
        for name, spec in self._servers.items():
            if spec.get("type") == "stdio":
                # What is relative is meant from here, not from the directory of definitions.
                spec = {"cwd": os.getcwd(), **spec}
            resource = {"apiVersion": "sidegate.dev/v1alpha1", "kind": "MCPServer", "spec": spec}
            # JSON is YAML.
            (definitions / f"{name}.yaml").write_text(json.dumps(resource))
        self._stderr = open(directory / "stderr", "w+")
        command = [self.binary, "serve", "--ephemeral", "--output", "json", "--wait", "servers"]
        # It ends by itself when this process ends, however that happens.
        self._process = subprocess.Popen(
            [*command, "--config-dir", directory, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        # One line when it is ready; none when it cannot start.
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"sidegate did not start:\n{self.log()}")
        ready = json.loads(line)
        self.url = ready["url"]
        self.runtime_dir = ready["runtimeDir"]

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()
        self._stderr.close()
        self._directory.cleanup()

    def run(self, *arguments):
        """Runs another command of the binary on this instance, and gives what it prints."""
        command = [self.binary, arguments[0], "--runtime-dir", self.runtime_dir, *arguments[1:]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr or done.stdout)
        return done.stdout

    def tools(self):
        """The names of all tools."""
        return [tool["name"] for tool in json.loads(self.run("tools", "--output", "json"))["tools"]]

    def call(self, tool, **arguments):
        """Calls a tool; gives its result."""
        return json.loads(self.run("call", tool, "--json", json.dumps(arguments), "--output", "json"))

    def log(self):
        """What it has written to stderr so far."""
        self._stderr.flush()
        return pathlib.Path(self._stderr.name).read_text()
