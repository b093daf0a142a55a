"""These tests run the Triton kernels on CPU tensors: ``TRITON_INTERPRET=1 python -m pytest tests/interpreter``.

Triton reads the variable when it decorates a kernel, hence a process of their own.
"""

import importlib.util
import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        return
    for item in items:
        item.add_marker(pytest.mark.skip(reason="needs TRITON_INTERPRET=1, see tests/interpreter/conftest.py"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """That there is nothing to run is no failure where triton is not to be had."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and importlib.util.find_spec("triton") is None:
        session.exitstatus = pytest.ExitCode.OK
