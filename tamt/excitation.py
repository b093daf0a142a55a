"""Excitation of the ear: power per auditory filter."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from tamt._base import Base, TypedBase, computing_type
from tamt._memo import Memo, readable
from tamt._module import check_sampling_rate, computing_device, default_device, register
from tamt.ops.product import product
from tamt.ops.roex import roex
from tamt.ops.spreading import spreading
from tamt.reference.spreading import MIN_SLOPE
from tamt.scales import erbrate2f, f2erbrate

REFERENCE_PRESSURE = 20e-6  # Pa at 0 dB SPL
LEAST_POWER = 1e-12  # Pa^2
SCALE_RANGE = 0.1, 10.0
# dB/ERB at 60 dB SPL, and what 1 dB of level takes from them.
SLOPES = {"upper_slope_base": 27.0, "lower_slope_base": 11.0, "upper_slope_per_db": 0.37, "lower_slope_per_db": 0.20}


class ERBIntegration(Base):
    r"""Level of a power spectrum in bands as wide as the auditory filters.

    With centre frequencies :math:`f_k` evenly spaced on the scale of ``f2erbrate``, bins :math:`\Delta f` apart,
    weights :math:`w_k` and a scale :math:`s` of the bandwidths, the level in dB SPL is

    .. math::

        P_k &= w_k\, \Delta f \sum_{|f - f_k| \le s\,\mathrm{ERB}(f_k)/2} \mathrm{PSD}(f), \qquad
            \mathrm{ERB}(f) = 24.673\,(4.368 f/1000 + 1) \\
        E_k &= 10 \log_{10} \frac{\max(P_k, 10^{-12}\,\mathrm{Pa}^2)}{(20\,\mathrm{µPa})^2}

    Parameters
    ----------
    fs : float
        Sampling rate in Hz, for the record: the frequencies come with the spectrum.
    f_min, f_max : float
        Lowest centre frequency and the one that the highest reaches at least, in Hz, ``0 <= f_min < f_max``.
    erb_step : float
        Distance of the centres on the scale of ``f2erbrate``, greater than 0.
    learnable : bool
        Whether ``integration_weights`` and ``bandwidth_scale`` are parameters. The edge of a band then cuts its bin in
        proportion, each bin standing for :math:`[f - \Delta f/2, f + \Delta f/2]`: that can be differentiated.
    device : torch.device, optional
        Where the tensors are made.

    Attributes
    ----------
    fc_erb : Tensor (n,)
        Centre frequencies in Hz of the design.
    integration_weights : Tensor (n,)
        Factors of the bands' powers, 1 by default.
    bandwidth_scale : Tensor ()
        Factor of the bandwidths, 1 by default; used within [0.1, 10].
    n_erb_bands : int
        n, 150 by default.

    Raises
    ------
    ValueError
        An argument outside its range, shapes of spectrum and frequencies that do not belong together; on the CPU also
        frequencies that are not evenly spaced and rising, and a negative power.
    TypeError
        A spectrum or frequencies that are not floating.

    Notes
    -----
    Spectra are integrated in their own type, half types in float32. On other devices, and in compiled modules, nothing
    is read back to raise an error: there a spectrum with a negative power, or any with unevenly spaced frequencies,
    has levels of NaN. The sums are one product (cuBLAS or oneMKL do it) with a table of bands; on the CPU the table is
    kept for as long as frequencies and bandwidths are the same numbers.

    References
    ----------
    B. R. Glasberg, B. C. J. Moore (1990), "Derivation of auditory filter shapes from notched-noise data"; (2002), "A
    model of loudness applicable to time-varying sounds".

    Examples
    --------
    >>> import torch, tamt
    >>> psd, freqs = tamt.MultiResolutionFFT(fs=32000)(torch.randn(2, 32000))
    >>> tamt.ERBIntegration(fs=32000)(psd, freqs).shape
    torch.Size([2, 32, 150])
    """

    fc_erb: Tensor
    integration_weights: Tensor
    bandwidth_scale: Tensor
    _centres_high: Tensor
    _centres_low: Tensor

    def __init__(
        self,
        fs: float = 32000,
        f_min: float = 50.0,
        f_max: float = 15000.0,
        erb_step: float = 0.25,
        learnable: bool = False,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_sampling_rate(fs)
        self.fs = fs
        self.f_min = f_min
        self.f_max = f_max
        self.erb_step = erb_step
        self.learnable = learnable
        device = default_device(device)
        with torch.device("cpu"):  # the design is in float64, which not every device has
            centres = erbrate2f(_band_positions(f_min, f_max, erb_step))
            one = torch.ones((), dtype=torch.float32)
            tensors = {"integration_weights": one.expand(len(centres)).clone(), "bandwidth_scale": one}
        self.n_erb_bands = len(centres)
        register(self, {name: t.to(device) for name, t in tensors.items()}, tensors if learnable else ())
        self.register_constant("fc_erb", centres, device, persistent=True)
        self.register_exact("centres", centres, device)
        self.register_exact("halves", 0.5 * _erb(centres), device)
        types = torch.float32, torch.float64
        self._grids: dict[torch.dtype, Memo[tuple[Tensor, Tensor]]] = {dtype: Memo() for dtype in types}
        self._tables: dict[torch.dtype, Memo[tuple[Tensor, Tensor]]] = {dtype: Memo() for dtype in types}

    def forward(self, psd: Tensor, freqs: Tensor) -> Tensor:
        """Integrate a spectrum.

        Parameters
        ----------
        psd : Tensor (..., n_bins)
            Power spectral density in Pa^2/Hz.
        freqs : Tensor (n_bins,)
            Frequencies of its bins in Hz, evenly spaced; at least 2.

        Returns
        -------
        Tensor (..., n_erb_bands)
            Levels in dB SPL.
        """
        for name, tensor in (("psd", psd), ("freqs", freqs)):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
            if not tensor.is_floating_point():
                raise TypeError(f"{name} must be of a floating type, got {tensor.dtype}")
        if freqs.dim() != 1 or freqs.shape[0] < 2:
            raise ValueError(f"freqs must have shape (n_bins,) with at least 2 bins, got {tuple(freqs.shape)}")
        if psd.dim() < 1 or psd.shape[-1] != freqs.shape[0]:
            raise ValueError(
                f"psd must have shape (..., n_bins) for freqs of shape (n_bins,), got {tuple(psd.shape)} and "
                f"{tuple(freqs.shape)}"
            )
        dtype = computing_type(psd)
        psd = psd.to(dtype)
        negative = psd.detach().amin(-1, keepdim=True) < 0
        if readable(negative) and negative.any():
            raise ValueError(f"psd must not be negative, got {psd[psd < 0][0].item():g}")
        compute = partial(self._table, dtype=dtype)
        table, df = self._tables[dtype].get(compute, freqs, self.bandwidth_scale)
        power = product(psd, table) * (df * self.integration_weights.to(dtype))
        power = torch.where(negative, math.nan, power)
        return 10 * torch.log10(power.clamp(min=LEAST_POWER)) - 20 * math.log10(REFERENCE_PRESSURE)

    def get_erb_frequencies(self) -> Tensor:
        """Centre frequencies in Hz: (n_erb_bands,)."""
        return self.fc_erb

    def get_erb_bandwidths(self) -> Tensor:
        """Bandwidths ``ERB(fc_erb)`` in Hz, without :attr:`bandwidth_scale`: (n_erb_bands,)."""
        return _erb(self.fc_erb)

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return (
            f"{self.n_erb_bands} bands, fs={self.fs}, f_min={self.f_min}, f_max={self.f_max}, "
            f"erb_step={self.erb_step}, learnable={self.learnable}"
        )

    def _grid(self, freqs: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Distances (n_bins, n_erb_bands) of bins from the bands' centres in bins, and the width of a bin in Hz."""
        f = freqs.to(dtype)
        df = (f[-1] - f[0]) / (f.shape[0] - 1)
        steps = f.diff()
        rounding = 4 * torch.finfo(freqs.dtype).eps * f[-1].abs()
        even = ((steps - df).abs() <= 1e-2 * df + rounding).all() & (df > 0)
        if readable(even) and not even:
            raise ValueError(
                f"freqs must be evenly spaced and rising, got steps from {steps.min():g} to {steps.max():g} Hz"
            )
        df = torch.where(even, df, math.nan)
        distance = ((f[:, None] - self._centres_high.to(dtype)) - self._centres_low.to(dtype)).abs()
        return distance / df, df

    def _table(self, freqs: Tensor, bandwidth_scale: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """How much of each bin belongs to each band, (n_bins, n_erb_bands), and the width of a bin in Hz."""
        distance, df = self._grids[dtype].get(partial(self._grid, dtype=dtype), freqs)
        half = bandwidth_scale.to(dtype).clamp(*SCALE_RANGE) * self.exact("halves", dtype) / df
        if not self.learnable:
            return (distance <= half).to(dtype), df
        # Overlap of a bin and a band, at most the narrower of both.
        inside, most = half + 0.5 - distance, (2 * half).clamp(max=1)
        return torch.where(inside < most, inside, most).relu(), df


class ExcitationPattern(Base):
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
    learnable : bool
        Whether the four numbers of the slopes are parameters (else buffers of the same names).
    device : torch.device, optional
        Where the tensors are made.

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

    Notes
    -----
    Levels are spread in their own type, half types in float32. Any finite levels and gradients are safe, and exact to
    rounding where the levels of a row lie within 400 dB of each other; in float32 a band fainter than that may keep its
    own level. A band without power is -inf dB. NaN and +inf make their row NaN.

    The slopes' numbers are float32 unless the module is converted: that 0.37 is rounded is worth up to 1e-6 dB.

    References
    ----------
    B. R. Glasberg, B. C. J. Moore (2002), "A model of loudness applicable to time-varying sounds".

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
        learnable: bool = False,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_sampling_rate(fs)
        if f_max > fs / 2:
            raise ValueError(f"f_max must not exceed fs/2 = {fs / 2:g} Hz, got {f_max} Hz")
        self.fs = fs
        self.f_min = f_min
        self.f_max = f_max
        self.erb_step = erb_step
        self.learnable = learnable
        device = default_device(device)
        with torch.device("cpu"):  # the design is in float64, which not every device has
            centres = _band_positions(f_min, f_max, erb_step)
            frequencies = erbrate2f(centres)
        self.n_erb_bands = len(centres)
        tensors = {name: torch.tensor(value, dtype=torch.float32, device=device) for name, value in SLOPES.items()}
        register(self, tensors, SLOPES if learnable else ())
        self.register_constant("erb_centers", centres, device, persistent=True)
        self.register_constant("fc_erb", frequencies, device, persistent=True)
        self.register_buffer("level_ref", torch.tensor(60.0, dtype=torch.float32, device=device))

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
        if not isinstance(E, Tensor):
            raise TypeError(f"E must be a torch.Tensor, got {type(E).__name__}")
        if not E.is_floating_point():
            raise TypeError(f"E must be of a floating type, got {E.dtype}")
        if E.dim() < 1 or E.shape[-1] != self.n_erb_bands:
            raise ValueError(f"E must have shape (..., {self.n_erb_bands}), got {tuple(E.shape)}")
        dtype = computing_type(E)
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
        """Slopes of a band at ``level_db`` dB SPL in dB/ERB, towards higher and towards lower frequencies."""
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
            f"erb_step={self.erb_step}, learnable={self.learnable}"
        )


