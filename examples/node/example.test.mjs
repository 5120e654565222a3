// Tests of something that uses MCP servers; here they call tools themselves.
//
// Run them with `node --test examples/node/`.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";

import { binary, start } from "./sidegate.mjs";

// A test double: the small server that the binary holds. Yours is a command or a URL.
const example = { type: "stdio", command: binary, args: ["example-server"] };

let sidegate;
before(async () => {
  sidegate = await start({ math: example });
});
after(() => sidegate.stop());

test("a tool can be called", async () => {
  assert.match(sidegate.url, /^http:\/\/127\.0\.0\.1:\d+\/mcp$/);
  const result = await sidegate.call("x_math_calculate", { expression: "2*(3+4)" });
  assert.deepEqual(result.structuredContent, { value: 14 });
});

test("instances do not know of each other, and leave nothing behind", async () => {
  const other = await start({ other: example });
  assert.ok((await other.tools()).includes("x_other_calculate"));
  assert.ok(!(await sidegate.tools()).some((name) => name.includes("other")));
  await other.stop();
  assert.ok(!existsSync(other.runtimeDir));
});

test("what is wrong is said", async () => {
  await assert.rejects(start({}, ["--listen", "nowhere"]), /sidegate did not start/);
});
