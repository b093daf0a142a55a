"""The dual-resonance nonlinear (DRNL) filterbank by recursive filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tamt._arguments import centre_frequencies, check_channels, check_sampling_rate, real_numbers, vector
from tamt._base import DESIGN
from tamt._learnable import Form, Learnable
from tamt._memo import Memo
from tamt.design.drnl import DRNLSections
from tamt.design.sections import modal_response
from tamt.ops.drnl import drnl
from tamt.ops.drnl_frames import drnl_frames
from tamt.ops.drnl_sections import drnl_sections
from tamt.scales import erb_spaced

CHANNELS = 50  # between the ends of a range of frequencies

SUBJECTS = ("NH", "HIx")

# Gammatone orders and numbers of low-passes: linear path, then nonlinear path (the gammatone on both sides).
MODELS = {"paulick2024": (2, 4, 2, 1), "jepsen2008": (3, 4, 3, 3)}

FILTERS = ("CF_lin", "BW_lin", "LP_lin_cutoff", "g", "CF_nlin", "BW_nlin", "LP_nlin_cutoff")

STICK = ("a", "b", "c")
LEAST_WINDOW = 0.1  # s of tones that their levels are taken of


class DRNLFilterbank(Learnable):
    r"""Dual-resonance nonlinear filters: the compressive cochlear filtering of the CASP model, one per channel.

    A linear path of gain :math:`g`, gammatone and low-passes, and a nonlinear path with a broken stick between two
    equal gammatones:

    .. math::

        y &= \mathrm{LP}^k_\mathrm{lin}(\mathrm{GT}_\mathrm{lin}(g x))
            + \mathrm{LP}^m_\mathrm{nlin}(\mathrm{GT}_\mathrm{nlin}(\mathrm{NL}(\mathrm{GT}_\mathrm{nlin}(x)))) \\
        \mathrm{NL}(v) &= \mathrm{sign}(v) \min(a |v|,\, b |v|^c)

    GT is the real pole-zero gammatone, 0 dB at its centre frequency, LP a second-order Butterworth low-pass. Input and
    output are velocities in m/s: sound times :func:`tamt.spl.stapes_velocity` of the level of a full-scale sine is the
    velocity of the stapes. With f the frequency of the channel in Hz and lg the logarithm to base 10:

    ================== =============================== ========
    parameter          by design                       at 1 kHz
    ================== =============================== ========
    ``CF_lin``         10^(-0.06762 + 1.01679 lg f) Hz 961 Hz
    ``BW_lin``         10^(0.03728 + 0.75 lg f) Hz     194 Hz
    ``LP_lin_cutoff``  10^(-0.06762 + 1.01 lg f) Hz    917 Hz
    ``g``              10^(4.20405 - 0.47909 lg f)     584
    ``CF_nlin``        10^(-0.05252 + 1.0165 lg f) Hz  993 Hz
    ``BW_nlin``        10^(-0.03193 + 0.77 lg f) Hz    190 Hz
    ``LP_nlin_cutoff`` as ``CF_nlin``                  993 Hz
    ``a``              10^(1.40298 + 0.81916 lg f)     7252
    ``b``              10^(1.61912 - 0.81867 lg f)     0.1456
    ``c``              10^-0.60206                     0.25
    ================== =============================== ========

    Above 1 kHz ``a`` and ``b`` are those of 1.5 kHz. For ``subject='HIx'`` ``a`` is 0, and ``b`` follows its formula
    everywhere.

    Parameters
    ----------
    fc : Tensor (F,), array, list, or tuple (flow, fhigh)
        Channel frequencies in Hz, in (0, fs/2]; a tuple gives ``n_channels`` of them, evenly spaced on the scale of
        ``fc2erb``.
    fs : float
        Sampling rate in Hz.
    n_channels : int
        Number of channels between the ends of a tuple, both among them. Beside a list of frequencies any other than the
        default is an error.
    subject : {'NH', 'HIx'}
        Normal hearing, or hearing impaired without the active mechanism: there ``a`` is 0, so that the nonlinear path
        is silent.
    model : {'paulick2024', 'jepsen2008'}
        Orders of the filters. ``'paulick2024'``: gammatones of order 2, 4 low-passes in the linear path and 1 in the
        other. ``'jepsen2008'``: order 3, 4 and 3 low-passes.
    learnable : bool or 'relative'
        Whether ``CF_lin BW_lin g CF_nlin BW_nlin a b c`` are parameters (else buffers of the same names). The filters
        follow them. ``'relative'``: parameters (F,) that are 0 by design take their place, ``log_CF_lin`` and so on,
        the logarithms of their ratios to the design. Ordinary optimisers can learn these.
    dtype : torch.float32 or torch.float64, optional
        Computing type, by default float64; signals of another floating type are converted.
    device : torch.device, optional
        Where the tensors are made.

    Attributes
    ----------
    fc : Tensor (F,)
        Channel frequencies of the design in Hz, which stay what they were when filters learn. Centre frequencies and
        bandwidths of the filters as they are now are ``CF_lin``, ``CF_nlin``, ``BW_lin`` and ``BW_nlin``, of which
        :meth:`design` gives copies.
    CF_lin, BW_lin, LP_lin_cutoff : Tensor (F,)
        Centre frequencies, bandwidths and low-pass cut-offs of the linear path in Hz.
    g : Tensor (F,)
        Gain of the linear path.
    CF_nlin, BW_nlin, LP_nlin_cutoff : Tensor (F,)
        The same of the nonlinear path in Hz.
    a, b, c : Tensor (F,)
        The broken stick's slope at 0, factor (in (m/s)^(1-c)) and exponent.
    num_channels, n_channels : int
        Number of channels F.

    Raises
    ------
    ValueError
        An argument outside its range, ``n_channels`` beside a list of frequencies, a frequency so high that a path's
        centre reaches the Nyquist frequency, or a signal without a time axis.
    TypeError
        A signal that is not floating, or an unsupported ``dtype``, also float64 on MPS.

    See Also
    --------
    FastDRNLFilterbank : the same by FFT convolution.
    Cochleagram : frames of its output, which is never held.
    tamt.spl.stapes_velocity : what makes a velocity of sound.
    tamt.plot.io_functions : a picture of input/output curves.
    tamt.plot.tuning_curves : a picture of the output over the frequency of tones.
    tamt.plot.filter_responses : a picture of the filters of both paths.

    Notes
    -----
    A learnt bandwidth is used as at least ``1e-5 fs / 2 pi`` Hz. Gradients on the knee of the broken stick are those of
    its linear branch; at silence they are finite.

    The input/output curves of ``'jepsen2008'`` fall in the middle of their range in channels above 2 kHz, at 4 kHz with
    a slope of -0.81 dB/dB at 73 dB SPL, at 44.1 kHz and in steps of 0.5 dB: there the paths come out with opposite
    signs, and between 5 and 6 kHz they all but cancel. AMT's equations have it so. The curves of ``'paulick2024'`` rise
    everywhere.

    References
    ----------
    E. A. Lopez-Poveda, R. Meddis (2001), "A human nonlinear cochlear filterbank"; M. L. Jepsen, S. D. Ewert, T. Dau
    (2008), "A computational model of human auditory signal processing and perception"; L. Paulick et al. (2024); AMT
    function ``paulick2024_drnl``.

    Examples
    --------
    >>> import torch, tamt
    >>> bank = tamt.DRNLFilterbank((250, 8000), fs=44100)
    >>> bank(1e-3 * torch.randn(2, 4410)).shape
    torch.Size([2, 50, 4410])
    """

    _COMPUTES_IN = torch.float64
    DETECTORS: tuple[str, ...] = ("power", "halfwave")
    _STATES = 3  # tensors of a stream's state
    _LEARNABLE: tuple[str, ...] = ("CF_lin", "BW_lin", "g", "CF_nlin", "BW_nlin", "a", "b", "c")

    fc: Tensor
    CF_lin: Tensor
    BW_lin: Tensor
    LP_lin_cutoff: Tensor
    g: Tensor
    CF_nlin: Tensor
    BW_nlin: Tensor
    LP_nlin_cutoff: Tensor
    a: Tensor
    b: Tensor
    c: Tensor

    def __init__(
        self,
        fc: Tensor | np.ndarray | Sequence[float] | tuple[float, float],
        fs: float,
        n_channels: int = CHANNELS,
        subject: str = "NH",
        model: str = "paulick2024",
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        check_sampling_rate(fs)
        check_channels(n_channels, fc, CHANNELS)
        if subject not in SUBJECTS:
            raise ValueError(f"subject must be one of {SUBJECTS}, got {subject!r}")
        if model not in MODELS:
            raise ValueError(f"model must be one of {tuple(MODELS)}, got {model!r}")
        self.fs = fs
        self.subject = subject
        self.model = model
        with DESIGN:
            centre = centre_frequencies(fc, fs, partial(erb_spaced, count=int(n_channels)))
            tensors = _parameters(centre, subject)
        for name in ("CF_lin", "CF_nlin"):
            wrong = tensors[name] >= fs / 2
            if wrong.any():
                raise ValueError(
                    f"fc must keep the paths' centre frequencies below fs/2 = {fs / 2:g} Hz, got "
                    f"{centre[wrong][0].item():g} Hz with {name} at {tensors[name][wrong][0].item():.1f} Hz"
                )
            narrowest = torch.minimum(tensors["BW_lin"], tensors["BW_nlin"]).min().item()
        self._register_state(tensors, self._LEARNABLE)
        self._register_constant("fc", centre)
        self._span = centre[0].item(), centre[-1].item()
        self._narrowest = narrowest  # bandwidth of the design in Hz
        self._memo: Memo[DRNLSections] = Memo()

    @property
    def num_channels(self) -> int:
        """Number of channels F."""
        return self.fc.shape[0]

    n_channels = num_channels

    def forward(self, x: Tensor) -> Tensor:
        """Filter a signal, from rest.

        Parameters
        ----------
        x : Tensor (..., T)
            Velocity of the stapes in m/s.

        Returns
        -------
        Tensor (..., F, T)
            Velocity of the basilar membrane at every channel's place in m/s.
        """
        return self.stream(x)[0]

    def stream(self, x: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Filter the next chunk of a signal.

        Parameters
        ----------
        x : Tensor (..., T)
            The chunk.
        state : tuple of Tensor, optional
            What the call for the chunk before returned; None starts from rest.

        Returns
        -------
        y : Tensor (..., F, T)
        state : tuple of Tensor
            The states of the linear path and of the nonlinear path's first and second filter, each (..., F, N).
        """
        return self._filtered(*self._chunk(x, state, self._STATES), slice(None))

    def _filtered(
        self, x: Tensor, state: tuple[Tensor, ...] | None, channels: slice
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Some channels' outputs."""
        linear, front, back = (sections[channels] for sections in self._sections())
        return drnl(x, linear, front, back, self._stick()[channels], state=state)

    def _hop_means(
        self, x: Tensor, state: tuple[Tensor, ...] | None, hop: int, detector: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the detector gives on average in every whole hop (..., F, T // hop), and the state after the last."""
        return drnl_frames(x, *self._sections(), self._stick(), hop, detector, state=state)

    def path_responses(self, f: Tensor | np.ndarray | Sequence[float]) -> tuple[Tensor, Tensor]:
        r"""Complex responses of the filters of both paths, without the broken stick.

        Parameters
        ----------
        f : Tensor (K,) or array
            Frequencies in Hz.

        Returns
        -------
        linear : Tensor (F, K), complex
            :math:`g\,\mathrm{GT}_\mathrm{lin}\,\mathrm{LP}^k_\mathrm{lin}`.
        nonlinear : Tensor (F, K), complex
            :math:`\mathrm{GT}_\mathrm{nlin}^2\,\mathrm{LP}^m_\mathrm{nlin}`.
        """
        linear, front, back = self._sections()
        cycles = vector("f", f, self._held_type, self.fc.device) / self.fs
        return modal_response(linear, cycles), modal_response(front, cycles) * modal_response(back, cycles)

    def io_function(
        self,
        levels: Tensor | np.ndarray | Sequence[float],
        fc: Tensor | np.ndarray | Sequence[float] | float | None = None,
    ) -> Tensor:
        """Output level over input level of tones at the channels' frequencies, as they are after the onset.

        Parameters
        ----------
        levels : Tensor (L,) or array
            Input levels: root mean square in dB re 1 m/s.
        fc : float, Tensor (K,) or array, optional
            Frequencies of the channels to try, in Hz, each one of ``fc`` within 0.1 %; all channels if not given.

        Returns
        -------
        Tensor (K, L), or (L,) for a number ``fc``
            Output levels: root mean square of the channel whose frequency is the tone's, in dB re 1 m/s.

        Raises
        ------
        ValueError
            Levels that are no vector, a frequency that is not that of a channel.

        See Also
        --------
        tone_responses : the same for tones of any frequency.

        Notes
        -----
        dB re 1 m/s and dB SPL differ by a constant, ``tamt.spl.STAPES_LEVEL``, -161.4 dB, the level of the stapes for a
        tone of 0 dB SPL.

        Examples
        --------
        Output in dB re that level, for tones of 0, 20 ... 100 dB SPL:

        >>> import torch, tamt
        >>> from tamt.spl import STAPES_LEVEL
        >>> bank = tamt.DRNLFilterbank([1000.0], fs=44100)
        >>> spl = torch.arange(0.0, 101.0, 20.0)
        >>> output = bank.io_function(spl + STAPES_LEVEL, fc=1000.0) - STAPES_LEVEL
        >>> [round(level, 1) for level in output.tolist()]
        [74.3, 94.3, 110.5, 116.3, 125.1, 140.9]
        """
        levels = vector("levels", levels, self._held_type, self.fc.device, "L")
        return self._of_channels(fc, partial(self._tone_level, _peak_of(levels)))

    def tone_responses(
        self,
        levels: Tensor | np.ndarray | Sequence[float],
        f: Tensor | np.ndarray | Sequence[float],
        fc: Tensor | np.ndarray | Sequence[float] | float | None = None,
    ) -> Tensor:
        """Output level of channels over the frequency of tones at fixed levels (iso-level curves), after the onset.

        Only the component at the frequency of the tone counts. The broken stick makes odd harmonics too, and the third
        of a tone at a third of a channel's frequency would look like tuning to that tone.

        Parameters
        ----------
        levels : Tensor (L,) or array
            Input levels: root mean square in dB re 1 m/s.
        f : Tensor (K,) or array
            Frequencies of the tones in Hz, in (0, fs/2).
        fc : float, Tensor (N,) or array, optional
            Frequencies of the channels to try, in Hz, each one of ``fc`` within 0.1 %; all channels if not given.

        Returns
        -------
        Tensor (N, L, K), or (L, K) for a number ``fc``
            Output levels: root mean square of the component at the tone's frequency in dB re 1 m/s.

        Raises
        ------
        ValueError
            Levels or frequencies that are no vector, a tone outside its range, a frequency that is not that of a
            channel.

        See Also
        --------
        io_function : tones at the channels' own frequencies.
        tamt.plot.tuning_curves : a picture of it.

        Notes
        -----
        The lower the lowest tone, the longer are all of them: 10 periods of it and 0.1 s at least, after the onset of
        the filters. What is left of other components is below 1e-4 dB, but where an odd harmonic that is folded at fs/2
        falls on the tone or within 20 Hz of it: at fs/4, fs/6, and, of higher harmonics, fs/10, fs/5 or 2 fs/5.

        Examples
        --------
        Gain in dB of the channel at 4 kHz for faint and for loud tones, at that frequency and an octave below:

        >>> import torch, tamt
        >>> from tamt.spl import STAPES_LEVEL
        >>> bank = tamt.DRNLFilterbank([4000.0], fs=44100)
        >>> spl = torch.tensor([20.0, 70.0])
        >>> gain = bank.tone_responses(spl + STAPES_LEVEL, [2000.0, 4000.0], fc=4000.0) - STAPES_LEVEL - spl[:, None]
        >>> [[round(value, 1) for value in row] for row in gain.tolist()]
        [[23.4, 76.8], [20.3, 47.1]]
        """
        levels = vector("levels", levels, self._held_type, self.fc.device, "L")
        tones = vector("f", f, torch.float64, torch.device("cpu"))
        wrong = tones[~((tones > 0) & (tones < self.fs / 2))]
        if wrong.numel():
            raise ValueError(f"f must lie in (0, fs/2) = (0, {self.fs / 2:g}) Hz, got {wrong[0].item():g}")
        if tones.numel() == 0:
            raise ValueError("f must hold at least one frequency")
        return self._of_channels(fc, partial(self._component_levels, _peak_of(levels), tones))

    def _of_channels(
        self, fc: Tensor | np.ndarray | Sequence[float] | float | None, of_channel: Callable[[int], Tensor]
    ) -> Tensor:
        """What a function gives of the channel at the number ``fc``, or of each of several, or of all."""
        wanted = self.fc if fc is None else real_numbers("fc", fc, self._held_type, self.fc.device)
        if wanted.dim() > 1:
            raise ValueError(f"fc must be a number or have shape (K,), got {tuple(wanted.shape)}")
        if wanted.dim() == 0:
            return of_channel(self._channel_at(wanted.item()))
        if wanted.numel() == 0:
            raise ValueError("fc must hold at least one frequency")
        return torch.stack([of_channel(self._channel_at(hertz)) for hertz in wanted.tolist()])

    def _channel_at(self, hertz: float) -> int:
        distance = (self.fc - hertz).abs()
        channel = int(distance.argmin())
        if not distance[channel] <= 1e-3 * hertz:
            nearest = self.fc[channel].item()
            raise ValueError(f"fc must be the frequency of a channel, got {hertz:g} Hz; the nearest is {nearest:g} Hz")
        return channel

    def _tone_level(self, amplitude: Tensor, channel: int) -> Tensor:
        """Levels (L,) in dB of one channel's output to tones at its frequency."""
        fc = self.fc[channel].double().cpu()[None]
        phase, window = self._tone_phase(fc, channel, 20 / fc.item())
        y, weight = self._after_onset(amplitude[:, None] * phase.sin().to(amplitude), window, channel)
        return 10 * torch.log10((y.square() * weight).sum(-1))

    def _component_levels(self, amplitude: Tensor, tones: Tensor, channel: int) -> Tensor:
        """Levels (L, K) in dB of what one channel's output to tones has at their frequencies."""
        # Of high tones alone 10 periods are so short that the rest of the onset and images at fs/2 leak in.
        phase, window = self._tone_phase(tones, channel, max(10 / tones.min().item(), LEAST_WINDOW))
        sine, cosine = phase.sin().to(amplitude), phase.cos().to(amplitude)
        levels = []
        for peak in amplitude:  # of all levels at once the tones could be gigabytes
            y, weight = self._after_onset(peak * sine, window, channel)
            parts = [(y * wave[:, -window:] * weight).sum(-1) for wave in (sine, cosine)]
            levels.append(10 * torch.log10(2 * (parts[0].square() + parts[1].square())))
        return torch.stack(levels) if levels else amplitude.new_zeros(0, len(tones))

    def _tone_phase(self, hertz: Tensor, channel: int, seconds: float) -> tuple[Tensor, int]:
        """Phases (K, T) of tones that last so many seconds beyond a channel's onset, and the samples after it."""
        bandwidth = min(self.BW_lin[channel].item(), self.BW_nlin[channel].item())
        window = math.ceil(seconds * self.fs)
        onset = math.ceil(20 * self.fs / (2 * math.pi * bandwidth))
        cycles = torch.arange(onset + window, dtype=torch.float64, device="cpu") * (hertz[:, None] / self.fs)
        return 2 * math.pi * (cycles % 1), window

    def _after_onset(self, x: Tensor, window: int, channel: int) -> tuple[Tensor, Tensor]:
        """The last samples of one channel's output to signals (K, T), and weights for their mean."""
        y, _ = self._filtered(x, None, slice(channel, channel + 1))
        weight = torch.hann_window(window, dtype=y.dtype, device=y.device)
        return y[:, 0, -window:], weight / weight.sum()

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        low, high = self._span
        return (
            f"{self.num_channels} channels {low:.1f} ... {high:.1f} Hz, fs={self.fs}, subject={self.subject!r}, "
            f"model={self.model!r}, learnable={self.learnable!r}, dtype={self.dtype}"
        )

    def _sections(self) -> DRNLSections:
        """Sections (F, K, 6) of the linear path, and of the nonlinear path's two filters."""
        compute = partial(drnl_sections, fs=self.fs, orders=MODELS[self.model])
        return self._memo.get(compute, *(getattr(self, name) for name in FILTERS))

    def _stick(self) -> Tensor:
        """Parameters (F, 3) of the broken stick."""
        return torch.stack([getattr(self, name) for name in STICK], 1)


def _peak_of(levels: Tensor) -> Tensor:
    """Peaks of sines whose root mean squares have these levels in dB."""
    return math.sqrt(2) * 10 ** (levels / 20)


def _parameters(cf: Tensor, subject: str) -> dict[str, Tensor]:
    """AMT's parameters of the channels at ``cf`` Hz."""

    def law(offset: float, slope: float, hertz: Tensor = cf) -> Tensor:
        return 10 ** (offset + slope * torch.log10(hertz))

    tensors = {
        "CF_lin": law(-0.06762, 1.01679),
        "BW_lin": law(0.03728, 0.75),
        "LP_lin_cutoff": law(-0.06762, 1.01),
        "g": law(4.20405, -0.47909),
        "CF_nlin": law(-0.05252, 1.0165),
        "BW_nlin": law(-0.03193, 0.77),
        "LP_nlin_cutoff": law(-0.05252, 1.0165),
    }
    if subject == "HIx":
        return tensors | {"a": torch.zeros_like(cf), "b": law(1.61912, -0.81867), "c": torch.full_like(cf, 0.25)}
    frozen = torch.where(cf <= 1000, cf, 1500.0)
    compression = {"a": law(1.40298, 0.81916, frozen), "b": law(1.61912, -0.81867, frozen)}
    return tensors | compression | {"c": torch.full_like(cf, 10**-0.60206)}
