"""Smoothing over time with attack and release, as loudness follows a sound."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tamt._base import DESIGN
from tamt._learnable import Form, Learnable
from tamt.ops.recurrence import attack_release


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

    With frames h steps apart, a constant a of one step counts as :math:`1 - (1 - a)^h`.

    Parameters
    ----------
    attack, release : float
        The constants of a step, in (0, 1]; either may be the larger one.
    dim : int
        The dimension of time.
    hop : float
        Steps from one frame to the next, above 0: milliseconds, if the constants are those of the table.
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
        The constants of a step.

    Raises
    ------
    ValueError
        A constant out of its range: at construction, and at a call on the CPU, to which learning may have brought it. A
        signal without a dimension.
    TypeError
        A signal that is not floating.

    See Also
    --------
    Moore2016Loudness : a model with two of them.

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

    _COMPUTES_IN = torch.float32
    _STATES = 1

    attack: Tensor
    release: Tensor

    def __init__(
        self,
        attack: float,
        release: float,
        dim: int = -1,
        hop: float = 1,
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        for name, constant in (("attack", attack), ("release", release)):
            if not (isinstance(constant, (int, float)) and 0 < constant <= 1):
                raise ValueError(f"{name} must lie in (0, 1], got {constant!r}")
        if not (isinstance(hop, (int, float)) and 0 < hop < math.inf):
            raise ValueError(f"hop must be a positive number of steps, got {hop!r}")
        self.dim = dim
        self.hop = hop
        with DESIGN:
            constants = {"attack": attack, "release": release}
            self._register_state({n: torch.tensor(float(a), dtype=torch.float64) for n, a in constants.items()})

    def forward(self, x: Tensor) -> Tensor:
        """Smooth a signal, from rest.

        Parameters
        ----------
        x : Tensor (..., T, ...)
            The signal, of any unit; time is its dimension ``dim``.

        Returns
        -------
        Tensor (..., T, ...)
            In the shape and unit of the signal.
        """
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
        x, before = self._chunk(x, state, self._STATES)
        last = None if before is None else before[0]
        attack, release = (self._of_hop(a) for a in (self.attack, self.release))
        y, after = attack_release(x, attack, release, state=last, dim=self.dim)
        return y, (after,)

    def _of_hop(self, constant: Tensor) -> Tensor:
        """The constant of as many steps as there are between frames, from that of one."""
        if self.hop == 1:
            return constant
        # Where it is 1 or, learnt, above and an error, it stays, and has a finite gradient.
        most = constant >= 1
        kept = torch.log1p(-torch.where(most, 0.5, constant))
        return torch.where(most, constant, -torch.expm1(self.hop * kept))

    def extra_repr(self) -> str:
        """Constants by design and dimension, for ``print``."""
        numbers = (f"{name}={self._quantities[name].design.item():g}" for name in ("attack", "release"))
        return (
            f"{', '.join(numbers)}, dim={self.dim}, hop={self.hop:g}, learnable={self.learnable!r}, dtype={self.dtype}"
        )
