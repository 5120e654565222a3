// Sidegate for tests: an instance with its own port, directory, key and logs, which leaves nothing behind.
//
// Nothing but Node's own library is needed, and the `sidegate` binary: on PATH, or named by SIDEGATE_BINARY.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

export const binary = process.env.SIDEGATE_BINARY ?? "sidegate";

// Starts an instance. Servers are the `spec` of definitions, by name:
//
//   const sidegate = await start({ time: { type: "stdio", command: "uvx", args: ["mcp-server-time"] } });
//   console.log(sidegate.url);
//   await sidegate.stop();
export async function start(servers = {}, options = []) {
  const directory = await mkdtemp(join(tmpdir(), "sidegate-config-"));
  await mkdir(join(directory, "mcpservers"));
  for (let [name, spec] of Object.entries(servers)) {
    // What is relative is meant from here, not from the directory of definitions.
    if (spec.type === "stdio") spec = { cwd: process.cwd(), ...spec };
    const resource = { apiVersion: "sidegate.dev/v1alpha1", kind: "MCPServer", spec };
    // JSON is YAML.
    await writeFile(join(directory, "mcpservers", `${name}.yaml`), JSON.stringify(resource));
  }
  const args = ["serve", "--ephemeral", "--output", "json", "--wait", "servers", "--config-dir", directory];
  // It ends by itself when this process ends, however that happens.
  const child = spawn(binary, [...args, ...options], { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (log += text));
  const ended = once(child, "close");
  // One line when it is ready; none when it cannot start.
  const lines = createInterface({ input: child.stdout });
  const line = await Promise.race([once(lines, "line"), ended.then(() => undefined)]);
  if (line === undefined) {
    await rm(directory, { recursive: true });
    throw new Error(`sidegate did not start:\n${log}`);
  }
  const { url, runtimeDir } = JSON.parse(line[0]);

  // Runs another command of the binary on this instance, and gives what it prints.
  const run = async (command, ...rest) => {
    const done = await promisify(execFile)(binary, [command, "--runtime-dir", runtimeDir, ...rest]);
    return JSON.parse(done.stdout);
  };
  return {
    url,
    runtimeDir,
    log: () => log,
    tools: async () => (await run("tools", "--output", "json")).tools.map((tool) => tool.name),
    call: (tool, args = {}) => run("call", tool, "--json", JSON.stringify(args), "--output", "json"),
    stop: async () => {
      child.kill("SIGTERM");
      await ended;
      await rm(directory, { recursive: true });
    },
  };
}
