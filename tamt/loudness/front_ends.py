"""From sound that has passed the ear to excitation in frames, in the two ways that the loudness models have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tamt._learnable import Form
from tamt.excitation.erb_integration import ERBIntegration
from tamt.excitation.glasberg2002 import ExcitationPattern
from tamt.excitation.moore2016 import Moore2016ExcitationPattern
from tamt.spectra.moore2016 import Moore2016Spectrum
from tamt.spectra.multiresolution import MultiResolutionFFT
from tamt.spl import pascal2spl

FS = 32000
WINDOW = 2048  # samples that a frame sees
DB_MAX = pascal2spl(1 / math.sqrt(2))  # level of a sine of 1 Pa
SPREADING_LIMIT = 10.0  # octaves: all of the spectrum counts


class ComponentsFrontEnd(nn.Module):
    """Components of six windows, and the rounded-exponential filters that they excite.

    Parameters
    ----------
    hop : int
        Milliseconds from one frame to the next.
    joint_threshold : bool
        As :class:`Moore2016Spectrum` has it.
    learnable : bool or 'relative'
        Form of the excitation; the spectrum is fixed.
    """

    LEARNT = ("pattern",)

    def __init__(
        self,
        hop: int,
        joint_threshold: bool,
        learnable: Form,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        self.spectrum = Moore2016Spectrum(FS, hop, DB_MAX, dtype=dtype, joint_threshold=joint_threshold, device=device)
        self.pattern = Moore2016ExcitationPattern(
            spreading_limit_octaves=SPREADING_LIMIT, learnable=learnable, dtype=dtype, device=device
        )

    @property
    def fc(self) -> Tensor:
        """Frequencies (N,) of the channels in Hz, as designed."""
        return self.pattern._constant("fc_channels")

    def forward(self, heard: Tensor) -> Tensor:
        """Excitation (R, E, S, N) of sound (R, E, T) in all frames that are whole."""
        freqs, intensity = self.spectrum.intensities(heard, last=True)
        return self.pattern.excitation(freqs, intensity).transpose(0, 1)


class BandsFrontEnd(nn.Module):
    """Levels of bands of a multi-resolution spectrum, and what spreads from each to others: fixed."""

    LEARNT = ()

    def __init__(self, dtype: torch.dtype, device: torch.device | str | None) -> None:
        super().__init__()
        self.spectrum = MultiResolutionFFT(FS, dtype=dtype, device=device)
        self.bands = ERBIntegration(FS, dtype=dtype, device=device)
        self.pattern = ExcitationPattern(FS, dtype=dtype, device=device)

    @property
    def fc(self) -> Tensor:
        """Frequencies (N,) of the channels in Hz, as designed."""
        return self.bands._constant("fc_erb")

    def forward(self, heard: Tensor) -> Tensor:
        """Excitation (R, 1, S, N) of sound (R, 1, T) in all frames that are whole."""
        hop = self.spectrum.hop_lengths[WINDOW]
        # Around both ends frames would see the sound reflected.
        first = WINDOW // 2 // hop
        psd, freqs = self.spectrum(heard[:, 0])
        whole = slice(first, first + (heard.shape[-1] - WINDOW) // hop + 1)
        levels = self.pattern(self.bands(psd[:, whole], freqs))
        return 10 ** (levels[:, None] / 10)
