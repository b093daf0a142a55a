"""The kernels of the gammatone's rows in Triton's interpreter, against plain torch in float64."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from helpers import check_rows_against_reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_the_reference(dtype: torch.dtype) -> None:
    check_rows_against_reference("cpu", dtype)
