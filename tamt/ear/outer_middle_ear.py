"""Transmission of sound through the outer and the middle ear, as the loudness models take it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tamt._arguments import check_sampling_rate, vector
from tamt._base import DESIGN, Base
from tamt.design.fir2 import fir2
from tamt.ops.fir import fir

# Hz, and gains in dB there: of the outer ear in a free field from the front, of the outer ear in a diffuse field, of
# the middle ear. The outer ear does not change from 16 kHz on.
TABLE = (
    (20.0, 0.0, 0.0, -39.6),
    (25.0, 0.0, 0.0, -32.0),
    (31.5, 0.0, 0.0, -25.85),
    (40.0, 0.0, 0.0, -21.4),
    (50.0, 0.0, 0.0, -18.5),
    (63.0, 0.0, 0.0, -15.9),
    (80.0, 0.0, 0.0, -14.1),
    (100.0, 0.0, 0.0, -12.4),
    (125.0, 0.1, 0.1, -11.0),
    (160.0, 0.3, 0.3, -9.6),
    (200.0, 0.5, 0.4, -8.3),
    (250.0, 0.9, 0.5, -7.4),
    (315.0, 1.4, 1.0, -6.2),
    (400.0, 1.6, 1.6, -4.8),
    (500.0, 1.7, 1.7, -3.8),
    (630.0, 2.5, 2.2, -3.3),
    (750.0, 2.7, 2.7, -2.9),
    (800.0, 2.6, 2.9, -2.6),
    (1000.0, 2.6, 3.8, -2.6),
    (1250.0, 3.2, 5.3, -4.5),
    (1500.0, 5.2, 6.8, -5.4),
    (1600.0, 6.6, 7.2, -6.1),
    (2000.0, 12.0, 10.2, -8.5),
    (2500.0, 16.8, 14.9, -10.4),
    (3000.0, 15.3, 14.5, -7.3),
    (3150.0, 15.2, 14.4, -7.0),
    (4000.0, 14.2, 12.7, -6.6),
    (5000.0, 10.7, 10.8, -7.0),
    (6000.0, 7.1, 8.9, -9.2),
    (6300.0, 6.4, 8.7, -10.2),
    (8000.0, 1.8, 8.5, -12.2),
    (9000.0, -0.9, 6.2, -10.8),
    (10000.0, -1.6, 5.0, -10.1),
    (11200.0, 1.9, 4.5, -12.7),
    (12500.0, 4.9, 4.0, -15.0),
    (14000.0, 2.0, 3.3, -18.2),
    (15000.0, -2.0, 2.6, -23.8),
    (16000.0, 2.5, 2.0, -32.3),
    (18000.0, 2.5, 2.0, -45.5),
    (20000.0, 2.5, 2.0, -50.0),
)
FIELDS = ("free", "diffuse", "eardrum")
ORDER, ORDER_FS = 4096, 32000  # the authors' filter, and the rate that it is for
LOWEST_FS = 1000.0  # Hz: below, the filter would have fewer than 129 taps, and sound little that an ear transmits


class OuterMiddleEar(Base):
    r"""Transmission through the outer and the middle ear, a linear-phase FIR filter.

    .. math:: y[t] = \sum_{m=0}^{M-1} h[m]\, x[t-m]

    The gain of h in dB is that of the outer ear, for a sound from the front in a free field or for a diffuse field,
    plus that of the middle ear, 0 dB in all at 1 kHz in a free field. The tables are those of Moore et al. (2016),
    ANSI S3.4-2007 and ISO 532-2 and 532-3, in steps of a third of an octave or less from 20 Hz to 20 kHz; the filter is
    made of them by frequency sampling (MATLAB's ``fir2``), with a gain of 0 at 0 Hz.

    Parameters
    ----------
    fs : float
        Sampling rate in Hz, at least 1000. At 32 kHz the M = 4097 taps are the authors'; at other rates their number is
        that of about the same resolution in Hz. Gains are interpolated at fs/2, and constant above 20 kHz.
    field : {'free', 'diffuse', 'eardrum'}
        What the sound is that the module is given: measured where the centre of the head will be, in a free field in
        front of the source or in a diffuse field; or measured at the eardrum, as also sound of earphones that are flat
        there, so that the outer ear has been passed.
    dtype : torch.float32 or torch.float64, optional
        Computing type, by default float32; signals of another floating type are converted.
    device : torch.device, optional
        Where the taps are made.

    Attributes
    ----------
    taps : Tensor (M,)
        Impulse response h; M is odd.
    fs : float
        Sampling rate in Hz.
    field : str
        As given.
    delay : int
        Delay of the filter in samples, (M - 1)/2: about 64 ms.

    Raises
    ------
    ValueError
        An ``fs`` that is no number of Hz of at least 1000, another ``field``, a signal without a time axis.
    TypeError
        A signal that is not floating, or an unsupported ``dtype``, also float64 on MPS.

    See Also
    --------
    Moore2016Loudness : a model that begins with it.
    tamt.spl.full_scale_pascal : what makes pascal of samples.

    Notes
    -----
    The filter is linear, so the unit of its output is that of its input: pascal, which the loudness models want, or
    samples of full scale (:mod:`tamt.spl`).

    References
    ----------
    B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher (2016), "A loudness model for time-varying
    sounds incorporating binaural inhibition"; ANSI S3.4-2007; ISO 532-2:2017, ISO 532-3:2023.

    Examples
    --------
    >>> import torch, tamt
    >>> ear = tamt.OuterMiddleEar(fs=32000, field="free")
    >>> ear(torch.randn(2, 32000)).shape
    torch.Size([2, 32000])
    >>> ear.delay
    2048
    >>> (20 * ear.frequency_response([100.0, 1000.0, 3000.0]).abs().log10()).round()  # dB
    tensor([-12.,  -0.,   8.])
    """

    _COMPUTES_IN = torch.float32

    taps: Tensor

    def __init__(
        self,
        fs: float = 32000,
        field: str = "free",
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(device, dtype)
        check_sampling_rate(fs)
        if fs < LOWEST_FS:
            raise ValueError(f"fs must be at least {LOWEST_FS:g} Hz, got {fs:g}")
        if field not in FIELDS:
            raise ValueError(f"field must be one of {FIELDS}, got {field!r}")
        self.fs = fs
        self.field = field
        self.delay = round(ORDER / 2 * fs / ORDER_FS)
        self._register_constant("taps", _designed(fs, field, 2 * self.delay))

    def forward(self, x: Tensor) -> Tensor:
        """Filter a signal, from rest.

        Parameters
        ----------
        x : Tensor (..., T)
            Sound, in pascal or any other unit.

        Returns
        -------
        Tensor (..., T)
            In the unit of the sound, late by ``delay`` samples.
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
        y : Tensor (..., T)
        state : tuple of Tensor
            One tensor (..., M - 1), the last samples.
        """
        x, before = self._chunk(x, state, 1)
        y, after = fir(x, self.taps[None], state=None if before is None else before[0])
        return y.squeeze(-2), (after,)

    def frequency_response(self, f: Tensor | np.ndarray | Sequence[float]) -> Tensor:
        r"""Complex response :math:`\sum_m h[m]\, e^{-2\pi i f m/f_s}`.

        Parameters
        ----------
        f : Tensor (K,) or array
            Frequencies in Hz.

        Returns
        -------
        Tensor (K,), complex
            In the module's precision. It is computed in double precision on the CPU: in single precision the phase
            would keep three digits.
        """
        given = f.detach() if isinstance(f, Tensor) else f
        cycles = vector("f", given, torch.float64, DESIGN) / self.fs
        taps = self._constant("taps")
        with DESIGN:
            samples = torch.arange(len(taps), dtype=torch.float64)
            parts = []
            for some in cycles.split(256):  # each of which needs as many numbers as there are taps
                angle = 2 * math.pi * (some[:, None] * samples)
                parts.append(torch.complex(torch.cos(angle) @ taps, -(torch.sin(angle) @ taps)))
        return torch.cat(parts).to(self.taps.device, self._held_type.to_complex())

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return f"fs={self.fs}, field={self.field!r}, dtype={self.dtype}"


def _designed(fs: float, field: str, order: int) -> Tensor:
    """Taps (order + 1,) in float64 on the CPU."""
    with DESIGN:
        frequency, free, diffuse, middle = torch.tensor(TABLE, dtype=torch.float64).unbind(1)
        outer = {"free": free, "diffuse": diffuse, "eardrum": torch.zeros_like(middle)}[field]
        place = torch.cat((torch.zeros(1, dtype=torch.float64), frequency / (fs / 2)))
        amplitude = torch.cat((torch.zeros(1, dtype=torch.float64), 10 ** ((outer + middle) / 20)))
        inside = int((place < 1).sum())
        # At half the sampling rate: between two places of the table, on one, or beyond its last.
        last = amplitude[-1:]
        if inside < len(place):
            share = (1 - place[inside - 1]) / (place[inside] - place[inside - 1])
            last = torch.lerp(amplitude[inside - 1], amplitude[inside], share)[None]
        place = torch.cat((place[:inside], torch.ones(1, dtype=torch.float64)))
        return fir2(order, place, torch.cat((amplitude[:inside], last)))
