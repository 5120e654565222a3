"""A full round of the official Python SDK's client.

round.py URL PREPARED DEFINITION, where moving the file PREPARED to DEFINITION adds the server `late`. Prints the name of
each step that it has done, and last the process id of its own session's server. What is not as it should be is an
exception. The servers behind URL are in mod.rs, and so are the steps.
"""

import os
import sys
import warnings

import anyio
from mcp import Client, MCPError, types

LIMIT = 30
WATCHED = "test://watched-resource"
# What it was told outside of answers, by kind.
heard: dict[str, list] = {}


def hear(kind, what):
    heard.setdefault(kind, []).append(what)


async def wait_for(kind, count):
    """The first `count` of a kind, which are then forgotten."""
    with anyio.fail_after(LIMIT):
        while len(heard.get(kind, [])) < count:
            await anyio.sleep(0.005)
    taken, heard[kind] = heard[kind][:count], heard[kind][count:]
    return taken


def equal(left, right):
    assert left == right, f"{left!r} is not {right!r}"


def done(step):
    print(step, flush=True)


async def on_message(message):
    hear(type(message).__name__, message)


async def on_log(params):
    hear("log", (params.level, params.data))


async def sample(_context, params):
    asked = params.messages[0].content.text
    answer = types.TextContent(type="text", text=f"an answer to {asked}")
    return types.CreateMessageResult(role="assistant", content=answer, model="none")


async def elicit(_context, params):
    filled = {"username": "ü", "email": "u@example.org", "name": "Zoë"}
    asked = params.requested_schema["required"]
    return types.ElicitResult(action="accept", content={name: filled[name] for name in asked})


def text(result):
    return result.content[0].text


async def every_page(list_page, member):
    items, cursor = [], None
    while True:
        page = await list_page(cursor=cursor)
        items += getattr(page, member)
        cursor = page.next_cursor
        if cursor is None:
            return items


def names(items):
    return {item.name for item in items}


async def lists(client):
    tools = names(await every_page(client.list_tools, "tools"))
    assert {"x_time_get_current_time", "x_npm_echo", "x_far_echo", "x_near_echo", "x_own_pid"} <= tools, tools
    prompts = names(await every_page(client.list_prompts, "prompts"))
    assert {"x_npm_args-prompt", "x_far_test_simple_prompt", "x_near_test_simple_prompt"} <= prompts, prompts
    resources = {str(item.uri) for item in await every_page(client.list_resources, "resources")}
    document = "demo://resource/static/document/features.md"
    assert {document, "test://static-text", "near+test://static-text"} <= resources, resources
    templates = {item.uri_template for item in await every_page(client.list_resource_templates, "resource_templates")}
    assert {"demo://resource/dynamic/text/{resourceId}", "test://template/{id}/data"} <= templates, templates
    done("lists")


async def calls(client):
    zones = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    converted = await client.call_tool("x_time_convert_time", zones)
    equal(converted.structured_content["time_difference"], "+9.0h")
    echoed = await client.call_tool("x_npm_echo", {"message": "ü 🦀"})
    equal(text(echoed), "Echo: ü 🦀")
    for server in ["far", "near"]:
        arguments = {"b": [1, None], "a": server}
        equal((await client.call_tool(f"x_{server}_echo", arguments)).structured_content, arguments)
        failed = await client.call_tool(f"x_{server}_test_error_handling")
        equal(failed.is_error, True)
    picture = await client.call_tool("x_npm_get-tiny-image")
    assert any(block.type == "image" for block in picture.content)
    try:
        await client.call_tool("x_far_nope")
        raise AssertionError("a tool that is not there was called")
    except MCPError as error:
        equal(error.code, types.INVALID_PARAMS)
    done("calls")


async def prompts(client):
    asked = await client.get_prompt("x_npm_args-prompt", {"city": "Genève"})
    equal(asked.messages[0].content.text, "What's weather in Genève?")
    asked = await client.get_prompt("x_near_test_prompt_with_arguments", {"arg1": "a", "arg2": "b"})
    equal(asked.messages[0].content.text, "Prompt with arguments: arg1='a', arg2='b'")
    done("prompts")


async def resources(client):
    for uri in ["test://static-text", "near+test://static-text"]:
        contents = (await client.read_resource(uri)).contents[0]
        equal((str(contents.uri), contents.text), (uri, "This is the content of the static text resource."))
    assert (await client.read_resource("test://static-binary")).contents[0].blob
    done("resources")


async def templates(client):
    for uri, part in [("test://template/7/data", "Data for ID: 7"), ("demo://resource/dynamic/text/3", "Resource 3:")]:
        contents = (await client.read_resource(uri)).contents[0]
        equal(str(contents.uri), uri)
        assert part in contents.text, contents.text
    done("templates")


