"""The kernel of DRNL's sections on a device."""

from __future__ import annotations

import pytest
import torch
from helpers import check_sections_against_formulas

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("model", ["paulick2024", "jepsen2008"])
def test_against_the_formulas(model: str, dtype: torch.dtype) -> None:
    check_sections_against_formulas("cuda", model, dtype)
