"""What each ear takes from the loudness of the other."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt._arguments import check_floating
from tamt._base import DESIGN
from tamt._learnable import Form, Learnable
from tamt.loudness.specific_loudness import STEP
from tamt.ops.product import product

REACH = 18.0  # Cam
FINEST = 0.01  # Cam
FAINTEST = 1e-13  # sone/Cam, so that there is a ratio
LARGEST = 80.0  # ratio of the ears: what is above inhibits no more


class BinauralInhibition(Learnable):
    r"""Specific loudness of both ears after each has inhibited the other, after Moore et al. (2016).

    With the short-term specific loudness :math:`S^L, S^R` of channels :math:`\Delta` apart, first smoothed across
    channels,

    .. math::

        l_n &= \frac{\sum_k w_k S^L_{n-k}}{\sum_k w_k} + 10^{-13}, \qquad w_k = e^{-(B k \Delta)^2},\;
            |k \Delta| \le 18\,\mathrm{Cam} \\
        I^L_n &= \frac{2}{1 + \mathrm{sech}(r_n / l_n)^\theta}, \qquad
            I^R_n = \frac{2}{1 + \mathrm{sech}(l_n / r_n)^\theta}

    the result is :math:`S^L / I^L` and :math:`S^R / I^R`. Loudness of the same sound in both ears is 1.5 times that in
    one: :math:`I = 1.33331` there, and 1 for an ear whose other hears nothing.

    Parameters
    ----------
    step : float
        Distance :math:`\Delta` of the channels in Cam.
    learnable : bool or 'relative'
        Whether ``B`` and ``theta`` are parameters (else buffers of the same names). ``'relative'``: the parameters are
        ``log_B`` and ``log_theta`` (1,), the logarithms of the ratios to the design.
    dtype : torch.float32 or torch.float64, optional
        Computing type, by default float32; inputs of another floating type are converted.
    device : torch.device, optional
        Where the tensors are made.

    Attributes
    ----------
    B : Tensor ()
        0.08 per Cam.
    theta : Tensor ()
        1.5978; of a learnable module it has to stay above 0.

    Raises
    ------
    ValueError
        ``step`` outside of 0.01 ... 18 Cam, input of another shape.
    TypeError
        An input that is not floating, or an unsupported ``dtype``, also float64 on MPS.

    See Also
    --------
    Moore2016Loudness : the model.
    AttackRelease : what makes the short-term specific loudness that it takes.

    References
    ----------
    B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher (2016), "A loudness model for time-varying
    sounds incorporating binaural inhibition"; AMT function ``moore2016_binauralloudness``.

    Examples
    --------
    >>> import torch, tamt
    >>> inhibition = tamt.BinauralInhibition()
    >>> one = torch.rand(100, 150)  # of frames and channels
    >>> ears = inhibition(torch.stack((one, one)))
    >>> (ears.sum() / one.sum()).item()  # doctest: +ELLIPSIS
    1.500...
    """

    _COMPUTES_IN = torch.float32

    B: Tensor
    theta: Tensor
    _distance: Tensor

    def __init__(
        self,
        step: float = STEP,
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        if not (isinstance(step, (int, float)) and FINEST <= step <= REACH):
            raise ValueError(f"step must lie in [{FINEST:g}, {REACH:g}] Cam, got {step!r}")
        self.step = step
        reach = int(REACH / step + 1e-9)
        with DESIGN:
            self._register_constant("_distance", step * torch.arange(-reach, reach + 1, dtype=torch.float64))
            numbers = {"B": 0.08, "theta": 1.5978}
            self._register_state({name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()})

    def forward(self, specific: Tensor) -> Tensor:
        """Inhibited specific loudness of both ears.

        Parameters
        ----------
        specific : Tensor (..., 2, S, N) or (..., 1, S, N)
            Short-term specific loudness in sone/Cam of the left and the right ear, in S frames and N channels. With one
            ear the sound is the same in both.

        Returns
        -------
        Tensor (..., 2, S, N) or (..., 1, S, N)
            Specific loudness in sone/Cam, in the shape of the argument; with one ear that of either.
        """
        specific = self._checked(specific)
        return specific / self._factors(specific)

    def factors(self, specific: Tensor) -> Tensor:
        """What specific loudness is divided by.

        Parameters
        ----------
        specific : Tensor (..., 2, S, N) or (..., 1, S, N)
            As for :meth:`forward`.

        Returns
        -------
        Tensor
            Factors from 1 to 2, in the shape of the argument.
        """
        specific = self._checked(specific)
        return self._factors(specific).expand(specific.shape)

    def extra_repr(self) -> str:
        """Arguments, for ``print``."""
        return f"step={self.step:g}, learnable={self.learnable!r}, dtype={self.dtype}"

    def _checked(self, specific: Tensor) -> Tensor:
        check_floating("specific", specific)
        if specific.dim() < 3 or specific.shape[-3] not in (1, 2):
            raise ValueError(f"specific must have shape (..., 2, S, N) or (..., 1, S, N), got {tuple(specific.shape)}")
        return specific.to(self._held_type)

    def _factors(self, specific: Tensor) -> Tensor:
        if specific.shape[-3] == 1:
            # Equal, however smoothed. B has a gradient, of 0, as DistributedDataParallel wants of all.
            return self._inhibition(1 + 0 * self.B)
        smooth = product(specific, self._smoothing(specific.shape[-1])) + FAINTEST
        # The larger ratios are left out before the division: their derivatives would be infinite.
        return self._inhibition(torch.minimum(smooth.flip(-3), LARGEST * smooth) / smooth)

    def _inhibition(self, ratio: Tensor) -> Tensor:
        """Factors for the ratio of the other ear to this one."""
        decay = torch.exp(-ratio)
        return 2 / (1 + (2 * decay / (1 + decay.square())) ** self.theta)

    def _smoothing(self, channels: int) -> Tensor:
        """Matrix (N, N) of the weights between channels."""
        weights = torch.exp(-(self.B * self._distance).square())
        weights = weights / weights.sum()
        reach = weights.shape[0] // 2
        place = torch.arange(channels, device=weights.device)
        apart = place - place[:, None]
        return torch.where(apart.abs() <= reach, weights[(apart + reach).clamp(0, 2 * reach)], 0.0)
