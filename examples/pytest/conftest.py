import pytest

from sidegate import Sidegate


@pytest.fixture
def sidegate(request):
    """An instance for one test. Its servers are those of the test's marker `servers`."""
    marker = request.node.get_closest_marker("servers")
    with Sidegate(marker.kwargs if marker else {}) as instance:
        yield instance


def pytest_configure(config):
    config.addinivalue_line("markers", "servers(**servers): the MCP servers behind the fixture `sidegate`")
