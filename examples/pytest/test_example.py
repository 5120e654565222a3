"""Tests of something that uses MCP servers; here they call tools themselves.

Run them with `pytest examples/pytest`.
"""

import os

import pytest

from sidegate import Sidegate

# A test double: the small server that the binary holds. Yours is a command or a URL.
EXAMPLE = {"type": "stdio", "command": os.environ.get("SIDEGATE_BINARY", "sidegate"), "args": ["example-server"]}


@pytest.mark.servers(math=EXAMPLE)
def test_a_tool_can_be_called(sidegate):
    assert sidegate.url.startswith("http://127.0.0.1:")
    result = sidegate.call("x_math_calculate", expression="2*(3+4)")
    assert result["structuredContent"] == {"value": 14}


def test_instances_do_not_know_of_each_other():
    with Sidegate({"one": EXAMPLE}) as first, Sidegate({"two": EXAMPLE}) as second:
        assert "x_one_calculate" in first.tools() and "x_two_calculate" in second.tools()
        assert not any("two" in name for name in first.tools())


def test_nothing_is_left_behind():
    with Sidegate({"math": EXAMPLE}) as instance:
        runtime_dir = instance.runtime_dir
        assert os.path.isdir(runtime_dir)
    assert not os.path.exists(runtime_dir)


def test_what_is_wrong_is_said():
    with pytest.raises(RuntimeError, match="sidegate did not start"):
        with Sidegate({}, options=["--listen", "nowhere"]):
            pass
