"""Smoothing over time with attack and release, as loudness follows a sound."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt._base import DESIGN
from tamt._learnable import Form, Learnable
from tamt.ops.recurrence import attack_release


def per_hop(constant: float, hop: float) -> float:
    """The constant of a frame of ``hop`` frames of 1 ms, :math:`1 - (1 - a)^h`, for that of one, a."""
    if not 0 < constant <= 1:
        raise ValueError(f"constant must lie in (0, 1], got {constant}")
    if not hop > 0:
        raise ValueError(f"hop must be greater than 0, got {hop}")
    return 1 - (1 - constant) ** hop


class AttackRelease(Learnable):
    r"""A one-pole low-pass over time with one constant for a rise and another for a fall.

    .. math:: y_i = y_{i-1} + a_i (x_i - y_{i-1}), \qquad
        a_i = \begin{cases} \mathrm{attack} & x_i > y_{i-1} \\ \mathrm{release} & \text{else} \end{cases}, \qquad
        y_{-1} = 0

    Loudness models make short-term loudness of instantaneous loudness by it, and long-term of short-term. The constants
    of Moore et al. for frames of 1 ms, with the time constants in ms for which they stand:

    =============================== ================== ==================== ================= ===================
    version                         short-term attack  short-term release   long-term attack  long-term release
    =============================== ================== ==================== ================= ===================
    2018 (authors' code, ISO 532-3) 0.045 (22)         0.033 (30)           0.01 (99)         0.00133 (751)
    2016 (the paper)                0.045 (22)         0.02 (50)            0.01 (99)         0.0005 (2000)
    =============================== ================== ==================== ================= ===================

    For frames of h ms a constant a becomes :math:`1 - (1 - a)^h`
    (:func:`tamt.loudness.attack_release.per_hop`).

    Parameters
    ----------
    attack, release : float
        The constants, in (0, 1]; either may be the larger one.
    dim : int
        The dimension of time.
    learnable : bool or 'relative'
        Whether the two constants are parameters (else buffers of the same names). ``'relative'``: parameters (1,) that
        are 0 by design, ``log_attack`` and ``log_release``, the logarithms of their ratios to the design.
    dtype : torch.float32 or torch.float64, optional
        Computing type, by default float32.
    device : torch.device, optional
        Where the tensors are made.

    Attributes
    ----------
    attack, release : Tensor ()

    Raises
    ------
    ValueError
        A constant out of its range: at construction, and at a call on the CPU, to which learning may have brought it. A
        signal without a dimension.
    TypeError
        A signal that is not floating.

    Notes
    -----
    From a value on that is NaN or infinite, a channel is NaN. Gradients are those of the branches that were taken.

    References
    ----------
    B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher (2016), "A loudness model for time-varying
    sounds incorporating binaural inhibition".

    Examples
    --------
    >>> import torch, tamt
    >>> smoothed = tamt.AttackRelease(0.045, 0.033, dim=-2)
    >>> smoothed(torch.rand(2, 1000, 150)).shape
    torch.Size([2, 1000, 150])
    """

    COMPUTES_IN = torch.float32
    STATES = 1

    attack: Tensor
    release: Tensor

    def __init__(
        self,
        attack: float,
        release: float,
        dim: int = -1,
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        for name, constant in (("attack", attack), ("release", release)):
            if not 0 < constant <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {constant}")
        self.dim = dim
        with DESIGN:
            constants = {"attack": attack, "release": release}
            self.register_state({n: torch.tensor(float(a), dtype=torch.float64) for n, a in constants.items()})

    def forward(self, x: Tensor) -> Tensor:
        """Smooth ``x`` (..., T, ...) from rest, along ``dim``."""
        y, _ = self.stream(x)
        return y

    def stream(self, x: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Smooth the next chunk of a signal.

        Parameters
        ----------
        x : Tensor (..., T, ...)
            The chunk.
        state : tuple of Tensor, optional
            What the call for the chunk before returned; None starts from rest.

        Returns
        -------
        y : Tensor (..., T, ...)
        state : tuple of Tensor
            One tensor (..., ...), the last of ``y``.
        """
        x, before = self.chunk(x, state, self.STATES)
        last = None if before is None else before[0]
        y, after = attack_release(x, self.attack, self.release, state=last, dim=self.dim)
        return y, (after,)

    def extra_repr(self) -> str:
        """Constants by design and dimension, for ``print``."""
        attack, release = (self._quantities[name].design.item() for name in ("attack", "release"))
        return (
            f"attack={attack:g}, release={release:g}, dim={self.dim}, learnable={self.learnable!r}, dtype={self.dtype}"
        )
