"""Specific loudness, what excitation along the basilar membrane contributes to loudness."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tamt._arguments import check_floating, vector
from tamt._base import DESIGN
from tamt._learnable import Form, Learnable
from tamt.design.specific_loudness import GLASBERG2002_HIGH, MOORE2016, Law, constants
from tamt.scales import erbrate2f

CHANNELS = 150
FIRST, STEP = 1.75, 0.25  # Cam
LOWEST = 40.0  # Hz: the tables begin at 50


def channels() -> Tensor:
    """Frequencies (150,) of the channels of both models in Hz, 1.75 to 39 on the ERB-rate scale, in float64."""
    with DESIGN:
        return erbrate2f(FIRST + STEP * torch.arange(CHANNELS, dtype=torch.float64))


class SpecificLoudness(Learnable):
    """What the models of specific loudness share."""

    _COMPUTES_IN = torch.float32

    _law: Law

    C: Tensor
    A: Tensor
    alpha: Tensor
    threshold: Tensor
    fc: Tensor

    def __init__(
        self,
        fc: Any = None,
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        fc = channels() if fc is None else vector("fc", fc, torch.float64, DESIGN, "N")
        wrong = fc[~((fc >= LOWEST) & fc.isfinite())]
        if not fc.numel() or wrong.numel():
            found = f"got {wrong[0].item():g}" if wrong.numel() else "got none"
            raise ValueError(f"fc must hold frequencies of at least {LOWEST:g} Hz, {found}")
        self._register_constant("fc", fc)
        self._register_state(constants(self._law, fc)._asdict(), levels=("threshold",))

    def forward(self, excitation: Tensor) -> Tensor:
        """Specific loudness of excitation.

        Parameters
        ----------
        excitation : Tensor (..., N)
            Ratio to the excitation by a tone of 1 kHz at 0 dB SPL that reached the cochlea unchanged, at least 0: of a
            level L in dB, ``10 ** (L / 10)``.

        Returns
        -------
        Tensor (..., N)
            In sone per Cam.
        """
        check_floating("excitation", excitation)
        if excitation.dim() < 1 or excitation.shape[-1] != self.fc.shape[0]:
            raise ValueError(f"excitation must have shape (..., {self.fc.shape[0]}), got {tuple(excitation.shape)}")
        e, alpha = excitation.to(self._held_type), self.alpha
        at_threshold = 10 ** (self.threshold / 10)
        gain = 10 ** (self._law.thresholds[-1] / 10) / at_threshold
        # A difference of powers would lose the digits of what is far below threshold.
        core = self.A**alpha * torch.expm1(alpha * torch.log1p(gain * e / self.A))
        # The least number keeps second derivatives finite where there is no excitation; the core is 0 there.
        part = (2 * e / (e + at_threshold)).clamp_min(torch.finfo(e.dtype).tiny)
        below = torch.where(e > at_threshold, 1.0, part**1.5)
        most = (e.clamp_min(self._law.most) / self._law.divisor) ** self._law.exponent
        return self.C * torch.where(e >= self._law.most, most, below * core)

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return f"{self.fc.shape[0]} channels, learnable={self.learnable!r}, dtype={self.dtype}"


class Moore2016SpecificLoudness(SpecificLoudness):
    r"""Specific loudness of Moore et al. (2016), the one of ISO 532-2 and ISO 532-3.

    With E the excitation, T that at absolute threshold and G the low-level gain of the cochlear amplifier relative to
    that at 500 Hz and above, 1 there:

    .. math::

        N = C \cdot \begin{cases}
            \left(\frac{2 E}{E + T}\right)^{1.5} \left((G E + A)^\alpha - A^\alpha\right) & E \le T \\
            (G E + A)^\alpha - A^\alpha & T < E < 10^{10} \\
            (E / 1.0707)^{0.2} & E \ge 10^{10} \end{cases}

    C is 0.0631 sone/Cam; the other constants follow from the frequency of the channel by the tables of the standard, of
    which some entries are

    ================ ======= ======= ===== ======
    frequency        T in dB G in dB A     alpha
    ================ ======= ======= ===== ======
    50 Hz            28.18   -24.55  8.853 0.2654
    80 Hz            19.20   -15.57  6.884 0.2383
    125 Hz           12.67   -9.04   5.769 0.2200
    200 Hz           8.08    -4.45   5.193 0.2094
    315 Hz           5.30    -1.67   4.894 0.2035
    400 Hz           4.50    -0.87   4.811 0.2018
    500 Hz and above 3.63    0.00    4.721 0.2000
    ================ ======= ======= ===== ======

    T in dB is interpolated linearly over frequency, :math:`\alpha` linearly and A by a monotone cubic over G in dB;
    below 50 Hz they are those of 50 Hz.

    Parameters
    ----------
    fc : Tensor (N,), list or array, optional
        Frequencies of the channels in Hz, at least 40; by default the 150 of :class:`Moore2016ExcitationPattern`.
    learnable : bool or 'relative'
        Whether ``C``, ``A``, ``alpha`` and ``threshold`` are parameters (else buffers of the same names).
        ``'relative'``: parameters that are 0 by design take their place, ``log_C`` (1,), ``log_A`` and ``log_alpha``
        (N,), the logarithms of the ratios to the design, and ``delta_threshold`` (N,), a difference in dB.
    dtype : torch.float32 or torch.float64, optional
        Computing type, by default float32; excitation of another floating type is converted.
    device : torch.device, optional
        Where the tensors are made.

    Attributes
    ----------
    C : Tensor ()
        0.0631 sone/Cam.
    A, alpha : Tensor (N,)
        As in the table. Of a learnable module these and C have to stay above 0: outside of that results are no
        loudness.
    threshold : Tensor (N,)
        :math:`10 \log_{10} T` in dB, of which G follows: 3.63 dB from 500 Hz up, more below.
    fc : Tensor (N,)
        Frequencies of the channels in Hz.

    Raises
    ------
    ValueError
        ``fc`` outside its range, excitation that has not as many channels.
    TypeError
        Excitation that is not floating, or an unsupported ``dtype``, also float64 on MPS.

    See Also
    --------
    Moore2016ExcitationPattern : the excitation that it takes.
    Glasberg2002SpecificLoudness : the older model's.

    Notes
    -----
    Silence gives 0, with finite gradients of any order. The value steps by up to 1 % at 100 dB, as in the standard.

    References
    ----------
    B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher (2016), "A loudness model for time-varying
    sounds incorporating binaural inhibition"; ISO 532-3; AMT function ``moore2016_monauralinstspecloudness``.

    Examples
    --------
    >>> import torch, tamt
    >>> specific_loudness = tamt.Moore2016SpecificLoudness()
    >>> level = torch.full((150,), 40.0)  # of excitation in every channel, in dB
    >>> specific_loudness(10 ** (level / 10))[75]
    tensor(0.3121)
    """

    _law = MOORE2016


class Glasberg2002SpecificLoudness(SpecificLoudness):
    r"""Specific loudness of Glasberg and Moore (2002), with the constants of ANSI S3.4-2007.

    As that of :class:`Moore2016SpecificLoudness`, but with a square root at high levels, thresholds from 500 Hz up of
    3.73 dB, and smooth curves through the tables:

    .. math:: N = C\, (E / 1.04 \cdot 10^6)^{0.5} \qquad E > 10^{10}

    Parameters
    ----------
    high : {'1997', '2007'}
        What holds above :math:`10^{10}`, 100 dB: the square root, or :math:`C\, (E / 1.0707)^{0.2}` as ISO 532-2 has
        it.
    fc, learnable, dtype, device
        As for :class:`Moore2016SpecificLoudness`.

    Attributes
    ----------
    C : Tensor ()
        0.0474012 sone/Cam: 1.01131 times that of the standard, so that 1 kHz at 40 dB SPL has 1 sone in
        :class:`Glasberg2002Loudness`, whose running spectrum differs from exact components.
    A, alpha, threshold, fc : Tensor (N,)
        As for :class:`Moore2016SpecificLoudness`, ``threshold`` 3.73 dB from 500 Hz up.

    Raises
    ------
    ValueError, TypeError
        As :class:`Moore2016SpecificLoudness`.

    See Also
    --------
    Moore2016SpecificLoudness : formula, constants and parameters.
    Glasberg2002Loudness : the model.

    References
    ----------
    B. R. Glasberg, B. C. J. Moore (2002), "A model of loudness applicable to time-varying sounds", J. Audio Eng. Soc.
    50, 331-342; ANSI S3.4-2007.

    Examples
    --------
    >>> import torch, tamt
    >>> specific_loudness = tamt.Glasberg2002SpecificLoudness()
    >>> specific_loudness(torch.zeros(3, 150)).shape
    torch.Size([3, 150])
    """

    def __init__(
        self,
        fc: Any = None,
        high: str = "1997",
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        if high not in GLASBERG2002_HIGH:
            raise ValueError(f"high must be one of {', '.join(map(repr, GLASBERG2002_HIGH))}, got {high!r}")
        self.high, self._law = high, GLASBERG2002_HIGH[high]
        super().__init__(fc, learnable, dtype, device=device)

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return f"high={self.high!r}, {super().extra_repr()}"
