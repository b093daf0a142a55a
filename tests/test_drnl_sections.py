"""Sections of DRNL's filters as an operator: the plain formulas, gradients, torch.compile, errors."""

from __future__ import annotations

import re

import pytest
import torch
from helpers import drnl_parameters

from tamt.design import drnl as design
from tamt.filterbanks.drnl import MODELS
from tamt.ops.drnl_sections import drnl_sections

models = pytest.mark.parametrize("model", list(MODELS))


@models
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_as_the_formulas(model: str, dtype: torch.dtype) -> None:
    parameters, options = drnl_parameters(model, dtype)
    expected = design.drnl_sections(*parameters, **options)
    for actual, wanted in zip(drnl_sections(*parameters, **options), expected, strict=True):
        assert actual.is_contiguous()
        assert torch.equal(actual, wanted)


def test_gradients() -> None:
    parameters, options = drnl_parameters("paulick2024", torch.float64)
    usual = [p[6:8].requires_grad_() for p in parameters]  # not those at limits
    assert torch.autograd.gradcheck(lambda *p: drnl_sections(*p, **options), usual, eps=1e-4, atol=1e-8)
    assert torch.autograd.gradgradcheck(
        lambda *p: drnl_sections(*p, **options), usual, eps=1e-4, atol=1e-8, fast_mode=True
    )


def test_errors() -> None:
    (first, *others), options = drnl_parameters("paulick2024", torch.float32)
    with pytest.raises(ValueError, match=re.escape("cf_lin, bw_lin, lp_lin, g, cf_nlin, bw_nlin, lp_nlin must have")):
        drnl_sections(first[1:], *others, **options)
