"""Names of the coefficients that the IIR engine takes; :mod:`tamt.ops.iir` says how rows are made of them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

KERNEL_ORDER = 8  # sections of the longest cascade whose states fit into the registers of a GPU's thread


class OnepoleRow(NamedTuple):
    """Of a cascade of equal complex one-pole sections: pole ``exp(-decay + 2 pi i (high + low))`` and gain."""

    decay: Tensor  # nepers per sample
    high: Tensor  # frequency in cycles per sample, as an unevaluated sum
    low: Tensor
    gain_re: Tensor
    gain_im: Tensor


class Feedback(NamedTuple):
    """What of a one-pole section's state is taken from the cascade's input."""

    re: Tensor
    im: Tensor


class ModalSection(NamedTuple):
    """``s' = p s + gain u``, ``y = direct u + Re s'`` with the pole ``p = exp(-decay + 2 pi i (high + low))``."""

    decay: Tensor
    high: Tensor
    low: Tensor
    gain_re: Tensor
    gain_im: Tensor
    direct: Tensor


class BiquadSection(NamedTuple):
    """``y = b u + s_1``, ``s_1' = r s_1 + omega s_2 + e_1 u``, ``s_2' = r s_2 - k s_1 - a s_2 + e_2 u``."""

    b: Tensor
    e1: Tensor
    e2: Tensor
    omega: Tensor
    k: Tensor
    a: Tensor
    r: Tensor
