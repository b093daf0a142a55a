"""What the loudness models share: sound through the ear into frames, in one call, in parts or as a stream."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from tamt._arguments import as_signal, check_count, check_sampling_rate, check_state
from tamt._base import move_constants
from tamt._learnable import Form, Learnable, check_learnable
from tamt._memo import readable, transformed
from tamt.ear import OuterMiddleEar
from tamt.loudness.front_ends import FS, WINDOW, BandsFrontEnd, ComponentsFrontEnd
from tamt.loudness.specific_loudness import CHANNELS, SpecificLoudness
from tamt.ops._checks import check_same_kind
from tamt.spl import pascal2spl

Self = TypeVar("Self", bound="LoudnessMeter[Any]")
Result = TypeVar("Result", bound=tuple[Tensor, ...])

REACH = 3072  # samples before and after a frame's middle that the ear's filter brings into its window
CALLED = 5  # calls from the user's to what forward calls
LOUDEST = 200.0  # Pa, a peak level of 140 dB SPL
FRAMES = 512  # of a sound at a time, at least
ROWS = 2048, 65536  # spectra at a time without gradients, on the CPU and elsewhere


def peak(loudness: Tensor) -> Tensor:
    """The largest of loudness (..., S) over time, 0 of no frame."""
    return loudness.amax(-1) if loudness.shape[-1] else loudness.new_zeros(loudness.shape[:-1])


class LoudnessMeter(nn.Module, Generic[Result]):
    """A model of loudness for sound in pascal at 32 kHz, whose results are named tuples.

    A model makes its ``front`` and the stages behind it.

    Parameters
    ----------
    fs, field
        Of the ear; the rate has to be 32000.
    hop : int
        Milliseconds from one frame to the next.
    learnable : bool or 'relative'
        Form of the stages that learn.
    dtype, device
        As for :class:`Base`.
    """

    ear: OuterMiddleEar
    front: ComponentsFrontEnd | BandsFrontEnd
    specific: SpecificLoudness

    def __init__(self, fs: float, field: str, hop: int, learnable: Form, dtype: Any, device: Any) -> None:
        super().__init__()
        check_learnable(learnable)
        check_sampling_rate(fs)
        if fs != FS:
            raise ValueError(
                f"fs must be {FS} Hz, the rate of the model, got {fs}: resample the sound first, as "
                "torchaudio.functional.resample or soxr.resample does"
            )
        check_count("hop", hop)
        if hop > WINDOW * 1000 // FS:
            raise ValueError(f"hop must be at most {WINDOW * 1000 // FS} ms, the length of a frame, got {hop}")
        self.fs = FS
        self._hop = int(hop)
        self.learnable = learnable
        self.ear = OuterMiddleEar(FS, field, dtype, device=device)
        self.register_load_state_dict_post_hook(_settle)

    @property
    def hop(self) -> int:
        """Milliseconds from one frame to the next."""
        return self._hop

    @property
    def field(self) -> str:
        """Sound field of the ear."""
        return self.ear.field

    @property
    def dtype(self) -> torch.dtype:
        """Computing type."""
        return self.ear._held_type

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return 1000 / self.hop

    @property
    def latency(self) -> int:
        """Samples after the middle of a frame that it needs: those a stream waits for."""
        return REACH

    def times(self, frames: int, start: int = 0) -> Tensor:
        """Middles of frames.

        Parameters
        ----------
        frames : int
            Number of frames.
        start : int
            Number of the first: 0 of a sound, or of a stream as many as it has given before.

        Returns
        -------
        Tensor (frames,)
            In seconds, float64, on the CPU.
        """
        check_count("frames", frames, 0)
        check_count("start", start, 0)
        return torch.arange(int(start), int(start) + int(frames), dtype=torch.float64, device="cpu") * (self.hop / 1000)

    def forward(self, x: Tensor) -> Result:
        """Loudness of a sound.

        Parameters
        ----------
        x : Tensor
            Sound pressure in pascal, in a shape of those that the class takes, of T samples.

        Returns
        -------
        named tuple of Tensor
            Of S = T // (32 hop) + 1 frames. What the class has under Returns are its fields.
        """
        x = self._sound(x, CALLED)
        specific = self._specific(self._rows(x), REACH)
        loudness, _ = self._over_time(specific, None)
        return self._shaped(loudness, x)

    def stream(self, x: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Result, tuple[Tensor, ...]]:
        """Loudness in the frames that the next chunk of a sound completes.

        A frame is complete when :attr:`latency` samples after its middle are known. So many zeros behind the sound
        bring out its last frames; together they are those of one call.

        Parameters
        ----------
        x : Tensor
            The chunk, of any number of samples.
        state : tuple of Tensor, optional
            What the call for the chunk before returned; None starts from silence.

        Returns
        -------
        loudness : named tuple of Tensor
            Of S frames, 0 or more; ``peak`` is the largest long-term loudness of these alone, 0 of none.
        state : tuple of Tensor
            The last samples of the sound, and what the recursions hold after the last frame.
        """
        x = self._sound(x, 3)
        lead, before = x.shape[:-1], None
        if state is None:
            x = nn.functional.pad(x, (REACH, 0))
        else:
            past, *kept = check_state(state, 1 + len(self._kept(lead)))
            if past.dim() != x.dim() or past.shape[:-1] != lead or past.shape[-1] >= 2 * REACH:
                sizes = ", ".join(map(str, (*lead, f"0..{2 * REACH - 1}")))
                raise ValueError(f"state[0] must have shape ({sizes}) for this sound, got {tuple(past.shape)}")
            for i, (part, shape) in enumerate(zip(kept, self._kept(lead), strict=True), 1):
                if part.shape != torch.Size(shape):
                    raise ValueError(
                        f"state[{i}] must have shape {tuple(shape)} for this sound, got {tuple(part.shape)}"
                    )
            check_same_kind({f"state[{i}]": part for i, part in enumerate(state)}, x, "the sound's")
            x = torch.cat((past, x), -1)
        rows = self._rows(x)
        if state is not None:
            before = tuple(part.reshape((*rows.shape[:2], *part.shape[len(lead) :])) for part in kept)
        specific = self._specific(rows)
        loudness, after = self._over_time(specific, before)
        # A copy: a view would keep all of the chunk, and change with it.
        past = x[..., specific.shape[2] * self._step :].clone(memory_format=torch.contiguous_format)
        after = tuple(part.reshape(shape) for part, shape in zip(after, self._kept(lead), strict=True))
        return self._shaped(loudness, x), (past, *after)

    def design(self) -> dict[str, Tensor]:
        """What the model has learnt or was told: ``design()`` of its stages.

        Returns
        -------
        dict of Tensor
            Detached copies by the names of stage and quantity, such as ``specific.alpha``.
        """
        return {
            f"{name}.{quantity}": value
            for name, stage in self._stages().items()
            for quantity, value in stage.design().items()
        }

    def with_learnable(self: Self, learnable: Form) -> Self:
        """A copy that computes the same, whose stages have parameters of another form.

        Parameters
        ----------
        learnable : bool or 'relative'
            Form of the parameters, as ``with_learnable()`` of the stages takes it.

        Returns
        -------
        Module
            A model of the same class.
        """
        check_learnable(learnable)
        twin = copy.deepcopy(self)
        for name, stage in self._stages().items():
            parent, _, own = name.rpartition(".")
            setattr(twin.get_submodule(parent), own, stage.with_learnable(learnable))
        twin.learnable = learnable
        return twin

    def _stages(self) -> dict[str, Learnable]:
        """Stages whose parameters have the model's form, by name."""
        names = [*(f"front.{name}" for name in self.front.LEARNT), *(name for name, _ in self.named_children())]
        return {name: part for name in names if isinstance(part := self.get_submodule(name), Learnable)}

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return f"fs={self.fs}, hop={self.hop}, learnable={self.learnable!r}"

    @property
    def _step(self) -> int:
        """Samples from one frame to the next."""
        return FS // 1000 * self.hop

    def _sound(self, x: Tensor, depth: int) -> Tensor:
        """Sound in the computing type; a warning if it cannot be in pascal, for a caller ``depth`` calls away."""
        x = as_signal(x, self.dtype)
        if readable(x) and x.numel():
            size = x.detach().abs()
            if ((size > LOUDEST) & (size < math.inf)).any():
                # One text, which Python shows once a place.
                warnings.warn(
                    f"the sound must be in pascal, but has a peak above {LOUDEST:g} Pa, a peak level of "
                    f"{pascal2spl(LOUDEST):.0f} dB SPL. Samples times tamt.spl.full_scale_pascal(level of a full-scale "
                    "sine in dB SPL), or times tamt.spl.calibrate(recording, level), are in pascal",
                    stacklevel=depth,
                )
        return x

    def _rows(self, x: Tensor) -> Tensor:
        """Sound as rows (R, E, T) of E ears; a ValueError for another shape."""
        raise NotImplementedError

    def _over_time(self, specific: Tensor, before: tuple[Tensor, ...] | None) -> tuple[Result, tuple[Tensor, ...]]:
        """Loudness, of rows, in all frames of specific loudness (R, E, S, N), and the state after them."""
        raise NotImplementedError

    def _kept(self, lead: torch.Size) -> tuple[tuple[int, ...], ...]:
        """Shapes of what a stream keeps beside the sound."""
        raise NotImplementedError

    def _shaped(self, loudness: Result, x: Tensor) -> Result:
        """Results of rows in the dimensions that the sound has."""
        raise NotImplementedError

    def _specific(self, x: Tensor, silence: int = 0) -> Tensor:
        """Specific loudness (R, E, S, N) of sound (R, E, T) between ``silence`` samples of silence.

        Frames are those that have :data:`REACH` samples on either side.
        """
        step, length = self._step, x.shape[-1] + 2 * silence
        frames = max(0, (length - 2 * REACH) // step + 1)
        if not frames:
            return x.new_zeros(*x.shape[:2], 0, CHANNELS)
        past = 2 * REACH - WINDOW

        def analysed(rows: slice, part: slice) -> Tensor:
            first, last = part.start * step - silence, (part.stop - 1) * step + 2 * REACH - silence
            if part.stop - part.start == frames:  # all, whose ends a compiler does not know
                some = nn.functional.pad(x[rows], (silence, silence))[..., : last + silence]
            else:
                inside = slice(max(0, first), min(last, x.shape[-1]))
                some = nn.functional.pad(x[rows, :, inside], (inside.start - first, last - inside.stop))
            heard, _ = self.ear.stream(some[..., past:], (some[..., :past],))
            return self.specific(self.front(heard))

        return self._in_parts(analysed, x, frames)

    def _in_parts(self, function: Callable[[slice, slice], Tensor], x: Tensor, frames: int) -> Tensor:
        """``function`` of slices of rows and frames, of as many at a time as memory is to hold.

        One call does all where autograd or a compiler watches, who want it whole.
        """
        rows, ears = x.shape[:2]
        whole = slice(0, rows), slice(0, frames)
        learns = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *self.parameters()))
        if learns or torch.compiler.is_compiling() or transformed():
            return function(*whole)
        most = ROWS[x.device.type != "cpu"] // ears
        # Parts of the sound overlap: many frames of few rows make little of that.
        at_once = max(1, most // max(1, min(frames, FRAMES)))
        result: Tensor | None = None
        for row in range(0, rows, at_once):
            some = slice(row, min(row + at_once, rows))
            step = max(1, most // (some.stop - some.start))
            for frame in range(0, frames, step):
                part = slice(frame, min(frame + step, frames))
                found = function(some, part)
                if result is None:
                    if found.shape[:3] == (rows, ears, frames):
                        return found
                    result = found.new_empty(rows, ears, frames, *found.shape[3:])
                result[some, :, part] = found
        return function(*whole) if result is None else result


def _settle(meter: LoudnessMeter[Any], _: object) -> None:
    """The ear, which has no state, where a state was assigned to the stages."""
    move_constants(meter, meter.specific._like)
