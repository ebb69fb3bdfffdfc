"""Marks the examples that take long; the files themselves are shown in docs/testing.md."""

import pytest

SLOW = ("test_real_network", "test_own_server")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    for item in items:
        if item.path.stem in SLOW and item.path.parent.name == "examples":
            item.add_marker(pytest.mark.slow)
