"""Power per auditory filter."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from tamt._arguments import COMPUTING_TYPES, check_floating, check_sampling_rate
from tamt._base import DESIGN
from tamt._learnable import Form, Learnable
from tamt._memo import Memo, readable
from tamt.ops.product import product
from tamt.scales import erb_bandwidth, erbrate2f, erbrate_positions
from tamt.spl import REFERENCE_PRESSURE

LEAST_POWER = 1e-12  # Pa^2

SCALE_RANGE = 0.1, 10.0


class ERBIntegration(Learnable):
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
    learnable : bool or 'relative'
        Whether ``integration_weights`` and ``bandwidth_scale`` are parameters, or, ``'relative'``, the logarithms
        ``log_integration_weights`` (n,) and ``log_bandwidth_scale`` (1,), which are 0 by design. The edge of a band
        then cuts its bin in proportion, each bin standing for :math:`[f - \Delta f/2, f + \Delta f/2]`: that can be
        differentiated.
    device : torch.device, optional
        Where the tensors are made.
    dtype : torch.float32 or torch.float64, optional
        Computing type; by default the input's own, half types in float32.

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

    See Also
    --------
    MultiResolutionFFT : the spectrum that it takes.
    ExcitationPattern : what spreads from its bands to others.

    Notes
    -----
    The fixed module adds whole bins, as its formula has it. In low bands, which hold few of them, the level of a flat
    spectrum is therefore up to 1.1 dB off from that of the nominal bandwidth (below 500 Hz, bins of 15.6 Hz), 0.2 dB
    above 2 kHz. AMT has no such function: what it is held to is this formula.

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
        learnable: Form = False,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        check_sampling_rate(fs)
        self.fs = fs
        self.f_min = f_min
        self.f_max = f_max
        self.erb_step = erb_step
        with DESIGN:
            centres = erbrate2f(erbrate_positions(f_min, f_max, erb_step))
            one = torch.ones((), dtype=torch.float32)
            tensors = {"integration_weights": one.expand(len(centres)).clone(), "bandwidth_scale": one}
        self.n_erb_bands = len(centres)
        self._register_state(tensors)
        self._register_constant("fc_erb", centres, persistent=True)
        self._register_exact("centres", centres)
        self._register_exact("halves", 0.5 * erb_bandwidth(centres))
        self._grids: dict[torch.dtype, Memo[tuple[Tensor, Tensor]]] = {dtype: Memo() for dtype in COMPUTING_TYPES}
        self._tables: dict[torch.dtype, Memo[tuple[Tensor, Tensor]]] = {dtype: Memo() for dtype in COMPUTING_TYPES}

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
        check_floating("psd", psd)
        check_floating("freqs", freqs)
        if freqs.dim() != 1 or freqs.shape[0] < 2:
            raise ValueError(f"freqs must have shape (n_bins,) with at least 2 bins, got {tuple(freqs.shape)}")
        if psd.dim() < 1 or psd.shape[-1] != freqs.shape[0]:
            raise ValueError(
                f"psd must have shape (..., n_bins) for freqs of shape (n_bins,), got {tuple(psd.shape)} and "
                f"{tuple(freqs.shape)}"
            )
        dtype = self._computing_type(psd)
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
        """Centre frequencies of the bands.

        Returns
        -------
        Tensor (n_erb_bands,)
            In Hz.
        """
        return self.fc_erb

    def get_erb_bandwidths(self) -> Tensor:
        """Bandwidths ``ERB(fc_erb)``, without ``bandwidth_scale``.

        Returns
        -------
        Tensor (n_erb_bands,)
            In Hz.
        """
        return erb_bandwidth(self.fc_erb)

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return (
            f"{self.n_erb_bands} bands, fs={self.fs}, f_min={self.f_min}, f_max={self.f_max}, "
            f"erb_step={self.erb_step}, learnable={self.learnable!r}, dtype={self.dtype}"
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
        half = bandwidth_scale.to(dtype).clamp(*SCALE_RANGE) * self._exact("halves", dtype) / df
        if not self.learnable:
            return (distance <= half).to(dtype), df
        # Overlap of a bin and a band, at most the narrower of both.
        inside, most = half + 0.5 - distance, (2 * half).clamp(max=1)
        return torch.where(inside < most, inside, most).relu(), df
