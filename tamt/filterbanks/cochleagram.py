"""Cochleagrams: framed, compressed features of a filterbank's output, which is never held."""

from __future__ import annotations

from numbers import Real
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from tamt._arguments import as_signal, check_count, check_state
from tamt._learnable import Form
from tamt.filterbanks.drnl import DRNLFilterbank
from tamt.filterbanks.gammatone import GammatoneFilterbank
from tamt.ops._checks import check_same_kind
from tamt.ops.frames import moving_means

Bank = GammatoneFilterbank | DRNLFilterbank
FLOORS = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max


class Cochleagram(nn.Module):
    r"""Frames of a filterbank's output: mean power, envelope or positive half, compressed.

    What :class:`torchaudio.transforms.MelSpectrogram` is for a spectrogram, from a cochlea. Frame m covers the samples
    ``[m hop_length, m hop_length + frame_length)`` of the signal and holds, for every channel, the mean

    ============== ====================================================== ============================================
    detector       of                                                     for
    ============== ====================================================== ============================================
    ``'envelope'`` :math:`|z|^2 / 2`, z the analytic output               gammatone: no ripple at twice the centre
                   (:meth:`GammatoneFilterbank.analytic`)                 frequency, the mean square of a steady tone
    ``'power'``    :math:`y^2`, y the output                              every bank
    ``'halfwave'`` :math:`\max(y, 0)`                                     every bank; with 1000 frames per second or
                                                                          more a crude hair cell
    ============== ====================================================== ============================================

    The output of the filters is never held: memory is that of signal and result, and a bounded working set. A training
    step makes again what it needs.

    Parameters
    ----------
    bank : GammatoneFilterbank, DRNLFilterbank or FastDRNLFilterbank
        The filters. It stays a submodule, whose parameters are learnt through the cochleagram; the cochleagram computes
        in its type and on its device.
    hop_length : int
        Samples from one frame to the next.
    frame_length : int, optional
        Samples of a frame, a multiple of ``hop_length``, which it is by default.
    detector : {'envelope', 'power', 'halfwave'}
        What frames are the mean of.
    compression : {None, 'db', 'log'} or float
        With P the mean: None leaves it; ``'db'`` gives :math:`10 \log_{10} \max(P, \mathrm{floor})`, or for
        ``'halfwave'``, which is no power, :math:`20 \log_{10}`; ``'log'`` the natural logarithm :math:`\ln \max(P,
        \mathrm{floor})`; a number c in (0, 1) the power law :math:`(P + \mathrm{floor})^c`.
    floor : float
        The least mean that compression knows, positive: it keeps silence finite, and its gradients too.

    Attributes
    ----------
    bank : Module
    fc : Tensor (F,)
        Centre frequencies of the bank's design in Hz, which stay what they were when its filters learn. Those of the
        filters as they are now, and their bandwidths, are in :meth:`design`.
    frame_rate : float
        Frames per second, in Hz.
    learnable : bool or 'relative'
        Whether the bank is, and in which form.
    dtype : torch.dtype
        Computing type of the bank.

    Raises
    ------
    ValueError
        An argument outside its range, ``'envelope'`` for a bank that has no analytic output, a signal without a time
        axis.
    TypeError
        A ``bank`` that is none of the filterbanks, a signal that is not floating.

    Notes
    -----
    DRNL filters take the velocity of the stapes, not sound (:func:`tamt.spl.stapes_velocity`). 1e-10 is then the mean
    square of -100 dB re 1 m/s, the power of a faint output, and ``floor`` wants to be lower, 1e-14 say. They compute in
    float64 unless they are told float32.

    ``torch.export`` with a dynamic length takes lengths of at least two frames, as torch makes sizes of 1 constants.

    See Also
    --------
    GammatoneFilterbank.envelope : the envelope of every sample.

    Examples
    --------
    >>> import torch, tamt
    >>> bank = tamt.GammatoneFilterbank((80, 7500), fs=16000)
    >>> cochleagram = tamt.Cochleagram(bank, hop_length=160, frame_length=320, compression="db")
    >>> cochleagram(torch.randn(2, 16000)).shape
    torch.Size([2, 30, 99])
    """

    def __init__(
        self,
        bank: Bank,
        hop_length: int,
        frame_length: int | None = None,
        detector: str = "envelope",
        compression: str | float | None = None,
        floor: float = 1e-10,
    ) -> None:
        super().__init__()
        if not isinstance(bank, (GammatoneFilterbank, DRNLFilterbank)):
            raise TypeError(
                f"bank must be a GammatoneFilterbank, DRNLFilterbank or FastDRNLFilterbank, got {type(bank).__name__}"
            )
        check_count("hop_length", hop_length)
        frame_length = hop_length if frame_length is None else frame_length
        check_count("frame_length", frame_length)
        if frame_length % hop_length:
            raise ValueError(f"frame_length must be a multiple of hop_length = {hop_length}, got {frame_length}")
        if detector not in bank.DETECTORS:
            raise ValueError(f"detector must be one of {bank.DETECTORS} for a {type(bank).__name__}, got {detector!r}")
        _check_compression(compression)
        if not (_is_number(floor) and FLOORS[0] <= floor <= FLOORS[1]):
            raise ValueError(f"floor must be a number from {FLOORS[0]:g} to {FLOORS[1]:g}, got {floor!r}")
        self.bank = bank
        self.hop_length = int(hop_length)
        self.frame_length = int(frame_length)
        self.detector = detector
        self.compression = float(compression) if isinstance(compression, Real) else compression
        self.floor = float(floor)

    @property
    def fc(self) -> Tensor:
        """Centre frequencies (F,) of the bank's design in Hz; those of learnt filters are in :meth:`design`."""
        return self.bank.fc

    @property
    def learnable(self) -> Form:
        """Whether, and in which form, the bank's filters are parameters."""
        return self.bank.learnable

    @property
    def dtype(self) -> torch.dtype:
        """Computing type of the bank."""
        return self.bank._held_type

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.bank.fs / self.hop_length

    def times(self, frames: int) -> Tensor:
        """Middles of the first frames.

        Parameters
        ----------
        frames : int
            Number of frames.

        Returns
        -------
        Tensor (frames,)
            In seconds, float64, on the CPU.
        """
        check_count("frames", frames, 0)
        starts = torch.arange(int(frames), dtype=torch.float64, device="cpu") * self.hop_length
        return (starts + self.frame_length / 2) / self.bank.fs

    def forward(self, x: Tensor) -> Tensor:
        """Frames of a signal.

        Parameters
        ----------
        x : Tensor (..., T)
            What the bank takes: sound, or of a DRNL the velocity of the stapes in m/s.

        Returns
        -------
        Tensor (..., F, M)
            ``M = 1 + (T - frame_length) // hop_length`` frames, 0 for a signal shorter than one.
        """
        x = as_signal(x, self.dtype)
        means, _ = self.bank._hop_means(x, None, self.hop_length, self.detector)
        return self._compressed(moving_means(means, self._hops))

    def stream(self, x: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Frames that the next chunk of a signal completes.

        Parameters
        ----------
        x : Tensor (..., T)
            The chunk.
        state : tuple of Tensor, optional
            What the call for the chunk before returned; None starts from rest.

        Returns
        -------
        frames : Tensor (..., F, M)
            Those that begin where the frames of the call before ended, as many as are complete.
        state : tuple of Tensor
            That of the bank after the last whole hop, the means over the hops that frames to come need as well (...,
            F, K), and the samples after the last whole hop (..., R).
        """
        x = as_signal(x, self.dtype)
        before, earlier = None, None
        if state is not None:
            *kept, earlier, rest = check_state(state, self.bank._STATES + 2)
            self._check_waiting(earlier, rest, x)
            before, x = tuple(kept), torch.cat((rest, x), -1)
        whole = x.shape[-1] // self.hop_length * self.hop_length
        means, after = self.bank._hop_means(x[..., :whole], before, self.hop_length, self.detector)
        if earlier is not None:
            means = torch.cat((earlier, means), -1)
        wanted = max(0, means.shape[-1] - (self._hops - 1))
        # Copies: a view would keep all of the chunk, and change with it.
        waiting = (part.clone(memory_format=torch.contiguous_format) for part in (means[..., wanted:], x[..., whole:]))
        return self._compressed(moving_means(means, self._hops)), (*after, *waiting)

    def design(self) -> dict[str, Tensor]:
        """Filters of the bank as they are now.

        Returns
        -------
        dict of Tensor
            What the bank's ``design()`` gives.
        """
        return self.bank.design()

    def with_learnable(self, learnable: Form) -> Cochleagram:
        """A copy that computes the same, whose bank has parameters of another form.

        Parameters
        ----------
        learnable : bool or 'relative'
            Form of the bank's parameters, as its ``with_learnable()`` takes it.

        Returns
        -------
        Cochleagram
        """
        bank = self.bank.with_learnable(learnable)
        twin = Cochleagram(bank, self.hop_length, self.frame_length, self.detector, self.compression, self.floor)
        return twin.train(self.training)

    @property
    def _hops(self) -> int:
        """Hops of a frame."""
        return self.frame_length // self.hop_length

    def _check_waiting(self, means: Tensor, rest: Tensor, x: Tensor) -> None:
        """A ValueError or TypeError if what a state holds of hops and samples is not that of such a signal."""
        lead, last = tuple(x.shape[:-1]), self.bank._STATES + 1
        named = {f"state[{last - 1}]": means, f"state[{last}]": rest}
        for (name, tensor), shape, most in zip(
            named.items(), ((*lead, self.fc.shape[0]), lead), (self._hops - 1, self.hop_length - 1), strict=True
        ):
            if tensor.dim() < 1 or tuple(tensor.shape[:-1]) != shape or tensor.shape[-1] > most:
                sizes = ", ".join(map(str, (*shape, f"0..{most}")))
                raise ValueError(
                    f"{name} must have shape ({sizes}) for a signal {tuple(x.shape)}, got {tuple(tensor.shape)}"
                )
        check_same_kind(named, x, "the signal's")

    def _compressed(self, means: Tensor) -> Tensor:
        if isinstance(self.compression, float):
            return (means + self.floor) ** self.compression
        if self.compression == "db":
            return (20 if self.detector == "halfwave" else 10) * means.clamp(min=self.floor).log10()
        return means if self.compression is None else means.clamp(min=self.floor).log()

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return (
            f"hop_length={self.hop_length}, frame_length={self.frame_length}, detector={self.detector!r}, "
            f"compression={self.compression!r}, floor={self.floor:g}"
        )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_compression(compression: str | float | None) -> None:
    named = compression is None or (isinstance(compression, str) and compression in ("db", "log"))
    if not (named or (_is_number(compression) and 0 < compression < 1)):
        raise ValueError(f"compression must be None, 'db', 'log' or a number in (0, 1), got {compression!r}")
