"""Gammatone filters: the real part of a complex one-pole cascade, and real sections with poles and zeros."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tamt.design.poles import MIN_DECAY
from tamt.design.rows import ModalSection
from tamt.scales import audfiltbw

MAX_DECAY = 36.0  # where a pole might as well be 0


def gammatone_betamul(n: int) -> float:
    r"""Ratio of a gammatone's bandwidth parameter to its equivalent rectangular bandwidth.

    :math:`((n-1)!)^2 / (\pi (2n-2)! 2^{-(2n-2)})`, 1.0186 for order 4 (Patterson et al. 1987; AMT ``gammatone``).
    """
    return 4 ** (n - 1) / math.comb(2 * n - 2, n - 1) / math.pi  # whole numbers of any size first


def gammatone_design(fc: Tensor, fs: float, n: int, betamul: float) -> tuple[Tensor, Tensor, Tensor]:
    r"""Pole and gain of the gammatone that is the real part of a one-pole cascade, :math:`2\,\mathrm{Re}\{g x / (1 - p z^{-1})^n\}`.

    Parameters
    ----------
    fc : Tensor (F,)
        Centre frequencies in Hz.
    fs : float
        Sampling rate in Hz.
    n : int
        Order.
    betamul : float
        Bandwidth parameter in units of ``audfiltbw(fc)``.

    Returns
    -------
    decay, frequency, gain : Tensor (F,)
        :math:`\phi = 2\pi\,\mathrm{betamul}\,\mathrm{audfiltbw}(f_c)/f_s` in nepers per sample, 36 at most,
        :math:`-f_c/f_s` in cycles per sample and :math:`(1 - e^{-\phi})^n`; the pole is
        :math:`p = e^{-\phi + 2\pi i\,\mathrm{frequency}}`.
    """
    decay = (2 * math.pi * betamul * audfiltbw(fc) / fs).clamp(max=MAX_DECAY)
    return decay, -fc / fs, (-torch.expm1(-decay)) ** n


def check_gammatone(fc: Tensor, decay: Tensor, n: int, dtype: torch.dtype, expanded: bool) -> None:
    """A ValueError where a gain, or if ``expanded`` an entry of the feedback map, is out of the range of ``dtype``."""
    range_of = torch.finfo(dtype)
    base = -torch.expm1(-decay)
    worst = int(base.argmin())
    if n * math.log(base[worst]) < math.log(range_of.tiny):
        most = int(math.log(range_of.tiny) / math.log(base[worst]))
        raise ValueError(
            f"n must be at most {most} for fc = {fc[worst]:g} Hz at this fs and betamul, got {n}: the gain, "
            f"{base[worst]:.3g} to the power of n, is out of the range of {dtype}"
        )
    growth = decay.max().item() + math.log(2)  # binomial coefficients over powers of the pole
    if expanded and (n - 1) * growth > math.log(range_of.max):
        raise ValueError(
            f"n must be at most {1 + int(math.log(range_of.max) / growth)} for implementation 'poly' at this fs and "
            f"betamul, got {n}: the expanded denominator is out of the range of {dtype}; 'sos' has no such limit"
        )


def classic_gammatone(fc: Tensor, bandwidth: Tensor, fs: float, n: int) -> Tensor:
    r"""Sections of the real pole-zero gammatone, 0 dB at its centre frequency.

    With :math:`p = e^{-\phi + i\theta}`, :math:`\phi = 2\pi\,\mathrm{bandwidth}/f_s` and :math:`\theta = 2\pi f_c/f_s`
    each of the ``n`` equal sections is :math:`a_0 (1 - \mathrm{Re}\,p\,z^{-1}) / ((1 - p z^{-1})(1 - \bar p z^{-1}))`,
    which is the real part of :math:`a_0 / (1 - p z^{-1})` for a real signal; :math:`a_0` is the inverse of the
    section's magnitude at :math:`f_c` (AMT ``gammatone``, option ``classic``).

    Parameters
    ----------
    fc, bandwidth : Tensor (F,)
        Centre frequencies and bandwidths in Hz. A filter of a bandwidth below ``1e-5 fs / 2 pi``, which would hardly
        decay or not at all, gets this one.
    fs : float
        Sampling rate in Hz.
    n : int
        Order.

    Returns
    -------
    Tensor (F, n, 6)
        Sections of :func:`tamt.ops.iir.modal_cascade`.
    """
    decay = 2 * math.pi * bandwidth / fs
    decay = torch.where(decay < MIN_DECAY, MIN_DECAY, decay)
    cycles = fc / fs
    shrink, angle = torch.expm1(-decay), 2 * math.pi * cycles
    # Half the sum of 1 / (1 - p/z) and 1 / (1 - conj(p)/z) at z = e^{i theta}, without cancellation.
    far_re = 2 * (1 + shrink) * torch.sin(angle) ** 2 - shrink
    far_im = (1 + shrink) * torch.sin(2 * angle)
    norm = far_re**2 + far_im**2
    a0 = 2 * torch.rsqrt((far_re / norm - 1 / shrink) ** 2 + (far_im / norm) ** 2)
    zero = torch.zeros_like(a0)
    section = ModalSection(decay, cycles, zero, gain_re=a0, gain_im=zero, direct=zero)
    return torch.stack(section, -1)[:, None].expand(-1, n, -1)


def expanded_denominator(pole: Tensor, n: int) -> Tensor:
    """Coefficients (F, n + 1) of ``(1 - p z^-1)^n`` for complex ``pole`` (F,), ascending powers of ``z^-1``."""
    binomial = torch.tensor([float(math.comb(n, i)) for i in range(n + 1)], dtype=pole.dtype)
    return binomial * (-pole[:, None]) ** torch.arange(n + 1)


def feedback_map(pole: Tensor, n: int) -> Tensor:
    r"""What a step away from an expanded denominator means for the sections of its cascade.

    With ``q = 1 - p z^-1`` every denominator with leading coefficient 1 is
    :math:`(1 - p z^{-1})^n + \sum_k c_k z^{-1} q^{n-k}`: the cascade of the pole ``p``, with feedback :math:`c_k` from
    its sections. Unlike expanded coefficients those keep float32 exact near ``p``.

    Returns the complex matrices (F, n, n) that take the steps of ``a_1 .. a_n`` to ``c_1 .. c_n``, from
    :math:`c_{n-i} = (-1)^i \sum_{m>i} \binom{m-1}{i} p^{-(m-1)} \delta_m`.
    """
    signed = [[(-1.0) ** i * math.comb(m, i) for m in range(n)] for i in reversed(range(n))]
    return torch.tensor(signed, dtype=pole.dtype) * pole[:, None, None] ** -torch.arange(n)
