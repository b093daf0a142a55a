"""Excitation of rounded-exponential filters after Moore et al. (2016)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tamt._arguments import check_floating
from tamt._base import DESIGN
from tamt._learnable import Form, Learnable
from tamt._memo import Memo
from tamt.ops.roex import roex, roex_power, roex_weights
from tamt.scales import erbrate2f, roex_slope


class Moore2016ExcitationPattern(Learnable):
    r"""Excitation along the basilar membrane for the components of a short-time spectrum.

    The auditory filters are rounded exponentials, :math:`W(p, g) = (1 + p |g|) e^{-p |g|}`, with
    :math:`p(f) = 4 f / \mathrm{ERB}(f)` and :math:`\mathrm{ERB}(f) = 24.673 (4.368 f/1000 + 1)`. For components of
    frequencies :math:`f_i` and levels :math:`L_i`, and channels at :math:`f^c_n`:

    .. math::

        X_j &= 10 \log_{10} \sum_i W(p(f_i), (f_j - f_i)/f_i)\, 10^{L_i/10} \\
        b_{ni} &= \begin{cases} p(f^c_n) & f_i \ge f^c_n \\
            \max(p(f^c_n) - k\, \frac{p(f^c_n)}{p(1000)} (X_i - 51),\; 0.1) & f_i < f^c_n \end{cases} \\
        E_n &= 10 \log_{10} \Bigl( \sum_i W(b_{ni}, (f_i - f^c_n)/f^c_n)\, 10^{L_i/10} + 10^{-12} \Bigr)

    The low-frequency side of a filter becomes shallower with level, so that loud tones spread to channels above them.

    Parameters
    ----------
    erb_lower, erb_upper, erb_step : float
        First channel, last possible channel and distance on the ERB-rate scale of :func:`tamt.f2erbrate`.
    spreading_limit_octaves : float
        Components further than this from a channel, or from each other in :math:`X`, do not count. The default, 4, is
        neither AMT's nor the standard's; with 10 all of the spectrum counts, as in the loudness models. See the notes.
    learnable : bool or 'relative'
        Whether ``level_dep_factor`` is a parameter (else a buffer of that name). ``'relative'``: the parameter is
        ``log_level_dep_factor`` (1,), the logarithm of the ratio to the design, 0.35.
    dtype : torch.float32 or torch.float64, optional
        Computing type, by default float32; inputs of another floating type are converted.
    device : torch.device, optional
        Where the tensors are made.

    Attributes
    ----------
    level_dep_factor : Tensor ()
        :math:`k`, 0.35; used as if clamped to [0, 1].
    n_channels : int
        Number of channels N: 150.
    erb_channels, fc_channels, p_channels : Tensor (N,)
        The channels' ERB-rates, frequencies in Hz and :math:`p(f^c)`.
    p1000 : float
        :math:`p(1000)`, 30.2.

    Raises
    ------
    ValueError
        ``erb_lower`` outside (0, ``erb_upper``), ``erb_step`` or ``spreading_limit_octaves`` not above 0; at the call,
        frequencies and levels of shapes that do not belong together, and (on the CPU, outside of ``torch.compile``) a
        frequency above 100 kHz.
    TypeError
        Frequencies or levels that are not floating, or an unsupported ``dtype``, also float64 on MPS.

    See Also
    --------
    Moore2016Spectrum : the components that it takes.
    Moore2016SpecificLoudness : the loudness that it makes.
    tamt.plot.excitation_patterns : a picture of excitation over frequency at several levels.
    tamt.plot.level_map : one of excitation over time.

    Notes
    -----
    With ``spreading_limit_octaves=10`` it is within 2e-6 dB of AMT's ``moore2016_excitationpattern``, where that is
    above 0 dB. The default of 4 cuts what loud low components excite far above them: of 100 Hz at 110 dB, the channel
    at 1643 Hz has -120 dB in place of 78.3 dB, and the loudness of that component comes out 29 % too low (11 % too low
    for a tone of 110 dB SPL in a free field, which the ear makes fainter).

    :math:`X_j` sees each component through the filter at that component's own frequency, as AMT's
    ``moore2016_excitationpattern`` does. Rows of the input do not influence each other: one with a NaN, a level of
    +inf or (on a GPU or compiled) a frequency above 100 kHz gives NaN in all channels of that row only.

    References
    ----------
    B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher (2016), "A loudness model for time-varying
    sounds incorporating binaural inhibition"; AMT function ``moore2016_excitationpattern``.

    Examples
    --------
    >>> import torch, tamt
    >>> pattern = tamt.Moore2016ExcitationPattern()
    >>> freqs, levels = torch.tensor([1000.0, 2000.0, 0.0]), torch.tensor([60.0, 50.0, 0.0])
    >>> pattern(freqs, levels).shape
    torch.Size([150])
    >>> freqs, levels_left, levels_right = tamt.Moore2016Spectrum().dense(1e-3 * torch.randn(3, 2, 4000))
    >>> pattern(freqs, levels_left).shape
    torch.Size([3, 61, 150])
    """

    _COMPUTES_IN = torch.float32

    level_dep_factor: Tensor
    erb_channels: Tensor
    fc_channels: Tensor
    p_channels: Tensor

    def __init__(
        self,
        erb_lower: float = 1.75,
        erb_upper: float = 39.0,
        erb_step: float = 0.25,
        spreading_limit_octaves: float = 4.0,
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        if not 0 < erb_lower < erb_upper < math.inf:
            raise ValueError(
                f"erb_lower and erb_upper must satisfy 0 < erb_lower < erb_upper, got {erb_lower} and {erb_upper}"
            )
        if not 0 < erb_step < math.inf:
            raise ValueError(f"erb_step must be a positive number, got {erb_step}")
        if not spreading_limit_octaves > 0:
            raise ValueError(f"spreading_limit_octaves must be positive, got {spreading_limit_octaves}")
        self.erb_lower = erb_lower
        self.erb_upper = erb_upper
        self.erb_step = erb_step
        self.spreading_limit_octaves = spreading_limit_octaves
        self.n_channels = math.floor((erb_upper - erb_lower) / erb_step + 1e-9) + 1
        self.p1000 = roex_slope(1000.0)
        with DESIGN:
            erb = erb_lower + erb_step * torch.arange(self.n_channels, dtype=torch.float64)
            fc = erbrate2f(erb)
            factor = torch.tensor(0.35, dtype=torch.float64)
        for name, channels in (("erb_channels", erb), ("fc_channels", fc), ("p_channels", roex_slope(fc))):
            self._register_constant(name, channels)
        self._register_state({"level_dep_factor": factor})
        self._weights: Memo[Tensor] = Memo()

    def forward(self, freqs: Tensor, levels: Tensor) -> Tensor:
        """Excitation of components.

        Parameters
        ----------
        freqs : Tensor (..., C) or (C,)
            Frequencies in Hz, in any order: of each row, or shared by all of them, which takes less time. Where a
            frequency is 0 or below there is no component.
        levels : Tensor (..., C)
            Levels in dB; -inf is silence.

        Returns
        -------
        Tensor (..., N)
            Excitation levels in dB.
        """
        return self._passed(roex, freqs, levels, "levels")

    def excitation(self, freqs: Tensor, intensity: Tensor) -> Tensor:
        r"""Excitation of components as a ratio, :math:`10^{E/10}` without the floor of :math:`10^{-12}`.

        No logarithm is taken of the result: it is 0 without components, and its gradient there is finite.

        Parameters
        ----------
        freqs : Tensor (..., C) or (C,)
            As for :meth:`forward`.
        intensity : Tensor (..., C)
            Intensities :math:`10^{L/10}` of the components, not negative.

        Returns
        -------
        Tensor (..., N)
            Excitation as a ratio to that of 0 dB.
        """
        return self._passed(roex_power, freqs, intensity, "intensity")

    def _passed(self, function: Callable[..., Tensor], freqs: Tensor, values: Tensor, name: str) -> Tensor:
        """What an operation makes of components with ``values`` (..., C), levels or intensities."""
        check_floating("freqs", freqs)
        check_floating(name, values)
        freqs, limit, weights = freqs.to(self._held_type), self.spreading_limit_octaves, None
        if freqs.dim() == 1 < values.dim():
            weights = self._weights.get(partial(roex_weights, limit=limit), freqs)
        return function(
            freqs,
            values.to(self._held_type),
            self.fc_channels,
            self.p_channels,
            self.level_dep_factor.clamp(0, 1),
            self.p1000,
            limit,
            weights=weights,
        )

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return (
            f"{self.n_channels} channels {self.erb_lower:g} ... {self.erb_upper:g} ERB in steps of {self.erb_step:g}, "
            f"spreading_limit_octaves={self.spreading_limit_octaves:g}, learnable={self.learnable!r}, "
            f"dtype={self.dtype}"
        )
