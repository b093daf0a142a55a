"""The dual-resonance nonlinear (DRNL) filterbank by FFT convolution."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tamt._arguments import check_count
from tamt._learnable import Form
from tamt.design.drnl import AMPLIFIED, TAIL, ir_length_for, tail_of_gammatone
from tamt.filterbanks.drnl import CHANNELS, FILTERS, MODELS, STICK, DRNLFilterbank
from tamt.ops.fft_drnl import fft_drnl, filter_spectra
from tamt.ops.fft_drnl_frames import fft_drnl_frames

IR_LENGTH = 4096


class FastDRNLFilterbank(DRNLFilterbank):
    r""":class:`DRNLFilterbank` by FFT convolution with the first samples of its filters' impulse responses.

    The responses of the linear path, of the nonlinear path's first filter and of its second are computed in double
    precision where the device has it: on the CPU once, and again when the filters' tensors have changed, elsewhere in
    every call. Long signals run in overlap-save blocks. How far it is from :class:`DRNLFilterbank` is a matter of
    ``ir_length`` and of the lowest channel: the default, 4096 samples, leaves 1e-12 of the peak from 250 Hz up at
    44.1 kHz, but errors as large as the output at 50 Hz and 192 kHz. The notes say how many samples it takes.

    Parameters
    ----------
    fc, fs, n_channels, subject, model, dtype, device
        As for :class:`DRNLFilterbank`.
    learnable : bool or 'relative'
        Whether ``a``, ``b`` and ``c`` are parameters, or ``log_a``, ``log_b`` and ``log_c``, as for
        :class:`DRNLFilterbank`; all other tensors are buffers.
    ir_length : int or None
        Samples of the impulse responses: longer is more accurate and slower. None: 4096, or as many as the lowest
        channel needs where that is more.

    Attributes
    ----------
    ir_length : int
        Samples of the impulse responses M. All others are those of :class:`DRNLFilterbank`; ``fc`` is the design's, and
        so are the filters, as they are not learnt.

    Raises
    ------
    ValueError, TypeError
        As for :class:`DRNLFilterbank`, and for ``ir_length < 1``.

    Warns
    -----
    UserWarning
        ``ir_length`` is too short for the lowest channel, of the arguments or of a state dict that is loaded; it names
        the samples needed and the error to expect.

    See Also
    --------
    DRNLFilterbank : the same by recursive filters; its parameters, methods and sources.

    Notes
    -----
    Of a gammatone of order :math:`n` and bandwidth :math:`B` in Hz the first :math:`L` samples leave out the part
    :math:`Q = e^{-t} \sum_{k<n} t^k/k!` with :math:`t = 2\pi B L/f_s`. Errors of the output are up to :math:`30\,Q`
    of a channel's peak. :math:`Q = 10^{-5}`, hence errors below 3e-4, takes

    .. math::

        L &= 2.27\,f_s/B \qquad (\text{paulick2024},\ n = 2) \\
        L &= 2.63\,f_s/B \qquad (\text{jepsen2008},\ n = 3)

    where :math:`B` is the lowest of ``BW_lin`` and ``BW_nlin``: :math:`0.93\,f_c^{0.77}` of a lowest channel below
    2.9 kHz, which is 19 Hz at 50 Hz and 65 Hz at 250 Hz. So 50 Hz at 44.1 kHz take 5290 samples for ``'paulick2024'``,
    and 6150 for ``'jepsen2008'``. After a click, or a sound that stops at once, compression enlarges the little that
    was cut off: there errors reach 1e-3 of the peak.

    Examples
    --------
    >>> import torch, tamt
    >>> bank = tamt.FastDRNLFilterbank((250, 8000), fs=44100, dtype=torch.float32)
    >>> bank(1e-3 * torch.randn(2, 4410)).shape
    torch.Size([2, 50, 4410])
    """

    _STATES = 2
    _LEARNABLE = STICK

    def __init__(
        self,
        fc: Tensor | np.ndarray | Sequence[float] | tuple[float, float],
        fs: float,
        n_channels: int = CHANNELS,
        subject: str = "NH",
        model: str = "paulick2024",
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        ir_length: int | None = IR_LENGTH,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        if ir_length is not None:
            check_count("ir_length", ir_length)
        super().__init__(fc, fs, n_channels, subject, model, learnable, dtype, device=device)
        self.ir_length = max(IR_LENGTH, self._needed(self._narrowest)) if ir_length is None else int(ir_length)
        self._warn_if_short(self._narrowest)

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
            The last ``ir_length - 1`` samples of the signal (..., ir_length - 1) and of what the broken stick made of
            it (..., F, ir_length - 1).
        """
        return self._filtered(*self._chunk(x, state, self._STATES), slice(None))

    @property
    def _order(self) -> int:
        """The higher one of the gammatones' orders."""
        linear, _, nonlinear, _ = MODELS[self.model]
        return max(linear, nonlinear)

    def _needed(self, bandwidth: float) -> int:
        return ir_length_for(bandwidth, self.fs, self._order)

    def _warn_if_short(self, bandwidth: float) -> None:
        """Say how large errors are, two calls up, where ``ir_length`` is too short for a bandwidth in Hz."""
        needed = self._needed(bandwidth)
        if self.ir_length < needed:
            left = AMPLIFIED * tail_of_gammatone(2 * math.pi * bandwidth * self.ir_length / self.fs, self._order)
            size = f"up to {left:.1g} of the peak" if left < 1 else "as large as the output"
            warnings.warn(
                f"ir_length={self.ir_length} is short for filters of {bandwidth:.3g} Hz at fs={self.fs:g} Hz: errors "
                f"are {size}; ir_length={needed} keeps them below {AMPLIFIED * TAIL:g}, and None chooses it",
                stacklevel=3,
            )

    def _loaded(self) -> None:
        super()._loaded()
        widths = torch.stack((self.BW_lin.detach(), self.BW_nlin.detach()))
        if not widths.is_meta and bool((widths > 0).all()):
            narrowest = widths.min().item()
            if narrowest < (1 - 1e-6) * self._narrowest:  # of the others it has been said
                self._warn_if_short(narrowest)

    def _filtered(
        self, x: Tensor, state: tuple[Tensor, ...] | None, channels: slice
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        spectra, past = self._spectra(), None if state is None else (state[0], state[1])
        return fft_drnl(x, spectra[:, channels], self._stick()[channels], self.ir_length, state=past)

    def _hop_means(
        self, x: Tensor, state: tuple[Tensor, ...] | None, hop: int, detector: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        past = None if state is None else (state[0], state[1])
        return fft_drnl_frames(x, self._spectra(), self._stick(), self.ir_length, hop, detector, state=past)

    def _spectra(self) -> Tensor:
        """Spectra of the filters' impulse responses."""
        filters = torch.stack([getattr(self, name) for name in FILTERS])
        return filter_spectra(filters, self.fs, MODELS[self.model], self.ir_length)

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return f"{super().extra_repr()}, ir_length={self.ir_length}"
