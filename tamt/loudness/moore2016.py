"""Loudness of time-varying sounds in both ears, after Moore et al. (2016)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tamt._learnable import Form
from tamt.loudness.attack_release import AttackRelease
from tamt.loudness.binaural_inhibition import BinauralInhibition
from tamt.loudness.front_ends import ComponentsFrontEnd
from tamt.loudness.meter import LoudnessMeter, peak
from tamt.loudness.specific_loudness import CHANNELS, STEP, Moore2016SpecificLoudness

# Attack and release of short-term and long-term loudness, for steps of 1 ms.
VERSIONS = {"2018": (0.045, 0.033, 0.01, 0.00133), "2016": (0.045, 0.02, 0.01, 0.0005)}


class BinauralLoudness(NamedTuple):
    """Loudness over time, in S frames, of one ear (E = 1, heard by both) or two.

    Attributes
    ----------
    specific : Tensor (..., E, S, 150)
        Instantaneous specific loudness of the ears in sone/Cam, before they inhibit each other.
    short_term, long_term : Tensor (..., S)
        Short-term and long-term loudness of both ears together, in sone.
    short_term_ears, long_term_ears : Tensor (..., E, S)
        What each ear contributes, in sone.
    peak : Tensor (...)
        The largest long-term loudness, in sone: the loudness of a sound as a whole.
    """

    specific: Tensor
    short_term: Tensor
    long_term: Tensor
    short_term_ears: Tensor
    long_term_ears: Tensor
    peak: Tensor


class Moore2016Loudness(LoudnessMeter[BinauralLoudness]):
    r"""Loudness of sound in both ears over time, after Moore et al. (2016), the model of ISO 532-3.

    Sound passes the outer and middle ear (:class:`OuterMiddleEar`). Every ``hop`` ms its spectrum
    (:class:`Moore2016Spectrum`) causes an excitation (:class:`Moore2016ExcitationPattern`), and that a specific
    loudness (:class:`Moore2016SpecificLoudness`), which an :class:`AttackRelease` makes short-term. The ears inhibit
    each other (:class:`BinauralInhibition`). Channels, a quarter of a Cam apart, add up to the short-term loudness of
    each ear, which another :class:`AttackRelease` makes long-term. Both ears add up.

    It takes sound pressure in pascal at the left and the right ear (..., 2, T), or what both ears hear, (..., 1, T) or
    (T,), and gives a named tuple, :class:`tamt.loudness.BinauralLoudness`. A tensor (2, T) is one stereo sound: two
    sounds that both ears hear are (2, 1, T), ``sound[:, None]``. :class:`Glasberg2002Loudness` takes (2, T) as two.

    Frame i is centred on sample ``32 hop i`` of the sound, with silence before and after it. There are
    ``T // (32 hop) + 1``: to see the loudness decay, append silence.

    Parameters
    ----------
    fs : float
        Sampling rate in Hz, always 32000.
    field : {'free', 'diffuse', 'eardrum'}
        Where the sound was measured: in a free field with the source in front, in a diffuse field, or at the eardrum.
    version : {'2018', '2016'}
        Time constants of the authors' program and ISO 532-3, or of the paper of 2016.
    hop : int
        Milliseconds from one frame to the next, up to 64. The model's own is 1; with more, the recursions take
        :math:`1 - (1 - a)^\mathrm{hop}` for their coefficients.
    learnable : bool or 'relative'
        Whether the stages from excitation on are learnable, see there. What passes the ear and which components are
        relevant is not learnt.
    dtype : torch.float32 or torch.float64, optional
        Computing type, by default float32; sound of another floating type is converted.
    device : torch.device, optional
        Where the tensors are made.

    Returns
    -------
    specific : Tensor (..., E, S, 150)
        Of a call, for E = 1 or 2 ears and S frames: instantaneous specific loudness of the ears in sone/Cam, before
        they inhibit each other.
    short_term, long_term : Tensor (..., S)
        Short-term and long-term loudness of both ears together, in sone.
    short_term_ears, long_term_ears : Tensor (..., E, S)
        What each ear contributes, in sone. One ear stands for both: its values count twice.
    peak : Tensor (...)
        The largest long-term loudness, in sone: the loudness of a sound as a whole.

    Attributes
    ----------
    ear, front, specific, short_term, inhibition, long_term : Module
        The stages; ``front.spectrum`` and ``front.pattern`` are the spectrum and the excitation.
    frame_rate : float
        Frames per second.
    latency : int
        3072 samples, 96 ms: how far behind the sound :meth:`stream` is.

    Raises
    ------
    ValueError
        An argument outside its range, sound of another shape.
    TypeError
        Sound that is not floating, or an unsupported ``dtype``, also float64 on MPS.

    Warns
    -----
    UserWarning
        The sound has a peak above 200 Pa, a peak level of 140 dB SPL, and so hardly is in pascal (on the CPU, outside
        of ``torch.compile``).

    See Also
    --------
    Glasberg2002Loudness : the older model, of a sound that both ears hear alike.
    sone2phon : loudness levels.
    tamt.spl.calibrate : what makes pascal of a recording.
    tamt.plot.loudness : a picture of the result.

    Notes
    -----
    Loudness of 1 sone is that of a tone of 1 kHz at 40 dB SPL in a free field. :func:`sone2phon` gives loudness levels.
    Without gradients frames are computed some at a time, and memory beside the results does not grow with their
    number. Silence has finite gradients.

    References
    ----------
    B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher (2016), "A loudness model for time-varying
    sounds incorporating binaural inhibition", Trends in Hearing 20; B. C. J. Moore, M. Jervis, L. Harries,
    J. Schlittenlacher (2018), "Testing and refining a loudness model for time-varying sounds incorporating binaural
    inhibition"; ISO 532-3; AMT function ``moore2016``.

    Examples
    --------
    A tone of 1 kHz and 60 dB SPL, in both ears and in one:

    >>> import math, torch, tamt
    >>> time = torch.arange(8000) / 32000
    >>> tone = tamt.spl.full_scale_pascal(60) * torch.sin(2 * math.pi * 1000 * time)
    >>> model = tamt.Moore2016Loudness()
    >>> round(model(tone).peak.item(), 2)
    3.73
    >>> loudness = model(torch.stack((tone, 0 * tone)))
    >>> round(loudness.peak.item(), 2), loudness.long_term.shape
    (2.49, torch.Size([251]))
    """

    def __init__(
        self,
        fs: float = 32000,
        field: str = "free",
        version: str = "2018",
        hop: int = 1,
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(fs, field, hop, learnable, dtype, device)
        if version not in VERSIONS:
            raise ValueError(f"version must be one of {', '.join(map(repr, VERSIONS))}, got {version!r}")
        self.version = version
        common: dict[str, Any] = {"learnable": learnable, "dtype": self.dtype, "device": device}
        attack, release, slow_attack, slow_release = VERSIONS[version]
        self.front = ComponentsFrontEnd(self.hop, True, **common)
        self.specific = Moore2016SpecificLoudness(**common)
        self.short_term = AttackRelease(attack, release, dim=-2, hop=self.hop, **common)
        self.inhibition = BinauralInhibition(**common)
        self.long_term = AttackRelease(slow_attack, slow_release, hop=self.hop, **common)

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return f"version={self.version!r}, {super().extra_repr()}"

    def _rows(self, x: Tensor) -> Tensor:
        if x.dim() > 1 and x.shape[-2] not in (1, 2):
            hint = "samples by ears are sound.T" if x.shape[-1] in (1, 2) else "sounds (B, T) are sound[:, None]"
            raise ValueError(
                "the sound must have shape (..., 2, T), or for the same in both ears (..., 1, T) or (T,), got "
                f"{tuple(x.shape)}; {hint}"
            )
        return x.reshape(math.prod(x.shape[:-2]), 1 if x.dim() == 1 else x.shape[-2], x.shape[-1])

    def _kept(self, ears: torch.Size) -> tuple[tuple[int, ...], ...]:
        return (*ears, CHANNELS), ears

    def _over_time(
        self, specific: Tensor, before: tuple[Tensor, ...] | None
    ) -> tuple[BinauralLoudness, tuple[Tensor, ...]]:
        frames = specific.shape[2]
        smooth: tuple[Tensor, ...] | None = None
        slow = None if before is None else before[1:]
        last: list[Tensor] = []

        def heard(rows: slice, part: slice) -> Tensor:
            nonlocal smooth
            if part.start == 0:
                smooth = None if before is None else (before[0][rows],)
            some, smooth = self.short_term.stream(specific[rows, :, part], smooth)
            if part.stop == frames:
                last.extend(smooth)
            return STEP * self.inhibition(some).sum(-1)

        short = self._in_parts(heard, specific, frames)
        long, after = self.long_term.stream(short, slow)
        # One ear stands for both.
        both, both_long = (2 / short.shape[1] * ears.sum(1) for ears in (short, long))
        loudness = BinauralLoudness(specific, both, both_long, short, long, peak(both_long))
        return loudness, (torch.cat(last), *after)

    def _shaped(self, loudness: BinauralLoudness, x: Tensor) -> BinauralLoudness:
        return BinauralLoudness(*(part.reshape((*x.shape[:-2], *part.shape[1:])) for part in loudness))
