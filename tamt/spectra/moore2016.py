"""Sparse short-time spectra of both ears, the first stage of the binaural loudness model of Moore et al. (2016)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tamt._arguments import as_signal, check_count
from tamt._base import DESIGN
from tamt._learnable import Form, Learnable
from tamt.ops.compaction import compaction
from tamt.ops.windowed_dft import dft_tables, windowed_dft

FS = 32000
FRAME = 2048
BIN = FS / FRAME  # Hz
WINDOWS = (2048, 1024, 512, 256, 128, 64)
LIMITS = ((20, 80), (80, 500), (500, 1250), (1250, 2540), (2540, 4050), (4050, 15000))  # Hz
HANN_DB = 3.32  # what the long window takes from a tone's power, as AMT rounds it
SHARPNESS = 1.0  # dB: width of the smooth thresholds
MARGIN = 0.1  # of the threshold: learnable modules keep what is above this part of it


class Moore2016Spectrum(Learnable):
    r"""Relevant components of stereo signals: six Hann windows, each for its own band, every millisecond or slower.

    A frame of 2048 samples is seen through windows of 2048, 1024 ... 64 samples in its middle. With
    :math:`S = 2 |X| / 2048` (at half the sampling rate without the 2) of window k = 0 ... 5 the intensity is

    .. math:: I = S^2 \cdot 10^{0.332} \cdot 2^k \cdot 10^{\mathrm{db\_max}/10},

    and a component is relevant if it is less than ``threshold_max_minus`` dB below the frame's strongest one and above
    ``threshold_absolute`` dB.

    Parameters
    ----------
    fs : float
        Sampling rate in Hz, always 32000.
    segment_duration : int
        Time from one frame to the next in ms.
    db_max : float
        Level of a tone of amplitude 1 in dB SPL.
    learnable : bool or 'relative'
        Whether ``freq_limits``, ``threshold_max_minus`` and ``threshold_absolute`` are parameters (else buffers of the
        same names). Limits and thresholds are smooth then, see the notes. ``'relative'``: parameters that are 0 by
        design take their place, ``log_freq_limits`` (6, 2), the logarithm of the ratio to the limits by design, and
        ``delta_threshold_max_minus`` and ``delta_threshold_absolute`` (1,), differences in dB.
    dtype : torch.float32 or torch.float64, optional
        Computing type, by default float32; signals of another floating type are converted.
    max_components : int, optional
        Length C of the lists; of fuller frames the strongest components are kept. If not given, C is what the fullest
        frame of the call needs, which is read back from the device.
    joint_threshold : bool
        Whether the strongest component of both ears counts, as in AMT, or each ear's own.
    device : torch.device, optional
        Where the tensors are made.

    Attributes
    ----------
    freq_limits : Tensor (6, 2)
        Band of each window in Hz. A limit counts from the bin that contains it; the last band includes its upper one.
    threshold_max_minus, threshold_absolute : Tensor ()
        60 dB and -30 dB.
    hop : int
        Samples from one frame to the next.

    Raises
    ------
    ValueError
        An argument outside its range, a signal that is not (B, 2, N), or shorter than a frame and a hop.
    TypeError
        A signal that is not floating, or an unsupported ``dtype``, also float64 on MPS.

    See Also
    --------
    Moore2016ExcitationPattern : what these components excite.
    tamt.plot.components : a picture of them.

    Notes
    -----
    A fixed module follows changes of ``freq_limits`` on the CPU; elsewhere and in compiled graphs, where nothing may be
    read back, only those by ``load_state_dict``, and after others its levels are NaN. Gradients reach the signal
    through the levels; frequencies, and which components are kept, are constant.

    With ``learnable=True`` every window computes all bins. Its weight rises from 0 to 1 within one bin spacing
    (sampling rate over length) on either side of its lower limit, and falls likewise at the upper one; the spacing is
    that of the shorter of the two windows that meet there, and equal limits of neighbours give weights that sum to one.
    The thresholds become weights :math:`1 / (1 + e^{-d})` for d dB above each; components down to 10 dB below them are
    listed. More than 10 dB above, and away from the limits, levels are those of the fixed module to 0.01 dB.

    References
    ----------
    B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher (2016), "A loudness model for time-varying
    sounds incorporating binaural inhibition"; AMT function ``moore2016_spectrum``.

    Examples
    --------
    >>> import torch, tamt
    >>> spectrum = tamt.Moore2016Spectrum(segment_duration=2, max_components=400)
    >>> freqs_left, levels_left, freqs_right, levels_right = spectrum(1e-3 * torch.randn(3, 2, 16000))
    >>> levels_left.shape
    torch.Size([3, 218, 400])
    """

    _COMPUTES_IN = torch.float32

    freq_limits: Tensor
    threshold_max_minus: Tensor
    threshold_absolute: Tensor
    _frequencies: Tensor
    _tables: Tensor
    _weight: Tensor

    def __init__(
        self,
        fs: float = FS,
        segment_duration: int = 1,
        db_max: float = 93.98,
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        max_components: int | None = None,
        joint_threshold: bool = False,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        if fs != FS:
            raise ValueError(f"fs must be {FS} Hz, got {fs}")
        check_count("segment_duration", segment_duration)
        if max_components is not None:
            check_count("max_components", max_components)
        if not math.isfinite(db_max):
            raise ValueError(f"db_max must be a finite level in dB, got {db_max}")
        self.fs = fs
        self.segment_duration = int(segment_duration)
        self.db_max = db_max
        self.max_components = max_components if max_components is None else int(max_components)
        self.joint_threshold = joint_threshold
        self.hop = FS // 1000 * self.segment_duration
        values = {"freq_limits": LIMITS, "threshold_max_minus": 60.0, "threshold_absolute": -30.0}
        tensors = {name: torch.tensor(value, dtype=self._held_type, device=DESIGN) for name, value in values.items()}
        self._register_state(tensors, levels=("threshold_max_minus", "threshold_absolute"))
        self._follow("freq_limits", tensors["freq_limits"])

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Components of both ears.

        Parameters
        ----------
        audio : Tensor (B, 2, N)
            Sound at the left and the right ear; a tone of amplitude 1 has the level ``db_max``.

        Returns
        -------
        freqs_left, levels_left, freqs_right, levels_right : Tensor (B, S, C)
            Frequencies in Hz and levels in dB SPL in S = (N - 2048) // hop frames. Components in rising frequency, then
            0 Hz and 0 dB.
        """
        intensity, threshold, peak = self._analysed(audio)
        freqs, levels = compaction(intensity, self._frequencies, threshold, self.max_components)
        if self.learnable:
            levels = torch.where(freqs > 0, self._smoothly_limited(levels, peak), 0.0)
        return freqs[0], levels[0], freqs[1], levels[1]

    def dense(self, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All components: the lists' without their lengths, and without ``max_components``.

        :class:`Moore2016ExcitationPattern` takes them as they are.

        Parameters
        ----------
        audio : Tensor (B, 2, N)
            As for :meth:`forward`.

        Returns
        -------
        freqs : Tensor (F,)
            In Hz, the same for all frames.
        levels_left, levels_right : Tensor (B, S, F)
            In dB SPL, of S = (N - 2048) // hop frames; -inf where a component is not relevant.
        """
        intensity, threshold, peak = self._analysed(audio)
        relevant = _relevant(intensity, threshold)
        levels = 10 * torch.log10(torch.where(relevant, intensity, 1.0))
        if self.learnable:
            levels = self._smoothly_limited(levels, peak)
        left, right = torch.where(relevant, levels, -math.inf)
        return self._frequencies.clone(), left, right

    def intensities(self, audio: Tensor, last: bool = False) -> tuple[Tensor, Tensor]:
        r"""All components of ``audio`` (B, E, N) as intensities, whose gradient is finite at silence.

        :meth:`Moore2016ExcitationPattern.excitation` takes them as they are. No logarithm is taken, but by learnable
        modules for the weights of their smooth thresholds.

        Parameters
        ----------
        audio : Tensor (B, E, N)
            Of E = 1 or 2 ears.
        last : bool
            Whether the last whole frame counts, which AMT leaves out.

        Returns
        -------
        freqs : Tensor (F,)
            In Hz, the same for all frames.
        intensity : Tensor (E, B, S, F)
            :math:`10^{L/10}` of the levels L of :meth:`dense`; S = (N - 2048) // hop frames, or with the ``last`` one
            more; 0 where a component is not relevant.
        """
        intensity, threshold, peak = self._analysed(audio, (1, 2), last)
        relevant = _relevant(intensity, threshold)
        if self.learnable:
            levels = 10 * torch.log10(torch.where(relevant, intensity, 1.0))
            of_peak, of_threshold = self._above(levels, peak)
            intensity = intensity * torch.sigmoid(of_peak) * torch.sigmoid(of_threshold)
        return self._frequencies.clone(), torch.where(relevant, intensity, 0.0)

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return (
            f"fs={self.fs}, segment_duration={self.segment_duration}, db_max={self.db_max}, "
            f"learnable={self.learnable!r}, dtype={self.dtype}, max_components={self.max_components}, "
            f"joint_threshold={self.joint_threshold}"
        )

    def _analysed(
        self, audio: Tensor, ears: tuple[int, ...] = (2,), last: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Intensities (E, B, S, F), what relevant ones are above, and the largest (E, B, S); E is one of ``ears``."""
        audio = as_signal(audio, self._held_type)
        if audio.dim() != 3 or audio.shape[1] not in ears:
            shapes = " or ".join(f"(B, {count}, N)" for count in ears)
            raise ValueError(f"audio must have shape {shapes}, got {tuple(audio.shape)}")
        # AMT counts one frame less than there is room for.
        unseen = 0 if last else self.hop
        if audio.shape[2] < FRAME + unseen:
            raise ValueError(f"audio must have at least {FRAME + unseen} samples, got {audio.shape[2]}")
        self._up_to_date()
        heard = audio[..., : audio.shape[2] - unseen].transpose(0, 1)
        weight = self._band_weights().flatten() * self._weight if self.learnable else self._weight
        intensity = windowed_dft(heard, self._bands, self.hop, FRAME, weight=weight, tables=self._tables)
        intensity = self._or_nan(intensity)
        peak = (intensity if self.learnable else intensity.detach()).amax(-1)
        if self.joint_threshold:
            peak = peak.amax(0, keepdim=True).expand(peak.shape)
        threshold = torch.maximum(peak * 10 ** (-self.threshold_max_minus / 10), 10 ** (self.threshold_absolute / 10))
        threshold = threshold.clamp_max(torch.finfo(self._held_type).max)  # what is infinite is above it
        return intensity, MARGIN * threshold if self.learnable else threshold, peak

    def _band_weights(self) -> Tensor:
        """Weights (6, 1024) of the bins in the bands of the windows."""
        # A limit counts from the bin that contains it: halfway between a bin and the next, on average.
        middle = self._frequencies + BIN / 2
        spacing = [FS / length for length in WINDOWS]
        widths = zip(self.freq_limits, spacing, [*spacing[1:], spacing[-1]], strict=True)
        rows = [
            _step((middle - low) / at_low) - _step((middle - high) / at_high) for (low, high), at_low, at_high in widths
        ]
        return torch.stack(rows).clamp_min(0)

    def _smoothly_limited(self, levels: Tensor, peak: Tensor) -> Tensor:
        """``levels`` (..., C) in dB with the weights of the smooth thresholds; ``peak`` (...): largest intensities."""
        of_peak, of_threshold = self._above(levels, peak)
        # log(1 / (1 + exp(-d))) is -softplus(-d), whose gradient needs d alone: its result may be changed in place.
        loss = _softplus(-of_peak)
        loss += _softplus(-of_threshold)
        return loss.mul_(-10 / math.log(10)).add_(levels)

    def _above(self, levels: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
        """How far ``levels`` (..., C) are above both thresholds, in their widths."""
        below_peak = 10 * torch.log10(peak.clamp_min(1e-30))[..., None] - self.threshold_max_minus
        return (levels - below_peak) / SHARPNESS, (levels - self.threshold_absolute) / SHARPNESS

    def _build(self, limits: Tensor) -> None:
        """Bands, and the tensors that belong to them, for limits (6, 2) in Hz on the CPU."""
        if not limits.isfinite().all():
            raise ValueError(f"freq_limits must be finite, got {limits.tolist()}")
        bands, scales = [], []
        for k, (length, (low, high)) in enumerate(zip(WINDOWS, limits.tolist(), strict=True)):
            if self.learnable:
                first, last = 1, FRAME // 2
            else:
                first = max(1, math.floor(low / BIN))
                last = min(FRAME // 2, math.floor(high / BIN) - (length != WINDOWS[-1]))
            if first <= last:
                bands.append((length, first, last))
                scale = torch.full((last - first + 1,), (2 / FRAME) ** 2 * 2**k, dtype=torch.float64, device="cpu")
                scale[torch.arange(first, last + 1, device="cpu") == FRAME // 2] /= 4
                scales.append(scale * 10 ** ((HANN_DB + self.db_max) / 10))
        if not bands:
            raise ValueError(f"freq_limits must leave at least one window a bin, got {limits.tolist()}")
        self._bands = tuple(bands)
        low_bin, high_bin = min(first for _, first, _ in bands), max(last for _, _, last in bands)
        constants: dict[str, Tensor | Callable[[], Tensor]] = {
            "_frequencies": BIN * torch.arange(low_bin, high_bin + 1, dtype=torch.float64, device="cpu"),
            "_tables": partial(dft_tables, bands, FRAME, dtype=torch.float64, device="cpu"),
            "_weight": torch.cat(scales),
        }
        for name, value in constants.items():
            self._register_constant(name, value)


def _relevant(intensity: Tensor, threshold: Tensor) -> Tensor:
    """As in the lists NaN is relevant, and so is everything beside a threshold of NaN."""
    return ~(intensity.detach() <= threshold.detach()[..., None])


def _softplus(t: Tensor) -> Tensor:
    """``log(1 + exp(t))``, exact in float64 too."""
    return nn.functional.softplus(t, threshold=40)


def _step(t: Tensor) -> Tensor:
    """Smooth step from 0 at -1 to 1 at 1 whose first two derivatives are continuous; ``_step(t) + _step(-t) = 1``."""
    u = (0.5 * t + 0.5).clamp(0, 1)
    return u * u * u * (10 + u * (6 * u - 15))
