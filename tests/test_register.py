"""What :func:`tamt.ops._register.register` does not take, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tamt.ops._operator import Signature
from tamt.ops._register import Backward, register


def first(*operands: Any) -> Any:
    return operands[0]


def attempt(schema: str = "(Tensor x, Tensor a) -> Tensor", **options: Any) -> None:
    register("attempted", schema, **{"definition": first, "forward": first, "shapes": lambda x, *_: x.shape, **options})


@pytest.mark.parametrize(
    "schema",
    [
        "(Tensor x,int n) -> Tensor",
        "(int n, Tensor x) -> Tensor",
        "(int n) -> Tensor",
        "(Tensor x, Tensor? state) -> Tensor",
        "(Tensor[] x) -> Tensor",
        "(Tensor x, int n=3) -> Tensor",
        "(Tensor x) ->\n Tensor",
        "(Tensor x) -> (Tensor, Tensor)",
        "(Tensor x) -> (Tensor y, Tensor y)",
        "(Tensor x, int x) -> Tensor",
    ],
)
def test_a_schema_it_cannot_take(schema: str) -> None:
    with pytest.raises(ValueError, match="the schema of tamt::attempted must be like"):
        attempt(schema)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linear": "b"}, "no 'b' among its operands x, a"),
        ({"rows": "y"}, "no 'y' among its operands x, a"),
        ({"constants": "y"}, "no 'y' among its results result"),
        ({"launcher": "stem"}, "must be 'module:function', got 'stem'"),
        ({"backward": Backward(first, of="x a", launcher="stem")}, "must be 'module:function', got 'stem'"),
        ({"backward": Backward(first, of="x b")}, "no 'b' among its operands x, a"),
        ({"backward": Backward(first, of="x")}, "must be once in of or in constants, got of='x' and constants=''"),
        ({"backward": Backward(first, of="x a", constants="a")}, "must be once in of or in constants"),
        ({"backward": Backward(first, of="x a", keeps="y")}, "no 'y' among its results result"),
        ({"backward": Backward(first, of="x a", needs=("y",))}, r"must be groups of 'x a', got \('y',\)"),
        ({"backward": Backward(first, of="x a", silences="result")}, "no 'result' among its operands x, a"),
    ],
)
def test_names_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attempt(**options)


def test_needs_are_groups() -> None:
    with pytest.raises(TypeError, match="must be a sequence of groups, got 'x'"):
        attempt(backward=Backward(first, of="x a", needs="x"))


def test_schema_of_a_backward() -> None:
    """Gradients, operands, kept results, parameters, flags."""
    schema = "(Tensor x, Tensor a, SymInt n, int[] m) -> (Tensor y, Tensor last)"
    assert Signature.of("attempted", schema).schema == schema

    def gradients(*given: Any) -> tuple[Tensor, Tensor]:
        return torch.zeros(0), torch.zeros(2)

    attempt(
        schema,
        forward=lambda x, a, n, m: (x.clone(), a.clone()),
        shapes=lambda x, a, n, m: (x.shape, a.shape),
        backward=Backward(gradients, of="a x", keeps="last", needs=("a",)),
    )
    assert str(torch.ops.tamt.attempted_backward.default._schema) == (
        "tamt::attempted_backward(Tensor grad_y, Tensor grad_last, Tensor x, Tensor a, Tensor last, SymInt n, int[] m, "
        "bool need_a) -> (Tensor grad_a, Tensor grad_x)"
    )
