"""Numbers as people have them: arrays of any strides and byte order, integers, lists, tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tamt

FALLING = np.array([4000.0, 1000.0, 250.0])
TAKERS: dict[str, Callable[[Any], Any]] = {
    "gammatone fc": lambda v: tamt.GammatoneFilterbank(v, 16000).fc,
    "drnl fc": lambda v: tamt.DRNLFilterbank(v, 16000).CF_lin,
    "fast drnl fc": lambda v: tamt.FastDRNLFilterbank(v, 16000, ir_length=64).CF_lin,
    "frequency_response": tamt.GammatoneFilterbank([1000.0], 16000).frequency_response,
    "path_responses": lambda v: tamt.DRNLFilterbank([1000.0], 16000).path_responses(v)[1],
    "io_function levels": lambda v: tamt.DRNLFilterbank([1000.0], 16000).io_function(np.asarray(v) / -100),
    "io_function fc": lambda v: tamt.DRNLFilterbank([250.0, 1000, 4000], 16000).io_function([-100.0], v),
    "tone_responses f": lambda v: tamt.DRNLFilterbank([1000.0], 16000).tone_responses([-100.0], v),
    "freq_thresholds": lambda v: tamt.MultiResolutionFFT(16000, [512, 256, 128, 64], freq_thresholds=v).freq_thresholds,
}
FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "negative strides": lambda a: a[::-1][::-1],
    "big-endian": lambda a: a.astype(">f8"),
    "big-endian integers": lambda a: a.astype(">i4"),
    "float32": lambda a: a.astype(np.float32),
    "long double": lambda a: a.astype(np.longdouble),
    "a column": lambda a: np.stack((a, a), 1)[:, 0],
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "list": lambda a: [int(v) for v in a],
    "tensor of integers": lambda a: torch.from_numpy(a).long(),
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms(take: Callable[[Any], Any], form: Callable[[np.ndarray], Any]) -> None:
    assert torch.equal(take(form(FALLING)), take(torch.from_numpy(FALLING)))


@pytest.mark.parametrize("take", [TAKERS[name] for name in TAKERS if name != "io_function levels"])
@pytest.mark.parametrize("wrong", [[True, False, True], np.array([1j, 2, 3]), ["1", "2", "3"], torch.ones(3).bool()])
def test_what_is_no_real_number(take: Callable[[Any], Any], wrong: Any) -> None:
    with pytest.raises(TypeError, match="must hold real numbers, got "):
        take(wrong)


def test_what_was_given_is_left_alone() -> None:
    """Neither does a module change it, nor the other way round."""
    given = torch.tensor([500.0, 1000], dtype=torch.float64)
    bank = tamt.GammatoneFilterbank(given, 16000, dtype=torch.float64)
    given[0] = 700
    assert bank.fc.tolist() == [500, 1000]
    bank.fc[1] = 5
    assert given.tolist() == [700, 1000]
