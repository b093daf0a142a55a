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


def pytest_configure() -> None:
    """Let a launch patch ``triton.language`` once.

    The interpreter looks through it again in every call of a device function, and finds everything patched: that takes
    a third of the time.
    """
    if not INTERPRETED:
        return
    language = pytest.importorskip("triton.language")
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    if not hasattr(interpreter, "_LangPatchScope"):  # an older interpreter
        return
    patch = interpreter._patch_lang

    def patch_once(function: Any) -> Any:
        modules = [m for m in function.__globals__.values() if m is language or m is language.core]
        fresh = any(language.core.is_builtin(module.load) for module in modules)
        return patch(function) if fresh else interpreter._LangPatchScope()

    interpreter._patch_lang = patch_once


@pytest.fixture(autouse=True)
def watch() -> Iterator[Any]:
    """The nets of :mod:`interpreter.nets`, over every launch."""
    if not INTERPRETED:
        yield
        return
    from interpreter.nets import watched

    with watched() as watch:
        yield watch
