// A full round of the official TypeScript SDK's client.
//
// round.mjs SDK URL PREPARED DEFINITION: SDK is the directory of @modelcontextprotocol/sdk; moving the file PREPARED to
// DEFINITION adds the server `late`. Prints the name of each step that it has done, and last the process id of its own
// session's server. What is not as it should be is an exception. The servers behind URL are in mod.rs, and so are the steps.

import assert from "node:assert/strict";
import { rename } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [sdk, url, prepared, definition] = process.argv.slice(2);
const load = (module) => import(pathToFileURL(`${sdk}/dist/esm/${module}`));
const { Client } = await load("client/index.js");
const { StreamableHTTPClientTransport } = await load("client/streamableHttp.js");
const types = await load("types.js");

const LIMIT = 30_000;
const WATCHED = "test://watched-resource";

// What it was told outside of answers, by kind.
const heard = new Map();
const kind = (name) => heard.get(name) ?? heard.set(name, []).get(name);
const pause = () => new Promise((resume) => setTimeout(resume, 5));

// The first `count` of a kind, which are then forgotten.
async function waitFor(name, count) {
  const deadline = Date.now() + LIMIT;
  while (kind(name).length < count) {
    assert(Date.now() < deadline, `${name}: ${kind(name).length} of ${count}`);
    await pause();
  }
  return kind(name).splice(0, count);
}

const client = new Client(
  { name: "round", version: "1" },
  { capabilities: { sampling: {}, elicitation: {} } },
);
client.setRequestHandler(types.CreateMessageRequestSchema, ({ params }) => {
  const asked = params.messages[0].content.text;
  return { role: "assistant", model: "none", content: { type: "text", text: `an answer to ${asked}` } };
});
client.setRequestHandler(types.ElicitRequestSchema, ({ params }) => {
  const filled = { username: "ü", email: "u@example.org", name: "Zoë" };
  const asked = params.requestedSchema.required;
  return { action: "accept", content: Object.fromEntries(asked.map((name) => [name, filled[name]])) };
});
for (const [name, schema] of Object.entries({
  log: types.LoggingMessageNotificationSchema,
  updated: types.ResourceUpdatedNotificationSchema,
  tools: types.ToolListChangedNotificationSchema,
  prompts: types.PromptListChangedNotificationSchema,
  resources: types.ResourceListChangedNotificationSchema,
})) {
  client.setNotificationHandler(schema, ({ params }) => void kind(name).push(params));
}

const call = (name, args = {}, options = {}) =>
  client.callTool({ name, arguments: args }, undefined, { timeout: LIMIT, ...options });
const text = (result) => result.content[0].text;

