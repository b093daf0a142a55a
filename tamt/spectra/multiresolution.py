"""The multi-resolution power spectrum of loudness models: short windows for high frequencies, long ones for low."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tamt._arguments import as_signal, check_sampling_rate, real_numbers
from tamt._base import DESIGN, Base
from tamt._learnable import Form, Learnable
from tamt.ops.frames import frames, group_means
from tamt.ops.product import product

WINDOW_LENGTHS = (2048, 1024, 512, 256, 128, 64)
FREQ_THRESHOLDS = (500.0, 1000.0, 2000.0, 4000.0, 8000.0)

DENSE_BINS = 48  # up to so many bins one matrix product with all of them is quicker than a factored transform


class MultiResolutionFFT(Learnable):
    r"""Power spectral density over time from several windows, each in the frequency band that suits it.

    The band between two thresholds is analysed by one window, low frequencies by the longest. With periodic Hann
    windows :math:`w` of length :math:`L` at hops of ``int(L * hop_fraction)`` samples, centred at multiples of the
    hop, and edges reflected as by ``torch.stft(center=True)``, the density is one-sided,

    .. math::

        \mathrm{PSD}[k] = \frac{2\,|\mathrm{STFT}[k]|^2}{f_s \sum_n w[n]^2},

    DC and Nyquist frequency without the factor 2. In Pa^2/Hz for a signal in pascal, its sum over bins times the bin
    width is the mean square pressure of noise; the notes say what it is of tones and clicks.

    Frame :math:`m` of the output is centred at :math:`m` longest hops. A shorter window contributes the mean of those
    of its frames whose centres lie in ``[-hop/2, hop/2)`` of that instant, ``hop`` the longest one, interpolated
    linearly at the bins of the longest window.

    Parameters
    ----------
    fs : float
        Sampling rate in Hz.
    window_lengths : list of int, optional
        Samples per window, at least 1, no two alike; ``[2048, 1024, 512, 256, 128, 64]`` by default. They are used
        from long to short.
    hop_fraction : float
        Hop in window lengths, in (0, 1].
    learnable : bool or 'relative'
        Whether ``freq_thresholds`` is a parameter. Neighbouring windows then fade into each other around their
        threshold, over one bin of the shorter; elsewhere the result is that of the fixed module. ``'relative'``: the
        parameter is ``log_freq_thresholds`` (K-1,), the logarithm of the ratio to the thresholds by design.
    freq_thresholds : Tensor (K-1,), array or list, optional
        Band limits in Hz for K windows, in (0, fs/2), used in rising order; by default the first K-1 of
        ``[500, 1000, 2000, 4000, 8000]``, of which those above fs/2 leave their windows without a band.
    device : torch.device, optional
        Where the tensors are made.
    dtype : torch.float32 or torch.float64, optional
        Computing type; by default the input's own, half types in float32.

    Attributes
    ----------
    window_lengths : list of int
        Samples per window from long to short.
    hop_lengths, window_power : dict
        Hop in samples, and sum of the squared window, by window length.
    freq_thresholds : Tensor (K-1,)
        Band limits in Hz. The fixed module follows changes of them on the CPU; elsewhere and in compiled graphs, where
        nothing may be read back, only those by ``load_state_dict``, and after others its result is NaN.
    window_{length} : Tensor (length,)
        The windows, to look at: the transforms are computed from their definition.

    Raises
    ------
    ValueError
        An argument outside its range, or a signal of another shape than (B, T) or (T,), or no longer than half the
        longest window.
    TypeError
        A signal that is not floating.

    See Also
    --------
    ERBIntegration : levels in auditory bands of this spectrum.
    Moore2016Spectrum : the components of the model of 2016.

    Notes
    -----
    Of noise the sum is the mean square within 1 %, and of a tone far from the band limits within 0.1 %. A tone near a
    limit, where neighbouring windows cut each other's main lobes, comes out up to 21 % too weak or 24 % too strong;
    1 kHz, which is a limit by default, 8 % too weak. A click has 0.78 to 1.32 of its energy, by its place between
    frames. AMT has no such function: what it is held to is this formula.

    Signals are analysed in their own type, half types in float32. What follows the last output frame by more than
    half a longest hop enters the longest window only, at its very end. A band takes few of its window's bins, so one
    product of all frames with a table of sines and cosines (cuBLAS or oneMKL do it) is quicker than an FFT; where
    many are wanted, as from all windows of a learnable module, the transform takes two such products.

    References
    ----------
    B. R. Glasberg, B. C. J. Moore (2002), "A model of loudness applicable to time-varying sounds", J. Audio Eng. Soc.
    50, 331-342.

    Examples
    --------
    >>> import torch, tamt
    >>> psd, freqs = tamt.MultiResolutionFFT(fs=32000)(torch.randn(2, 32000))
    >>> psd.shape, freqs.shape
    (torch.Size([2, 32, 1025]), torch.Size([1025]))
    """

    freq_thresholds: Tensor

    def __init__(
        self,
        fs: float = 32000,
        window_lengths: Sequence[int] | None = None,
        hop_fraction: float = 0.5,
        learnable: Form = False,
        freq_thresholds: Tensor | Sequence[float] | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        check_sampling_rate(fs)
        lengths = _checked_lengths(WINDOW_LENGTHS if window_lengths is None else window_lengths)
        if not 0 < hop_fraction <= 1:
            raise ValueError(f"hop_fraction must lie in (0, 1], got {hop_fraction}")
        if int(lengths[-1] * hop_fraction) < 1:
            raise ValueError(
                f"hop_fraction must be at least 1/{lengths[-1]} for a window of {lengths[-1]} samples, "
                f"got {hop_fraction}"
            )
        self.fs = fs
        self.hop_fraction = hop_fraction
        self.window_lengths = lengths
        self.hop_lengths = {length: int(length * hop_fraction) for length in lengths}
        with DESIGN:
            thresholds = _checked_thresholds(freq_thresholds, len(lengths), fs)
            windows = {length: _hann(length) for length in lengths}
            self.window_power = {length: windows[length].square().sum().item() for length in lengths}
            reference = torch.arange(lengths[0] // 2 + 1, dtype=torch.float64) * (fs / lengths[0])
        self._register_state({"freq_thresholds": thresholds})
        for length, window in windows.items():
            self._register_constant(f"window_{length}", window, persistent=True)
        self._register_exact("freqs", reference)
        self._follow("freq_thresholds", thresholds.float())

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Analyse a signal.

        Parameters
        ----------
        signal : Tensor (B, T) or (T,)
            ``T`` more than half the longest window.

        Returns
        -------
        psd : Tensor (B, n_frames, n_bins)
            Power spectral density; B is 1 for a signal (T,), ``n_frames = 1 + T // hop``, ``n_bins = L // 2 + 1`` with
            hop and length of the longest window.
        freqs : Tensor (n_bins,)
            Frequencies in Hz, from 0 to fs/2.
        """
        x = as_signal(signal, self._computing_type(signal))
        if x.dim() > 2:
            raise ValueError(f"the signal must have shape (B, T) or (T,), got {tuple(x.shape)}")
        longest = self.window_lengths[0]
        before, after = longest // 2, longest - longest // 2
        if x.shape[-1] <= after:
            raise ValueError(
                f"the signal must have at least {after + 1} samples, more than half the longest window of {longest}, "
                f"got {x.shape[-1]}"
            )
        x = x if x.dim() == 2 else x[None]
        self._up_to_date()
        # Reflected by copies: the adjoint of torch's reflection pad is not deterministic on CUDA.
        padded = torch.cat((x[:, 1 : before + 1].flip(1), x, x[:, -after - 1 : -1].flip(1)), 1)
        freqs = self._exact("freqs", x.dtype)
        parts = [band(padded) for band in self.bands]
        if self.learnable:
            return self._mixed(parts, freqs), freqs
        return self._or_nan(torch.cat(parts, -1)), freqs

    def get_window_selection_map(self) -> tuple[Tensor, Tensor]:
        """Which window is in charge of which frequency.

        Returns
        -------
        freqs : Tensor (n_bins,)
            Frequencies in Hz.
        window_indices : Tensor (n_bins,), long
            Positions in ``window_lengths``: 0 is the longest window.
        """
        freqs = self._exact("freqs", torch.float32)
        return freqs, _window_indices(freqs, self.freq_thresholds.detach().float())

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return f"fs={self.fs}, hop_fraction={self.hop_fraction}, learnable={self.learnable!r}, dtype={self.dtype}"

    def _mixed(self, parts: list[Tensor], freqs: Tensor) -> Tensor:
        """Spectra of all windows, faded from each to the next around their threshold."""
        psd = parts[0]
        thresholds = self.freq_thresholds.to(freqs.dtype).sort().values
        for length, threshold, part in zip(self.window_lengths[1:], thresholds.unbind(), parts[1:], strict=True):
            t = ((freqs - threshold) * (length / self.fs) + 0.5).clamp(0, 1)
            # Differentiable twice, and flat at both ends: the clamp needs no gradient.
            psd = torch.lerp(psd, part, t**3 * (10 + t * (6 * t - 15)))
        return psd

    def _build(self, thresholds: Tensor) -> None:
        """The windows' analyses for thresholds (K-1,) on the CPU; a window without a band has none."""
        longest, bands = self.window_lengths[0], []
        with DESIGN:
            freqs = (torch.arange(longest // 2 + 1, dtype=torch.float64) * (self.fs / longest)).float()
            window_of = _window_indices(freqs, thresholds.float())
            for index, length in enumerate(self.window_lengths):
                supplied = torch.arange(len(freqs)) if self.learnable else (window_of == index).nonzero()[:, 0]
                if len(supplied):
                    hops = self.hop_lengths[length], self.hop_lengths[longest]
                    bands.append(_Band(self.fs, length, longest, hops, supplied, self._like.device))
        self.bands = nn.ModuleList(bands)


class _Band(Base):
    """One window's power spectral density at some bins of the longest window, averaged over each of its hops."""

    def __init__(
        self, fs: float, length: int, longest: int, hops: tuple[int, int], supplied: Tensor, device: torch.device
    ) -> None:
        super().__init__(device=device)
        self.length, self.longest, self.hops = length, longest, hops
        self.hertz = supplied[0].item() * fs / longest, supplied[-1].item() * fs / longest
        # Position of the wanted frequencies among the window's own bins, in exact fractions.
        last = length // 2
        whole = (supplied * length).div(longest, rounding_mode="floor").clamp(max=last)
        beyond = ((supplied * length) % longest).double() / longest
        beyond[whole == last] = 0  # of an odd window, whose last bin is below fs/2: as np.interp
        start, stop = int(whole.min()), int((whole + (beyond > 0)).max()) + 1
        window = _hann(length)
        window = window * (2 / (fs * window.square().sum())).sqrt()
        bins = torch.arange(start, stop)
        share = torch.where((2 * bins) % length == 0, 0.5, 1.0).double()  # DC and Nyquist are not doubled
        self.dense = len(bins) <= DENSE_BINS
        if self.dense:
            angle = _angle(torch.arange(length)[:, None] * bins, length)
            waves = torch.cat((torch.cos(angle) * share.sqrt(), torch.sin(angle) * share.sqrt()), 1)
            self._register_exact("waves", window[:, None] * waves)
        else:
            first, second, order = _factors(length)
            self._register_exact("window", window)
            self._register_exact("first", first)
            self._register_exact("second", second)
        self.interpolated = length != longest
        if self.interpolated:
            weights = torch.zeros(len(bins) + 1, len(supplied), dtype=torch.float64)
            column = torch.arange(len(supplied))
            weights[whole - start, column] = 1 - beyond
            weights[whole - start + 1, column] = beyond
            weights = weights[:-1]
            if not self.dense:
                places = torch.zeros(second.shape[0] * second.shape[1] // 2, len(supplied), dtype=torch.float64)
                weights = places.index_copy_(0, order[start:stop], share[:, None] * weights)
            self._register_exact("weights", weights)
        elif not self.dense:
            self.bins = slice(start, stop)
            self._register_exact("share", share)

    def forward(self, padded: Tensor) -> Tensor:
        """From the signal (B, T + longest) with its reflected edges to (B, n_frames, n_supplied)."""
        start = self.longest // 2 - self.length // 2
        stop = start - (self.longest - self.length)
        power = self._frame_power(frames(padded[:, start : stop or None], self.length, self.hops[0]))
        if self.hops[0] != self.hops[1]:
            count = 1 + (padded.shape[1] - self.longest) // self.hops[1]
            if self.hops[1] % self.hops[0]:
                power = _averaged(power, *self.hops, count)
            else:
                power = group_means(power, self.hops[1] // self.hops[0], count)
        if self.interpolated:
            power = power if self.dense else power.permute(1, 2, 0, 3).flatten(2)
            return product(power, self._exact("weights", power.dtype))
        return power if self.dense else self._in_order(power)[..., self.bins] * self._exact("share", power.dtype)

    def _in_order(self, power: Tensor) -> Tensor:
        """Power (K, B, J, Q) of the factored transform in rising frequency: (B, J, PQ).

        By what stands where, not by a tensor of positions, which averages of a module's buffers would spoil.
        """
        mirrored = power[1 : self.length // power.shape[3] - power.shape[0] + 1].flip(0, 3)
        return torch.cat((power, mirrored)).permute(1, 2, 3, 0).flatten(2)

    def _frame_power(self, x: Tensor) -> Tensor:
        """Power of frames (B, J, L) at the bins: (B, J, n), or in the order of the factored transform (K, B, J, Q)."""
        dtype = x.dtype
        batch, count, _ = x.shape
        if self.dense:
            cosine, sine = product(x, self._exact("waves", dtype)).chunk(2, -1)
            return cosine.square() + sine.square()
        first, second = self._exact("first", dtype), self._exact("second", dtype)
        rows, columns = first.shape[1], second.shape[1] // 2
        blocks = (x * self._exact("window", dtype)).view(batch * count, rows, columns)
        half = product(first.expand(batch * count, -1, -1), blocks)
        half = half.view(batch * count, second.shape[0], 2 * columns).transpose(0, 1)
        real, imaginary = product(half, second).view(second.shape[0], batch, count, 2 * columns).chunk(2, -1)
        return real.square() + imaginary.square()

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return f"{self.length} samples, {self.hertz[0]:.1f} ... {self.hertz[1]:.1f} Hz"


def _checked_lengths(lengths: Sequence[int]) -> list[int]:
    for length in lengths:
        if isinstance(length, bool) or int(length) != length or length < 1:
            raise ValueError(f"window_lengths must be integers of at least 1, got {length}")
    found = [int(length) for length in lengths]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"window_lengths must hold at least one length and none twice, got {found}")
    return sorted(found, reverse=True)


def _checked_thresholds(thresholds: Tensor | Sequence[float] | None, windows: int, fs: float) -> Tensor:
    if thresholds is None:
        if windows - 1 > len(FREQ_THRESHOLDS):
            raise ValueError(f"freq_thresholds must be given for more than 6 windows, got {windows} windows")
        return torch.tensor(FREQ_THRESHOLDS[: windows - 1], dtype=torch.float64)
    given = real_numbers("freq_thresholds", thresholds, torch.float64, torch.device("cpu")).detach()
    if given.shape != (windows - 1,):
        raise ValueError(
            f"freq_thresholds must have shape ({windows - 1},) for {windows} windows, got {tuple(given.shape)}"
        )
    wrong = given[~((given > 0) & (given < fs / 2))]
    if wrong.numel():
        raise ValueError(f"freq_thresholds must lie in (0, fs/2) = (0, {fs / 2:g}) Hz, got {wrong[0].item():g}")
    return given.sort().values


def _window_indices(freqs: Tensor, thresholds: Tensor) -> Tensor:
    """Index of the window for each frequency; both in float32, or a limit on a bin could fall on either side."""
    return torch.bucketize(freqs, thresholds.sort().values, right=True)


def _hann(length: int) -> Tensor:
    return torch.hann_window(length, periodic=True, dtype=torch.float64)


def _angle(turns: Tensor, length: int) -> Tensor:
    """``2 pi turns / length`` of integers, to the last bit."""
    return (turns % length).double() * (2 * math.pi / length)


def _factors(length: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""The discrete Fourier transform of ``length = P Q`` real samples as two matrix products, for powers only.

    With :math:`n = Q n_1 + n_2` and :math:`k = k_1 + P k_2`

    .. math::

        X[k] = \sum_{n_2} e^{-2\pi i n_2 k / PQ} \sum_{n_1} x[n] e^{-2\pi i n_1 k_1 / P},

    of which :math:`k_1 \le P/2` is enough, as :math:`|X[PQ - k]| = |X[k]|`.

    Returns
    -------
    first : Tensor (2K, P)
        Takes samples (P, Q) to the inner sums, real and imaginary part of each ``k_1`` in turn; K = P // 2 + 1.
    second : Tensor (K, 2Q, 2Q)
        Takes these, real parts before imaginary ones, to the outer sums.
    order : Tensor (length // 2 + 1,), long
        Positions of the frequencies ``k`` in (K, Q).
    """

    def cost(p: int) -> float:
        return p + (p // 2 + 1) / p * 4 * (length / p)

    p = min((p for p in range(1, length + 1) if length % p == 0), key=cost)
    q, kept = length // p, p // 2 + 1
    k1, n1, n2 = torch.arange(kept), torch.arange(p), torch.arange(q)
    inner = _angle(q * k1[:, None] * n1, length)
    first = torch.stack((torch.cos(inner), -torch.sin(inner)), 1).flatten(0, 1)
    outer = _angle(n2[:, None] * (k1[:, None, None] + p * torch.arange(q)), length)
    cosine, sine = torch.cos(outer), torch.sin(outer)
    second = torch.cat((torch.cat((cosine, -sine), 2), torch.cat((sine, cosine), 2)), 1)
    k = torch.arange(length // 2 + 1)
    k = torch.where(k % p < kept, k, length - k)
    return first, second, (k % p) * q + k.div(p, rounding_mode="floor")


def _averaged(power: Tensor, hop: int, longest_hop: int, n_frames: int) -> Tensor:
    """Means (..., n_frames, n) of the frames (..., J, n) whose centres lie in half a longest hop around its multiples.

    Where the last multiple has no frame of its own so close, which takes a hop above half the longest one, the last
    frame stands for it.
    """
    count = power.shape[-2]
    most = -(-longest_hop // hop)
    m = torch.arange(n_frames + 1, device=power.device)
    limits = ((2 * m - 1) * longest_hop + 2 * hop - 1).div(2 * hop, rounding_mode="floor")
    start = limits[:-1].clamp(0, count - 1)
    stop = torch.maximum(limits[1:].clamp(max=count), start + 1)
    index = start[:, None] + torch.arange(most, device=power.device)
    share = (index < stop[:, None]).to(power.dtype) / (stop - start)[:, None].to(power.dtype)
    index = torch.minimum(index, stop[:, None] - 1)  # what has no share is a frame of the same mean, which may be NaN
    return (power[..., index, :] * share[..., None]).sum(-2)