async def subscriptions(client):
    for server, uri in [("far", WATCHED), ("near", f"near+{WATCHED}")]:
        touch = (f"x_{server}_touch_resource", {"uri": WATCHED})
        await client.subscribe_resource(uri)
        equal((await client.call_tool(*touch)).structured_content, {"subscribers": 1})
        [updated] = await wait_for("ResourceUpdatedNotification", 1)
        equal(str(updated.params.uri), uri)
        await client.unsubscribe_resource(uri)
        equal((await client.call_tool(*touch)).structured_content, {"subscribers": 0})
    done("subscriptions")


async def completion(client):
    prompt = types.PromptReference(type="ref/prompt", name="x_npm_completable-prompt")
    found = await client.complete(prompt, {"name": "department", "value": "S"})
    equal(found.completion.values, ["Sales", "Support"])
    chosen = {"department": "Sales"}
    found = await client.complete(prompt, {"name": "name", "value": "E"}, context_arguments=chosen)
    equal(found.completion.values, ["Eve"])
    template = types.ResourceTemplateReference(type="ref/resource", uri="test://template/{id}/data")
    found = await client.complete(template, {"name": "id", "value": "par"})
    equal(found.completion.values, ["paris", "park", "party"])
    done("completion")


async def logging(client):
    said = ["Tool execution started", "Tool processing data", "Tool execution completed"]
    for server in ["far", "near"]:
        await client.set_logging_level("info")
        await client.call_tool(f"x_{server}_test_tool_with_logging")
        equal(await wait_for("log", 3), [("info", line) for line in said])
        await client.set_logging_level("error")
        await client.call_tool(f"x_{server}_test_tool_with_logging")
    equal(heard.get("log"), [])
    done("logging")


async def progress(client):
    async def on_progress(progress, total, _message):
        hear("progress", (progress, total))

    for server in ["far", "near"]:
        await client.call_tool(f"x_{server}_test_tool_with_progress", progress_callback=on_progress)
        equal(await wait_for("progress", 3), [(0, 100), (50, 100), (100, 100)])
    operation = {"duration": 0.2, "steps": 4}
    await client.call_tool("x_npm_trigger-long-running-operation", operation, progress_callback=on_progress)
    equal(await wait_for("progress", 4), [(step, 4) for step in range(1, 5)])
    done("progress")


async def cancellation(client):
    for server in ["far", "near"]:

        async def counts(what, number):
            with anyio.fail_after(LIMIT):
                while (await client.call_tool(f"x_{server}_sleep_counts")).structured_content[what] != number:
                    pass

        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, f"x_{server}_sleep", {"ms": 600_000})
            await counts("running", 1)
            group.cancel_scope.cancel()
        await counts("cancelled", 1)
    done("cancellation")


async def sampling(client):
    for server in ["far", "near"]:
        answered = await client.call_tool(f"x_{server}_test_sampling", {"prompt": "a question"})
        equal(text(answered), "LLM response: an answer to a question")
    answered = await client.call_tool("x_npm_trigger-sampling-request", {"prompt": "a question"})
    assert "an answer to Resource trigger-sampling-request context: a question" in text(answered), text(answered)
    done("sampling")


async def elicitation(client):
    for server in ["far", "near"]:
        answered = await client.call_tool(f"x_{server}_test_elicitation", {"message": "who?"})
        for part in ["action=accept", '"username":"ü"', '"email":"u@example.org"']:
            assert part in text(answered), text(answered)
    answered = await client.call_tool("x_npm_trigger-elicitation-request")
    equal(answered.content[1].text, "User inputs:\n- Name: Zoë")
    done("elicitation")


async def changes(client, prepared, definition):
    os.rename(prepared, definition)
    kinds = ["Tool", "Prompt", "Resource"]
    for kind in kinds:
        await wait_for(f"{kind}ListChangedNotification", 1)
    assert "x_late_echo" in names(await every_page(client.list_tools, "tools"))
    assert "x_late_test_simple_prompt" in names(await every_page(client.list_prompts, "prompts"))
    resources = {str(item.uri) for item in await every_page(client.list_resources, "resources")}
    assert "late+test://static-text" in resources, resources
    equal((await client.call_tool("x_late_echo", {"n": 1})).structured_content, {"n": 1})
    done("changes")


async def main(url, prepared, definition):
    handlers = {
        "sampling_callback": sample,
        "elicitation_callback": elicit,
        "logging_callback": on_log,
        "message_handler": on_message,
    }
    async with Client(url, read_timeout_seconds=LIMIT, **handlers) as client:
        equal(client.server_info.name, "sidegate")
        equal(client.protocol_version, "2025-11-25")
        await client.send_ping()
        done("initialize")
        await lists(client)
        await calls(client)
        await prompts(client)
        await resources(client)
        await templates(client)
        await subscriptions(client)
        await completion(client)
        await logging(client)
        await progress(client)
        await cancellation(client)
        await sampling(client)
        await elicitation(client)
        await changes(client, prepared, definition)
        own = (await client.call_tool("x_own_pid")).structured_content["pid"]
    done("close")
    print(own, flush=True)


# Logging, subscriptions and sampling are of the protocol that is spoken here, and deprecated after it.
warnings.simplefilter("ignore")
anyio.run(main, *sys.argv[1:])