async function everyPage(listPage, member) {
  const items = [];
  let cursor;
  do {
    const page = await listPage({ cursor });
    items.push(...page[member]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return items;
}
const tools = async () =>
  (await everyPage((page) => client.listTools(page), "tools")).map(({ name }) => name);
const prompts = async () =>
  (await everyPage((page) => client.listPrompts(page), "prompts")).map(({ name }) => name);
const resources = async () =>
  (await everyPage((page) => client.listResources(page), "resources")).map(({ uri }) => uri);
const templates = async () =>
  (await everyPage((page) => client.listResourceTemplates(page), "resourceTemplates")).map(
    ({ uriTemplate }) => uriTemplate,
  );
function includes(list, ...wanted) {
  for (const item of wanted) assert(list.includes(item), `${item} is not in ${list}`);
}

const transport = new StreamableHTTPClientTransport(new URL(url));
const steps = {
  async initialize() {
    await client.connect(transport);
    assert.equal(client.getServerVersion().name, "sidegate");
    assert.equal(transport.protocolVersion, "2025-11-25");
    await client.ping();
  },

  async lists() {
    includes(
      await tools(),
      "x_time_get_current_time",
      "x_npm_echo",
      "x_far_echo",
      "x_near_echo",
      "x_own_pid",
    );
    includes(await prompts(), "x_npm_args-prompt", "x_far_test_simple_prompt", "x_near_test_simple_prompt");
    const document = "demo://resource/static/document/features.md";
    includes(await resources(), document, "test://static-text", "near+test://static-text");
    includes(await templates(), "demo://resource/dynamic/text/{resourceId}", "test://template/{id}/data");
  },

  async calls() {
    const zones = { source_timezone: "UTC", time: "12:00", target_timezone: "Asia/Tokyo" };
    const converted = await call("x_time_convert_time", zones);
    assert.equal(converted.structuredContent.time_difference, "+9.0h");
    assert.equal(text(await call("x_npm_echo", { message: "ü 🦀" })), "Echo: ü 🦀");
    for (const server of ["far", "near"]) {
      const args = { b: [1, null], a: server };
      assert.deepEqual((await call(`x_${server}_echo`, args)).structuredContent, args);
      assert.equal((await call(`x_${server}_test_error_handling`)).isError, true);
    }
    const picture = await call("x_npm_get-tiny-image");
    assert(picture.content.some(({ type }) => type === "image"));
    await assert.rejects(call("x_far_nope"), { code: types.ErrorCode.InvalidParams });
  },

  async prompts() {
    const city = await client.getPrompt({ name: "x_npm_args-prompt", arguments: { city: "Genève" } });
    assert.equal(city.messages[0].content.text, "What's weather in Genève?");
    const name = "x_near_test_prompt_with_arguments";
    const both = await client.getPrompt({ name, arguments: { arg1: "a", arg2: "b" } });
    assert.equal(both.messages[0].content.text, "Prompt with arguments: arg1='a', arg2='b'");
  },

  async resources() {
    for (const uri of ["test://static-text", "near+test://static-text"]) {
      const [contents] = (await client.readResource({ uri })).contents;
      assert.equal(contents.uri, uri);
      assert.equal(contents.text, "This is the content of the static text resource.");
    }
    assert((await client.readResource({ uri: "test://static-binary" })).contents[0].blob);
  },

  async templates() {
    for (const [uri, part] of [
      ["test://template/7/data", "Data for ID: 7"],
      ["demo://resource/dynamic/text/3", "Resource 3:"],
    ]) {
      const [contents] = (await client.readResource({ uri })).contents;
      assert.equal(contents.uri, uri);
      assert(contents.text.includes(part), contents.text);
    }
  },

  async subscriptions() {
    for (const [server, uri] of [
      ["far", WATCHED],
      ["near", `near+${WATCHED}`],
    ]) {
      const touch = async () => (await call(`x_${server}_touch_resource`, { uri: WATCHED })).structuredContent;
      await client.subscribeResource({ uri });
      assert.deepEqual(await touch(), { subscribers: 1 });
      assert.deepEqual(await waitFor("updated", 1), [{ uri }]);
      await client.unsubscribeResource({ uri });
      assert.deepEqual(await touch(), { subscribers: 0 });
    }
  },

  async completion() {
    const complete = async (ref, name, value, context) =>
      (await client.complete({ ref, argument: { name, value }, context })).completion.values;
    const prompt = { type: "ref/prompt", name: "x_npm_completable-prompt" };
    assert.deepEqual(await complete(prompt, "department", "S"), ["Sales", "Support"]);
    const chosen = { arguments: { department: "Sales" } };
    assert.deepEqual(await complete(prompt, "name", "E", chosen), ["Eve"]);
    const template = { type: "ref/resource", uri: "test://template/{id}/data" };
    assert.deepEqual(await complete(template, "id", "par"), ["paris", "park", "party"]);
  },

  async logging() {
    const said = ["Tool execution started", "Tool processing data", "Tool execution completed"];
    for (const server of ["far", "near"]) {
      await client.setLoggingLevel("info");
      await call(`x_${server}_test_tool_with_logging`);
      const logged = (await waitFor("log", 3)).map(({ level, data }) => [level, data]);
      assert.deepEqual(
        logged,
        said.map((line) => ["info", line]),
      );
      await client.setLoggingLevel("error");
      await call(`x_${server}_test_tool_with_logging`);
    }
    assert.deepEqual(kind("log"), []);
  },

  async progress() {
    const followed = async (name, args) => {
      const steps = [];
      await call(name, args, { onprogress: ({ progress, total }) => steps.push([progress, total]) });
      return steps;
    };
    for (const server of ["far", "near"]) {
      assert.deepEqual(await followed(`x_${server}_test_tool_with_progress`), [
        [0, 100],
        [50, 100],
        [100, 100],
      ]);
    }
    const steps = await followed("x_npm_trigger-long-running-operation", { duration: 0.2, steps: 4 });
    assert.deepEqual(steps, [
      [1, 4],
      [2, 4],
      [3, 4],
      [4, 4],
    ]);
  },

  async cancellation() {
    for (const server of ["far", "near"]) {
      const counted = async (what, number) => {
        const deadline = Date.now() + LIMIT;
        while ((await call(`x_${server}_sleep_counts`)).structuredContent[what] !== number) {
          assert(Date.now() < deadline, `${what} was not ${number}`);
        }
      };
      const cancel = new AbortController();
      const sleeping = call(`x_${server}_sleep`, { ms: 600_000 }, { signal: cancel.signal });
      const cancelled = assert.rejects(sleeping, /enough/);
      await counted("running", 1);
      cancel.abort(new Error("enough"));
      await cancelled;
      await counted("cancelled", 1);
    }
  },

  async sampling() {
    for (const server of ["far", "near"]) {
      const answered = await call(`x_${server}_test_sampling`, { prompt: "a question" });
      assert.equal(text(answered), "LLM response: an answer to a question");
    }
    const answered = text(await call("x_npm_trigger-sampling-request", { prompt: "a question" }));
    assert(answered.includes("an answer to Resource trigger-sampling-request context: a question"), answered);
  },

  async elicitation() {
    for (const server of ["far", "near"]) {
      const answered = text(await call(`x_${server}_test_elicitation`, { message: "who?" }));
      for (const part of ["action=accept", '"username":"ü"', '"email":"u@example.org"']) {
        assert(answered.includes(part), answered);
      }
    }
    const answered = await call("x_npm_trigger-elicitation-request");
    assert.equal(answered.content[1].text, "User inputs:\n- Name: Zoë");
  },

  async changes() {
    await rename(prepared, definition);
    for (const name of ["tools", "prompts", "resources"]) await waitFor(name, 1);
    includes(await tools(), "x_late_echo");
    includes(await prompts(), "x_late_test_simple_prompt");
    includes(await resources(), "late+test://static-text");
    assert.deepEqual((await call("x_late_echo", { n: 1 })).structuredContent, { n: 1 });
  },
};

for (const [name, step] of Object.entries(steps)) {
  await step();
  console.log(name);
}
const own = (await call("x_own_pid")).structuredContent.pid;
await transport.terminateSession();
await client.close();
console.log("close");
console.log(own);
