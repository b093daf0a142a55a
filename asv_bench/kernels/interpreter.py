"""What Triton's interpreter needs, to run with any numpy and to be quick."""

from __future__ import annotations

from typing import Any

import triton.language
from triton.runtime import interpreter


def prepare() -> None:
    """Mend the interpreter in this process."""
    index_by_item()
    if hasattr(interpreter, "_LangPatchScope"):  # older ones patch in place and for good
        patch_once()


def index_by_item() -> None:
    """Let a kernel's number end a range with numpy 2.4 or newer.

    Old interpreters take ``int`` of an array of one element for it, which numpy refuses now.
    """
    patch = interpreter._patch_lang_tensor

    def patch_with_index(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()

    interpreter._patch_lang_tensor = patch_with_index


def patch_once() -> None:
    """Let a launch patch ``triton.language`` once.

    The interpreter looks through it again in every call of a device function, and finds everything patched: that takes
    a third of the time.
    """
    language = triton.language
    patch = interpreter._patch_lang

    def patch_fresh(function: Any) -> Any:
        modules = [m for m in function.__globals__.values() if m is language or m is language.core]
        fresh = any(language.core.is_builtin(module.load) for module in modules)
        return patch(function) if fresh else interpreter._LangPatchScope()

    interpreter._patch_lang = patch_fresh
