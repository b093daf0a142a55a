"""These tests run the Triton kernels on CPU tensors: ``TRITON_INTERPRET=1 python -m pytest tests/interpreter``.

Triton reads the variable when it decorates a kernel, hence a process of their own.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if INTERPRETED:
        return
    for item in items:
        item.add_marker(pytest.mark.skip(reason="needs TRITON_INTERPRET=1, see tests/interpreter/conftest.py"))


@pytest.fixture(autouse=True)
def watch() -> Iterator[Any]:
    """The nets of :mod:`interpreter.nets`, over every launch."""
    if not INTERPRETED:
        yield
        return
    from interpreter.nets import watched

    with watched() as watch:
        yield watch
