"""The kernels of the gammatone's rows on a device."""

from __future__ import annotations

import pytest
import torch
from helpers import check_rows_against_reference

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_the_reference(dtype: torch.dtype) -> None:
    check_rows_against_reference("cuda", dtype)
