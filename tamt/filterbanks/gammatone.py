"""The gammatone filterbank."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tamt._arguments import centre_frequencies, check_channels, check_count, check_sampling_rate, vector
from tamt._arithmetic import complex_divide, complex_multiply
from tamt._base import DESIGN, rounded
from tamt._learnable import RELATIVE, Form, Learnable, log_ratio
from tamt._memo import Memo, readable
from tamt.design.gammatone import (
    MAX_DECAY,
    check_gammatone,
    expanded_denominator,
    feedback_map,
    gammatone_betamul,
    gammatone_design,
)
from tamt.design.poles import MIN_DECAY, pole_design, split_design, stable_denominator
from tamt.design.sections import scaled_cascade, section_gain
from tamt.ops.filter_frames import filter_frames
from tamt.ops.iir import analytic, filtered
from tamt.ops.onepole_rows import onepole_rows
from tamt.scales import erb_spaced, erbspacebw

MAX_POLE_MAG = 0.9

STEPS = ("log_bandwidth", "log_frequency", "log_gain", "phase")


class GammatoneFilterbank(Learnable):
    r"""Gammatone filters, one per centre frequency: real parts of cascades of complex one-pole sections.

    With :math:`\phi = 2\pi\,\mathrm{betamul}\,\mathrm{audfiltbw}(f_c)/f_s` and :math:`\theta = 2\pi f_c/f_s` a channel
    has the pole :math:`p = e^{-\phi - i\theta}`, the gain :math:`g = (1 - e^{-\phi})^n` and the output
    :math:`y = 2\,\mathrm{Re}\{g x / (1 - p z^{-1})^n\}`, 0 dB at its centre frequency as long as that is far from 0 and
    from ``fs/2``, see the notes.

    Parameters
    ----------
    fc : Tensor (F,), array, list, or tuple (flow, fhigh)
        Centre frequencies in Hz, in (0, fs/2]; a tuple gives ``n_channels`` of them, evenly spaced on the scale of
        ``fc2erb``, or those of ``erbspacebw(flow, fhigh)``, one per ERB, where there is no ``n_channels``.
    fs : float
        Sampling rate in Hz.
    n : int
        Filter order.
    betamul : float, optional
        Bandwidth parameter in units of ``audfiltbw(fc)``; by default
        :math:`((n-1)!)^2 / (\pi (2n-2)! 2^{-(2n-2)})`, 1.0186 for order 4, for which the equivalent rectangular
        bandwidth of the filter is ``audfiltbw(fc)``.
    learnable : bool or 'relative'
        Whether the filter tensors are parameters (else buffers of the same names). ``'relative'``, for ``'sos'``: four
        real parameters (F,) that are 0 by design take their place, ``log_bandwidth``, ``log_frequency`` and
        ``log_gain``, logarithms of the ratios of :math:`\phi`, :math:`\theta` and :math:`|g|` to those of the design,
        and ``phase``, the angle of :math:`g` in radians. Ordinary optimisers can learn these.
    dtype : torch.float32 or torch.float64, optional
        Computing type, by default float32; signals of another floating type are converted.
    implementation : {'sos', 'poly'}
        ``'sos'``: the exact cascade of n first-order complex sections; tensors ``poles`` (F,) and ``gains`` (F,),
        complex. ``'poly'``: the same filter with an expanded denominator after limiting :math:`|p|` to 0.9 (legacy);
        tensors ``b`` (F, 1) and ``a`` (F, n+1), complex. The limit makes every channel that exceeds it wider and
        fainter: those below 2.2 kHz at a sampling rate of 16 kHz, where 1 kHz becomes twice as wide and 23 dB fainter,
        and below 6.5 kHz at 44.1 kHz. Far below, the channels' peaks move too.
    n_channels : int, optional
        Number of channels between the ends of a tuple, both among them; of a list of frequencies it is an error.
    device : torch.device, optional
        Where the filter tensors are made.

    Attributes
    ----------
    fc : Tensor (F,)
        Centre frequencies of the design in Hz, which stay what they were when filters learn. Those of the filters as
        they are now, and their bandwidths, are in :meth:`design`.
    poles, gains : Tensor (F,), complex
        Of ``'sos'``: :math:`p` and :math:`g` as they are now, whatever the form of the parameters.
    b, a : Tensor (F, 1) and (F, n+1), complex
        Of ``'poly'``: numerator and denominator in powers of :math:`z^{-1}`.
    num_channels, n_channels : int
        Number of channels F.

    Raises
    ------
    ValueError
        An argument outside its range, ``n_channels`` beside a list of frequencies, or a signal without a time axis.
    TypeError
        A signal that is not floating, or an unsupported ``dtype``.

    See Also
    --------
    Cochleagram : frames of its output, which is never held.
    DRNLFilterbank : filters that compress, and widen with level.

    Notes
    -----
    A learnt pole outside the unit circle is used scaled back to just inside it; one at 0 gives :math:`2\,\mathrm{Re}\{g
    x\}`. Of ``'relative'`` filters :math:`\phi` is used within [1e-5, 36], and :math:`\theta` up to :math:`\pi`. In
    ``'poly'`` ``a[:, 0]`` must not be 0, nor so small that what is divided by it overflows: a ValueError where data can
    be looked at, on the CPU outside of compiled code; elsewhere the channel's output is NaN.

    The gain :math:`g` has to be in the range of ``dtype``, which limits ``n`` for narrow filters: to 13 in float32 at
    20 Hz and 192 kHz, beyond 130 in float64.

    The gain at a channel's centre is 0 dB where its pole is far from the conjugate one. Close to half the sampling rate
    both answer, and at ``fs/2`` they coincide (order 4 and the default bandwidth, at 16 kHz; at 44.1 kHz 0.14 dB from
    that at most; the least gain is -1.9 dB near 0.475):

    ============== ==== ===== ===== ===== ===== ==== ===== ====
    ``fc/fs``      0.25 0.40  0.45  0.475 0.48  0.49 0.495 0.5
    gain in dB     0.00 -0.03 -0.41 -1.85 -1.09 3.54 5.37  6.02
    ============== ==== ===== ===== ===== ===== ==== ===== ====

    So they do below 30 Hz: at 20 Hz it is -0.7 dB, from 31.5 Hz up it is within 0.05 dB.

    References
    ----------
    AMT function ``gammatone`` (options ``allpole``, ``complex``), of which this is twice the real part. It has zeros,
    unlike the filter of R. F. Lyon (1997), "All-pole models of auditory filtering".

    Examples
    --------
    >>> import torch, tamt
    >>> bank = tamt.GammatoneFilterbank((100, 7500), fs=16000)
    >>> bank(torch.randn(2, 16000)).shape
    torch.Size([2, 30, 16000])
    >>> tamt.GammatoneFilterbank((100, 7500), fs=16000, n_channels=64).fc.shape
    torch.Size([64])
    """

    _COMPUTES_IN = torch.float32
    DETECTORS: tuple[str, ...] = ("envelope", "power", "halfwave")
    _STATES = 1  # tensors of a stream's state

    fc: Tensor
    poles: Tensor
    gains: Tensor
    b: Tensor
    a: Tensor
    _design: Tensor
    _expansion: Tensor
    _to_feedback: Tensor
    design_gain: Tensor

    def __init__(
        self,
        fc: Tensor | np.ndarray | Sequence[float] | tuple[float, float],
        fs: float,
        n: int = 4,
        betamul: float | None = None,
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        implementation: str = "sos",
        *,
        n_channels: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        check_sampling_rate(fs)
        check_channels(n_channels, fc)
        check_count("n", n)
        if betamul is not None and not (math.isfinite(betamul) and betamul > 0):
            raise ValueError(f"betamul must be positive, got {betamul}")
        if implementation not in ("sos", "poly"):
            raise ValueError(f"implementation must be 'sos' or 'poly', got {implementation!r}")
        self.fs = fs
        self.n = int(n)
        self.betamul = gammatone_betamul(self.n) if betamul is None else float(betamul)
        self.implementation = implementation
        self._memo: Memo[Tensor] = Memo()

        with DESIGN:
            per_erb = partial(erbspacebw, dtype=torch.float64)
            centre = centre_frequencies(
                fc, fs, per_erb if n_channels is None else partial(erb_spaced, count=int(n_channels))
            )
            decay, frequency, gain = gammatone_design(centre, fs, self.n, self.betamul)
            check_gammatone(centre, decay, self.n, self._held_type, implementation == "poly")
            if implementation == "poly":
                decay = decay.clamp(min=-math.log(MAX_POLE_MAG))
            exact = torch.polar(torch.exp(-decay), 2 * math.pi * frequency)
            poles = rounded(exact, self._held_type)
            # Filters are computed from the step between their tensors and what those are rounded to here.
            if implementation == "sos":
                tensors = {"poles": poles, "gains": gain.to(exact.dtype)}
                derived = {}
            else:
                a = expanded_denominator(exact, self.n).to(poles.dtype)
                tensors = {"b": gain[:, None].to(poles.dtype), "a": a}
                derived = {"_expansion": a[:, 1:].to(exact.dtype), "_to_feedback": feedback_map(exact, self.n)}
            design = pole_design(poles, decay, frequency)
        for name, value in {"fc": centre, **derived}.items():
            self._register_constant(name, value)
        self._register_constant("_design", design, form=split_design)
        self._register_state(tensors)
        self._span = centre[0].item(), centre[-1].item()

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
            The signal, of any unit.

        Returns
        -------
        Tensor (..., F, T)
            Output of every channel, in the unit of the signal.
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
            One tensor (..., F, 2n).
        """
        x, before = self._chunk(x, state, self._STATES)
        y, after = filtered(x, self._rows(), self._kind, self.n, None if before is None else before[0])
        return y, (after,)

    def analytic(self, x: Tensor) -> Tensor:
        r"""Analytic output :math:`2 g x / (1 - p z^{-1})^n`.

        Its real part is the filters' output, its magnitude the :meth:`envelope`, and its angle the phase in radians,
        which falls as :math:`p = e^{-\phi - i\theta}` turns.

        Parameters
        ----------
        x : Tensor (..., T)
            The signal; the filters start from rest.

        Returns
        -------
        Tensor (..., F, T), complex
        """
        return self._analytic(x, self._rows())

    def envelope(self, x: Tensor) -> Tensor:
        """Magnitude of the analytic output; that of a steady tone is its amplitude.

        Parameters
        ----------
        x : Tensor (..., T)
            The signal; the filters start from rest.

        Returns
        -------
        Tensor (..., F, T)
            Envelope of every channel, in the unit of the signal.
        """
        return self._analytic(x, self._rows(turned=False)).abs()

    def _analytic(self, x: Tensor, rows: Tensor) -> Tensor:
        x, _ = self._chunk(x, None, self._STATES)
        return analytic(x, rows, self._kind, self.n)[0]

    def _hop_means(
        self, x: Tensor, state: tuple[Tensor, ...] | None, hop: int, detector: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the detector gives on average in every whole hop (..., F, T // hop), and the state after the last."""
        before = None if state is None else state[0]
        rows = self._rows(turned=detector != "envelope")
        means, after = filter_frames(x, rows, self._kind, self.n, hop, detector, state=before)
        return means, (after,)

    def frequency_response(self, f: Tensor | np.ndarray | Sequence[float]) -> Tensor:
        r"""Complex response of every channel, :math:`g/(1 - p z^{-1})^n + \bar g/(1 - \bar p z^{-1})^n`.

        Parameters
        ----------
        f : Tensor (K,) or array
            Frequencies in Hz.

        Returns
        -------
        Tensor (F, K), complex
        """
        f = vector("f", f, self._held_type, self.fc.device)
        cycles = torch.stack((f, -f)) / self.fs  # the second row gives the conjugate pole's part
        rows = self._rows()
        (decay, frequency, frequency_low), gain = rows[:, :3].unbind(1), rows[:, 3:5]
        each = section_gain(decay, self.n)[:, None, None]
        angle = 2 * math.pi * ((frequency[:, None, None] - cycles) + frequency_low[:, None, None])
        shrink = torch.expm1(-decay)[:, None, None]
        # q = 1 - p e^{-i omega} without cancellation near the pole
        q = torch.complex(2 * torch.sin(angle / 2) ** 2 * (1 + shrink) - shrink, -(1 + shrink) * torch.sin(angle))
        q = q / each
        denominator = q**self.n
        if self._kind == "allpole":
            feedback = rows[:, 5:].unflatten(1, (self.n, 2))
            delay = torch.polar(torch.ones_like(cycles), -2 * math.pi * cycles)
            for k, c in enumerate(torch.complex(*feedback.unbind(2)).unbind(1)):
                denominator = denominator + c[:, None, None] / each * delay * q ** (self.n - 1 - k)
        half = torch.complex(*gain.unbind(1))[:, None, None] / (2 * each) / denominator
        return half[:, 0] + half[:, 1].conj()

    def impulse_response(self, length: int) -> Tensor:
        """The first samples of every channel's impulse response.

        Parameters
        ----------
        length : int
            Number of samples, at least 1.

        Returns
        -------
        Tensor (F, length)

        Raises
        ------
        ValueError
            A length below 1.
        """
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        impulse = torch.zeros(length, dtype=self._held_type, device=self.fc.device)
        impulse[0] = 1
        return self(impulse)

    def design(self) -> dict[str, Tensor]:
        r"""Filters as they are now.

        Returns
        -------
        dict of Tensor
            Detached copies, whatever the form of the parameters (``learnable``): ``poles`` and ``gains`` (F,), complex,
            and of the same filters ``fc`` (F,), centre frequencies in Hz; ``bandwidth`` (F,), :math:`\mathrm{betamul}\,
            \mathrm{audfiltbw}(f_c)` by design, in Hz; ``erb`` (F,), equivalent rectangular bandwidths in Hz; ``gain``
            (F,), gains at the centre, 1 by design; ``phase`` (F,), angles of :math:`g` in radians. Of ``'poly'``, whose
            denominators need not be powers, ``b`` (F, 1) and ``a`` (F, n+1) alone.
        """
        if self.implementation == "poly":
            return super().design()
        with self._whole():
            held = super().design()
            decay, high, low, *gain = self._onepole().detach().unbind(1)
        gains, bandwidth = torch.complex(*gain) / 2, decay * (self.fs / (2 * math.pi))
        return held | {
            "fc": _alias(high + low).abs() * self.fs,
            "bandwidth": bandwidth,
            "erb": bandwidth / gammatone_betamul(self.n),
            "gain": gains.abs() / (-torch.expm1(-decay)) ** self.n,
            "phase": gains.angle(),
        }

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        low, high = self._span
        return (
            f"{self.num_channels} channels {low:.1f} ... {high:.1f} Hz, fs={self.fs}, n={self.n}, "
            f"betamul={self.betamul:.4f}, learnable={self.learnable!r}, dtype={self.dtype}, "
            f"implementation={self.implementation!r}"
        )

    @property
    def _kind(self) -> str:
        """Of the engine's filters (:mod:`tamt.ops.iir`)."""
        return "onepole" if self.implementation == "sos" else "allpole"

    def _rows(self, turned: bool = True) -> Tensor:
        """Coefficients of every channel as the engine takes them.

        An envelope has no phase. Where the phase is a parameter, filters that are not ``turned`` by it give it a
        gradient of 0, and not one of rounding errors, which optimisers such as AdamW would follow.
        """
        if self.implementation == "poly":
            compute = partial(_poly_rows, stable=bool(self.learnable))
            return self._memo.get(compute, self.b, self.a, self._design, self._expansion, self._to_feedback)
        onepole, tensors = self._onepole_of(turned)
        return self._memo.get(partial(_scaled, onepole=onepole, order=self.n), *tensors)

    def _onepole(self) -> Tensor:
        """Decay, frequency (high, low) and twice the gain (re, im) of the channels of ``'sos'``: (F, 5)."""
        onepole, tensors = self._onepole_of()
        return onepole(*tensors)

    def _onepole_of(self, turned: bool = True) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        """The function that gives these, and its arguments."""
        if self.learnable == RELATIVE:
            *ratios, phase = (self._step(name) for name in STEPS)
            return _relative_onepole, (*ratios, phase if turned else 0 * phase, self._design, self.design_gain)
        return _given_onepole, (self.poles, self.gains, self._design)

    def _computed(self, name: str) -> Tensor:
        decay, high, low, re, im = self._onepole().unbind(1)
        if name == "gains":
            return torch.complex(re, im) / 2
        return torch.polar(torch.exp(-decay), 2 * math.pi * (high + low))

    def _hold_steps(self, tensors: dict[str, Tensor]) -> None:
        if self.implementation == "poly":
            raise ValueError("learnable must be False or True for implementation 'poly', got 'relative'; 'sos' has it")
        with DESIGN:
            design = split_design(self._constant("_design"), torch.float64)
            poles, gains = (tensors[name].to(DESIGN, torch.complex128) for name in ("poles", "gains"))
            decay, high, low, *_ = _given_onepole(poles, gains, design).unbind(1)
            frequency = _alias(high + low)
            gains = torch.where(frequency > 0, gains.conj(), gains)  # with its conjugate a pole gives the same output
            now = {"decay": decay, "frequency": frequency.abs(), "gain": gains.abs()}
            by_design = design[:, 2], -design[:, 3:].sum(1), self._quantities["gains"].design.abs()
            for step, (name, value), start in zip(STEPS, now.items(), by_design, strict=False):
                self._register_step(step, log_ratio(f"the {name} of a filter", value, start), name, start)
            self._register_step("phase", gains.angle())

    def _step_names(self) -> list[str]:
        return [] if self.implementation == "poly" else list(STEPS)


def _alias(cycles: Tensor) -> Tensor:
    """The same frequency within half a cycle per sample."""
    return cycles - cycles.round()


def _given_onepole(poles: Tensor, gains: Tensor, design: Tensor) -> Tensor:
    return onepole_rows(torch.view_as_real(poles), torch.view_as_real(gains), design)


def _relative_onepole(
    log_bandwidth: Tensor, log_frequency: Tensor, log_gain: Tensor, phase: Tensor, design: Tensor, gain: Tensor
) -> Tensor:
    decay, high, low = design[:, 2:].unbind(1)
    least, most = (MIN_DECAY / decay).log().clamp(max=0), (MAX_DECAY / decay).log().clamp(min=0)
    decay = decay * log_bandwidth.clamp(least, most).exp()
    highest = (-0.5 / high).log().clamp(min=0)  # half the sampling rate; frequencies are negative
    move, gain = log_frequency.clamp(max=highest).expm1(), 2 * gain * log_gain.exp()
    return torch.stack((decay, high, low + (high * move + low * move), gain * phase.cos(), gain * phase.sin()), 1)


def _scaled(*tensors: Tensor, onepole: Callable[..., Tensor], order: int) -> Tensor:
    """Rows of the engine, which takes the gains of high orders apart."""
    rows = onepole(*tensors)
    return torch.cat((rows[:, :3], scaled_cascade(rows[:, 0], rows[:, 3:], None, order)[0]), 1) if order > 8 else rows


def _poly_rows(b: Tensor, a: Tensor, design: Tensor, expansion: Tensor, to_feedback: Tensor, stable: bool) -> Tensor:
    """The sections of the design, with the feedback that the step away from its denominator takes."""
    decay, frequency, frequency_low = design[:, 2:].unbind(-1)
    a = torch.view_as_real(a)
    gain = complex_divide(2 * torch.view_as_real(b), a[:, :1])[:, 0]
    denominator = complex_divide(a[:, 1:], a[:, :1])
    if readable(a, b):
        lost = a.isfinite().all((1, 2)) & ~torch.cat((denominator, gain[:, None]), 1).isfinite().all((1, 2))
        if lost.any() and b.isfinite().all():
            channel = int(lost.nonzero()[0])
            raise ValueError(
                f"a[:, 0] must not be 0, nor so small that b / a[:, 0] or a / a[:, 0] overflows in {a.dtype}, got "
                f"{complex(*a[channel, 0].tolist()):g} in channel {channel}"
            )
    expansion = torch.view_as_real(expansion)
    if stable:  # those of the design are, which their coefficients cannot tell beyond order 8
        moved = (denominator.detach() != expansion).any(2, keepdim=True).any(1, keepdim=True)
        limited = stable_denominator(torch.where(moved, denominator, torch.zeros_like(denominator)))
        denominator = torch.where(moved, limited, denominator)
    step = denominator - expansion
    feedback = complex_multiply(torch.view_as_real(to_feedback), step[:, None]).sum(2)
    gain, scaled = scaled_cascade(decay, gain, feedback, a.shape[1] - 1)
    assert scaled is not None
    return torch.cat((torch.stack((decay, frequency, frequency_low), 1), gain, scaled.flatten(1)), 1)
