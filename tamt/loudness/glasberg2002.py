"""Loudness of time-varying sounds after Glasberg and Moore (2002)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tamt._learnable import Form
from tamt.loudness.attack_release import AttackRelease
from tamt.loudness.front_ends import BandsFrontEnd, ComponentsFrontEnd
from tamt.loudness.meter import LoudnessMeter, peak
from tamt.loudness.specific_loudness import STEP, Glasberg2002SpecificLoudness

# Attack and release of short-term and long-term loudness, for steps of 1 ms.
COEFFICIENTS = 0.045, 0.02, 0.01, 0.0005
HOPS = {"published": 1, "documents": 32}  # ms


class Loudness(NamedTuple):
    """Loudness over time, in S frames.

    Attributes
    ----------
    specific : Tensor (..., S, 150)
        Instantaneous specific loudness of one ear in sone/Cam.
    instantaneous, short_term, long_term : Tensor (..., S)
        Loudness of the sound in both ears, in sone.
    peak : Tensor (...)
        The largest long-term loudness, in sone: the loudness of a sound as a whole.
    """

    specific: Tensor
    instantaneous: Tensor
    short_term: Tensor
    long_term: Tensor
    peak: Tensor


class Glasberg2002Loudness(LoudnessMeter[Loudness]):
    r"""Loudness of a sound that both ears hear alike over time, after Glasberg and Moore (2002).

    Sound passes the outer and middle ear (:class:`OuterMiddleEar`); its spectrum in every frame causes an excitation,
    that a specific loudness (:class:`Glasberg2002SpecificLoudness`), whose sum over channels a quarter of a Cam apart,
    for two ears, is the instantaneous loudness. One :class:`AttackRelease` makes it short-term, and a second long-term.

    It takes sound pressure in pascal (..., T), and gives a named tuple, :class:`tamt.loudness.Loudness`. A tensor
    (2, T) is a batch of two sounds, where :class:`Moore2016Loudness` takes it as the left and the right ear of one.

    Frame i is centred on sample ``32 hop i`` of the sound, with silence before and after it. There are
    ``T // (32 hop) + 1``: to see the loudness decay, append silence.

    Parameters
    ----------
    front_end : {'published', 'documents'}
        What finds the excitation. ``'published'``: components of six windows and rounded-exponential filters, as the
        paper has them (:class:`Moore2016Spectrum`, :class:`Moore2016ExcitationPattern`), every millisecond.
        ``'documents'``: :class:`MultiResolutionFFT`, :class:`ERBIntegration` and :class:`ExcitationPattern`, every 32
        ms. This takes much less time, but is not calibrated: it counts energy of neighbouring bands more than once, and
        gives 1.1 sone for 1 kHz at 40 dB SPL and 30 to 50 % too much for white noise.
    fs : float
        Sampling rate in Hz, always 32000.
    field : {'free', 'diffuse', 'eardrum'}
        Where the sound was measured: in a free field with the source in front, in a diffuse field, or at the eardrum.
    hop : int, optional
        Milliseconds from one frame to the next, up to 64 and by default 1; ``'documents'`` has 32 alone. The recursions
        take :math:`1 - (1 - a)^\mathrm{hop}` for their coefficients.
    high : {'1997', '2007'}
        Loudness above 100 dB, see :class:`Glasberg2002SpecificLoudness`: a tone of 1 kHz at 120 dB SPL has 560 sone
        by that of 1997, and 306 by that of ISO 532-2.
    learnable : bool or 'relative'
        Whether the stages from specific loudness on are learnable, and the excitation of ``'published'``, see there.
    dtype : torch.float32 or torch.float64, optional
        Computing type, by default float32; sound of another floating type is converted.
    device : torch.device, optional
        Where the tensors are made.

    Returns
    -------
    specific : Tensor (..., S, 150)
        Of a call, in S frames: instantaneous specific loudness of one ear in sone/Cam.
    instantaneous, short_term, long_term : Tensor (..., S)
        Loudness of the sound in both ears, in sone.
    peak : Tensor (...)
        The largest long-term loudness, in sone: the loudness of a sound as a whole.

    Attributes
    ----------
    ear, front, specific, short_term, long_term : Module
        The stages; ``front.spectrum`` and ``front.pattern`` are the spectrum and the excitation.
    frame_rate : float
        Frames per second.
    latency : int
        3072 samples, 96 ms: how far behind the sound :meth:`stream` is.

    Raises
    ------
    ValueError
        An argument outside its range, sound without a time axis.
    TypeError
        Sound that is not floating, or an unsupported ``dtype``, also float64 on MPS.

    Warns
    -----
    UserWarning
        The sound has a peak above 200 Pa, a peak level of 140 dB SPL, and so hardly is in pascal (on the CPU, outside
        of ``torch.compile``).

    See Also
    --------
    Moore2016Loudness : the newer model, of both ears.
    sone2phon : loudness levels.
    tamt.spl.calibrate : what makes pascal of a recording.
    tamt.plot.loudness : a picture of the result.

    Notes
    -----
    Constants are those of ANSI S3.4-2007, the middle ear too. No reference program exists for this variant: its stages
    are held against AMT's one by one. AMT's own ``glasberg2002`` passes excitation to specific loudness in pascal
    squared, and so finds 5e-15 sone for a tone of 60 dB SPL.

    References
    ----------
    B. R. Glasberg, B. C. J. Moore (2002), "A model of loudness applicable to time-varying sounds", J. Audio Eng. Soc.
    50, 331-342; ANSI S3.4-2007.

    Examples
    --------
    >>> import math, torch, tamt
    >>> time = torch.arange(16000) / 32000
    >>> tone = tamt.spl.full_scale_pascal(60) * torch.sin(2 * math.pi * 1000 * time)
    >>> loudness = tamt.Glasberg2002Loudness()(tone)
    >>> loudness.short_term.shape, round(loudness.short_term[-100].item(), 2)
    (torch.Size([501]), 4.11)
    """

    def __init__(
        self,
        front_end: str = "published",
        fs: float = 32000,
        field: str = "free",
        hop: int | None = None,
        high: str = "1997",
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        if front_end not in HOPS:
            raise ValueError(f"front_end must be one of {', '.join(map(repr, HOPS))}, got {front_end!r}")
        super().__init__(fs, field, HOPS[front_end] if hop is None else hop, learnable, dtype, device)
        if front_end == "documents" and self.hop != HOPS[front_end]:
            raise ValueError(f"hop must be {HOPS[front_end]} ms with front_end='documents', got {hop}")
        self.front_end = front_end
        common: dict[str, Any] = {"learnable": learnable, "dtype": self.dtype, "device": device}
        attack, release, slow_attack, slow_release = COEFFICIENTS
        if front_end == "published":
            self.front = ComponentsFrontEnd(self.hop, False, **common)
        else:
            self.front = BandsFrontEnd(self.dtype, device)
        self.specific = Glasberg2002SpecificLoudness(self.front.fc, high, **common)
        self.short_term = AttackRelease(attack, release, hop=self.hop, **common)
        self.long_term = AttackRelease(slow_attack, slow_release, hop=self.hop, **common)

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return f"front_end={self.front_end!r}, {super().extra_repr()}"

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(math.prod(x.shape[:-1]), 1, x.shape[-1])

    def _kept(self, lead: torch.Size) -> tuple[tuple[int, ...], ...]:
        return lead, lead

    def _over_time(self, specific: Tensor, before: tuple[Tensor, ...] | None) -> tuple[Loudness, tuple[Tensor, ...]]:
        first, second = (None, None) if before is None else (before[:1], before[1:])
        instantaneous = 2 * STEP * specific.sum(-1)
        short, smooth = self.short_term.stream(instantaneous, first)
        long, slow = self.long_term.stream(short, second)
        return Loudness(specific, instantaneous, short, long, peak(long)), (*smooth, *slow)

    def _shaped(self, loudness: Loudness, x: Tensor) -> Loudness:
        return Loudness(*(part.reshape((*x.shape[:-1], *part.shape[2:])) for part in loudness))
