"""The kernel of DRNL's sections in Triton's interpreter, against plain torch in float64."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from helpers import check_sections_against_formulas


@pytest.mark.parametrize(("model", "dtype"), [("paulick2024", torch.float32), ("jepsen2008", torch.float64)])
def test_against_the_formulas(model: str, dtype: torch.dtype) -> None:
    check_sections_against_formulas("cpu", model, dtype)