class Moore2016ExcitationPattern(TypedBase):
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
        Components further than this from a channel, or from each other in :math:`X`, do not count.
    learnable : bool
        Whether ``level_dep_factor`` is a parameter (else a buffer of that name).
    dtype : torch.float32 or torch.float64
        Computing type; inputs of another floating type are converted.
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
        frequencies and levels of different shapes, and (on the CPU, outside of ``torch.compile``) a frequency above
        100 kHz.
    TypeError
        Frequencies or levels that are not floating, or an unsupported ``dtype``, also float64 on MPS.

    Notes
    -----
    :math:`X_j` sees each component through the filter at that component's own frequency, as AMT's
    ``moore2016_excitationpattern`` does. Rows of the input do not influence each other: one with a NaN, an infinite
    level or (on a GPU or compiled) a frequency above 100 kHz gives NaN in all channels of that row only.

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
    """

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
        learnable: bool = False,
        dtype: torch.dtype = torch.float32,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not 0 < erb_lower < erb_upper < math.inf:
            raise ValueError(
                f"erb_lower and erb_upper must satisfy 0 < erb_lower < erb_upper, got {erb_lower} and {erb_upper}"
            )
        if not 0 < erb_step < math.inf:
            raise ValueError(f"erb_step must be a positive number, got {erb_step}")
        if not spreading_limit_octaves > 0:
            raise ValueError(f"spreading_limit_octaves must be positive, got {spreading_limit_octaves}")
        device = computing_device(device, dtype)
        self.erb_lower = erb_lower
        self.erb_upper = erb_upper
        self.erb_step = erb_step
        self.spreading_limit_octaves = spreading_limit_octaves
        self.learnable = learnable
        self.n_channels = math.floor((erb_upper - erb_lower) / erb_step + 1e-9) + 1
        self.p1000 = float(_roex_slope(torch.tensor(1000.0, dtype=torch.float64, device="cpu")))
        # In float64, which not every device has, then rounded once.
        erb = erb_lower + erb_step * torch.arange(self.n_channels, dtype=torch.float64, device="cpu")
        fc = erbrate2f(erb)
        for name, channels in (("erb_channels", erb), ("fc_channels", fc), ("p_channels", _roex_slope(fc))):
            self.register_constant(name, channels, device, dtype)
        factor = torch.tensor(0.35, dtype=dtype, device=device)
        register(self, {"level_dep_factor": factor}, ("level_dep_factor",) if learnable else ())

    @property
    def dtype(self) -> torch.dtype:
        """Computing type."""
        return self.fc_channels.dtype

    def forward(self, freqs: Tensor, levels: Tensor) -> Tensor:
        """Excitation levels (..., N) in dB of components with ``freqs`` in Hz and ``levels`` in dB, both (..., C).

        Components may come in any order. Where a frequency is 0 or below there is none.
        """
        for name, given in (("freqs", freqs), ("levels", levels)):
            if not isinstance(given, Tensor):
                raise TypeError(f"{name} must be a torch.Tensor, got {type(given).__name__}")
            if not given.is_floating_point():
                raise TypeError(f"{name} must be of a floating type, got {given.dtype}")
        return roex(
            freqs.to(self.dtype),
            levels.to(self.dtype),
            self.fc_channels,
            self.p_channels,
            self.level_dep_factor.clamp(0, 1),
            self.p1000,
            self.spreading_limit_octaves,
        )

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return (
            f"{self.n_channels} channels {self.erb_lower:g} ... {self.erb_upper:g} ERB in steps of {self.erb_step:g}, "
            f"spreading_limit_octaves={self.spreading_limit_octaves:g}, learnable={self.learnable}, dtype={self.dtype}"
        )


def _band_positions(f_min: float, f_max: float, erb_step: float) -> Tensor:
    """Checked positions of the bands' centres on the scale of ``f2erbrate``, float64."""
    if not 0 <= f_min < f_max < math.inf:
        raise ValueError(f"f_min and f_max must satisfy 0 <= f_min < f_max < inf, got {f_min} and {f_max} Hz")
    if not 0 < erb_step < math.inf:
        raise ValueError(f"erb_step must be positive and finite, got {erb_step}")
    low, high = f2erbrate(float(f_min)), f2erbrate(float(f_max))
    # The tolerance keeps rounding from adding a band where the range is a whole number of steps.
    steps = math.ceil((high - low) / erb_step - 1e-9)
    return low + erb_step * torch.arange(steps + 1, dtype=torch.float64)


def _erb(fc: Tensor) -> Tensor:
    """Equivalent rectangular bandwidth in Hz in the form of the loudness models."""
    return 24.673 * (4.368e-3 * fc + 1)


def _roex_slope(fc: Tensor) -> Tensor:
    """Slope ``p`` of a rounded-exponential filter as wide as the ERB, relative to its frequency."""
    return 4 * fc / _erb(fc)
