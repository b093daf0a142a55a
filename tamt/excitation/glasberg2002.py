"""Spreading of excitation as the documents have it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tamt._arguments import check_floating, check_sampling_rate
from tamt._base import DESIGN
from tamt._learnable import Form, Learnable
from tamt.ops.spreading import spreading
from tamt.scales import erbrate2f, erbrate_positions
from tamt.shared.spreading import MIN_SLOPE

# dB/ERB at 60 dB SPL, and what 1 dB of level takes from them.
SLOPES = {"upper_slope_base": 27.0, "lower_slope_base": 11.0, "upper_slope_per_db": 0.37, "lower_slope_per_db": 0.20}


class ExcitationPattern(Learnable):
    r"""Spreading of excitation to neighbouring auditory filters, by slopes that depend on the level.

    Bands k lie at :math:`e_k = \mathrm{f2erbrate}(f_\mathrm{min}) + k\,\mathrm{erb\_step}`. A band at the level E loses
    :math:`s_u(E)` dB/ERB towards higher frequencies and :math:`s_l(E)` towards lower ones; what is not more than 50 dB
    down adds to a band's power:

    .. math::

        \mathrm{out}_j &= 10 \log_{10} \sum_{i:\,A_{ij} \le 50} 10^{(E_i - A_{ij})/10}, \qquad
            A_{ij} = \begin{cases} s_u(E_i)\,(e_j - e_i) & e_j \ge e_i \\
                s_l(E_i)\,(e_i - e_j) & e_j < e_i \end{cases} \\
        s_u(E) &= \max(27 - 0.37\,(E - 60),\, 10), \qquad s_l(E) = \max(11 - 0.20\,(E - 60),\, 10)

    Parameters
    ----------
    fs : float
        Sampling rate in Hz, which bounds ``f_max``.
    f_min, f_max : float
        Lowest centre frequency and the one that the highest reaches at least, in Hz, ``0 <= f_min < f_max <= fs/2``.
    erb_step : float
        Distance of the bands on the scale of ``f2erbrate``, greater than 0.
    learnable : bool or 'relative'
        Whether the four numbers of the slopes are parameters (else buffers of the same names). ``'relative'``:
        parameters (1,) that are 0 by design take their place, ``log_upper_slope_base`` and so on, the logarithms of
        their ratios to the design.
    device : torch.device, optional
        Where the tensors are made.
    dtype : torch.float32 or torch.float64, optional
        Computing type; by default the input's own, half types in float32.

    Attributes
    ----------
    upper_slope_base, lower_slope_base : Tensor ()
        Slopes at ``level_ref``, 27 and 11 dB/ERB.
    upper_slope_per_db, lower_slope_per_db : Tensor ()
        What 1 dB of level takes from them, 0.37 and 0.20 dB/ERB.
    level_ref : Tensor ()
        60 dB SPL.
    fc_erb, erb_centers : Tensor (n,)
        Centre frequencies in Hz, and on the scale of ``f2erbrate``.
    n_erb_bands : int
        n, 150 by default.

    Raises
    ------
    ValueError
        An argument outside its range, or at the call another number of bands.
    TypeError
        Levels that are not floating.

    See Also
    --------
    ERBIntegration : the levels that it takes.
    Moore2016ExcitationPattern : excitation as masking shows it.
    tamt.plot.excitation_patterns : a picture of excitation over frequency at several levels.

    Notes
    -----
    This is a convention of the documents that tamt began with and of torch_amt, not the excitation pattern of Glasberg
    and Moore (2002) and not what masking shows. A loud band spreads far towards lower frequencies and little towards
    higher ones: of a tone of 1 kHz and 80 dB SPL, by :class:`MultiResolutionFFT` and :class:`ERBIntegration`, there is
    37 dB less at 4 ERB below and 108 dB less at 4 ERB above. In :class:`Moore2016ExcitationPattern`, and in data, it is
    the other way round. As bands overlap and add up, the peak lies 0.4 to 3.8 dB above the level of a tone. Take
    :class:`Moore2016ExcitationPattern` to compare with data.

    Levels are spread in their own type, half types in float32. Any finite levels and gradients are safe, and exact to
    rounding where the levels of a row lie within 400 dB of each other; in float32 a band fainter than that may keep its
    own level. A band without power is -inf dB. NaN and +inf make their row NaN.

    The slopes' numbers are float32 unless the module is converted: that 0.37 is rounded is worth up to 1e-6 dB.

    References
    ----------
    B. R. Glasberg, B. C. J. Moore (2002), "A model of loudness applicable to time-varying sounds", in which
    this takes the place of the excitation pattern.

    Examples
    --------
    >>> import torch, tamt
    >>> tamt.ExcitationPattern()(60 + 20 * torch.randn(2, 32, 150)).shape
    torch.Size([2, 32, 150])
    """

    fc_erb: Tensor
    erb_centers: Tensor
    upper_slope_base: Tensor
    lower_slope_base: Tensor
    upper_slope_per_db: Tensor
    lower_slope_per_db: Tensor
    level_ref: Tensor

    def __init__(
        self,
        fs: float = 32000,
        f_min: float = 50.0,
        f_max: float = 15000.0,
        erb_step: float = 0.25,
        learnable: Form = False,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        check_sampling_rate(fs)
        if f_max > fs / 2:
            raise ValueError(f"f_max must not exceed fs/2 = {fs / 2:g} Hz, got {f_max} Hz")
        self.fs = fs
        self.f_min = f_min
        self.f_max = f_max
        self.erb_step = erb_step
        with DESIGN:
            centres = erbrate_positions(f_min, f_max, erb_step)
            frequencies = erbrate2f(centres)
            tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in SLOPES.items()}
            level_ref = torch.tensor(60.0, dtype=torch.float32)
        self.n_erb_bands = len(centres)
        self._register_state(tensors)
        self._register_constant("erb_centers", centres, persistent=True)
        self._register_constant("fc_erb", frequencies, persistent=True)
        self._register_state({"level_ref": level_ref}, learnable=())

    def forward(self, E: Tensor) -> Tensor:
        """Spread levels.

        Parameters
        ----------
        E : Tensor (..., n_erb_bands)
            Levels in dB SPL, as :class:`ERBIntegration` gives them.

        Returns
        -------
        Tensor (..., n_erb_bands)
            Excitation levels in dB SPL.
        """
        check_floating("E", E)
        if E.dim() < 1 or E.shape[-1] != self.n_erb_bands:
            raise ValueError(f"E must have shape (..., {self.n_erb_bands}), got {tuple(E.shape)}")
        dtype = self._computing_type(E)
        return spreading(
            E.to(dtype),
            self.upper_slope_base.to(dtype),
            self.lower_slope_base.to(dtype),
            self.upper_slope_per_db.to(dtype),
            self.lower_slope_per_db.to(dtype),
            self.level_ref.to(dtype),
            self.erb_step,
        )

    def get_spreading_slopes(self, level_db: float) -> tuple[float, float]:
        """Slopes of a band at a level, as they are now.

        Parameters
        ----------
        level_db : float
            Level in dB SPL.

        Returns
        -------
        upper, lower : float
            Slopes in dB/ERB towards higher and towards lower frequencies.

        Raises
        ------
        ValueError
            A level that is not finite.
        """
        if not math.isfinite(level_db):
            raise ValueError(f"level_db must be finite, got {level_db}")
        above = level_db - self.level_ref.item()
        upper = self.upper_slope_base.item() - self.upper_slope_per_db.item() * above
        lower = self.lower_slope_base.item() - self.lower_slope_per_db.item() * above
        return max(upper, MIN_SLOPE), max(lower, MIN_SLOPE)

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return (
            f"{self.n_erb_bands} bands, fs={self.fs}, f_min={self.f_min}, f_max={self.f_max}, "
            f"erb_step={self.erb_step}, learnable={self.learnable!r}, dtype={self.dtype}"
        )
