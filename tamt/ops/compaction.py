r"""The relevant components of every row to its front: a sparse spectrum as lists of frequencies and levels.

A component is relevant if its intensity is above the threshold of its row. For the operator intensities are (R, F),
thresholds (R,), and the rows of the result have ``count`` columns; ``limited`` says that a row may have more relevant
components than that, which takes a search for the strongest. On CUDA it runs on Triton kernels: torch
has nothing that does this in one pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.ops._checks import check_same_kind, check_value
from tamt.ops._register import Backward, backward_of, register
from tamt.reference import compaction as reference


def compaction(
    intensity: Tensor, frequencies: Tensor, threshold: Tensor, max_components: int | None = None
) -> tuple[Tensor, Tensor]:
    r"""Frequencies and levels of the components above the threshold, in the order of their index.

    Parameters
    ----------
    intensity : Tensor (..., F)
        Intensities, not negative, float32 or float64.
    frequencies : Tensor (F,)
        Frequencies of the components in Hz, of the same type.
    threshold : Tensor (...)
        A component stays if its intensity is greater; of the same type, not negative.
    max_components : int, optional
        Columns C of the result. If more components of a row are relevant, the strongest stay, and of equally strong
        ones those of lower index. If not given, C is what the fullest row needs, at least 1; that number is read back
        from the device.

    Returns
    -------
    freqs : Tensor (..., C)
        In Hz, 0 behind the last component. No gradient flows through it.
    levels : Tensor (..., C)
        :math:`10 \log_{10} I` in dB, 0 behind the last component.

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together, ``max_components`` below 1.
    TypeError
        Intensities that are neither float32 nor float64, other tensors of another type or device.

    Notes
    -----
    The gradient of ``intensity`` is that of the levels; which components stay is constant, and so is the threshold.
    NaN counts as relevant and as the strongest, so that it is seen in the result.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.compaction import compaction
    >>> intensity, hertz = torch.tensor([[1.0, 100.0, 2.0, 1000.0]]), torch.tensor([250.0, 500.0, 750.0, 1000.0])
    >>> freqs, levels = compaction(intensity, hertz, torch.tensor([10.0]))
    >>> freqs, levels
    (tensor([[ 500., 1000.]]), tensor([[20., 30.]]))
    """
    if intensity.dim() < 1 or intensity.shape[-1] < 1:
        raise ValueError(f"intensity must have shape (..., F) with F >= 1, got {tuple(intensity.shape)}")
    _check_like("frequencies", frequencies, intensity, intensity.shape[-1:])
    _check_like("threshold", threshold, intensity, intensity.shape[:-1])
    if intensity.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"intensity must be float32 or float64, got {intensity.dtype}")
    rows, limits = intensity.reshape(-1, intensity.shape[-1]), threshold.detach().reshape(-1)
    if max_components is None:
        count, limited = max(1, int(fullest(rows.detach(), limits))) if limits.numel() else 1, False
    elif max_components < 1:
        raise ValueError(f"max_components must be at least 1, got {max_components}")
    else:
        count, limited = max_components, max_components < intensity.shape[-1]
    freqs, levels = compaction_rows(rows, frequencies.detach(), limits, count, limited)
    shape = (*intensity.shape[:-1], count)
    return freqs.detach().reshape(shape), levels.reshape(shape)


def _check_like(name: str, tensor: Tensor, intensity: Tensor, shape: torch.Size) -> None:
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")
    check_same_kind({name: tensor}, intensity, "intensity's")


def _check(intensity: Tensor, threshold: Tensor) -> None:
    check_value(
        intensity.dim() == 2 and threshold.dim() == 1 and threshold.shape[0] == intensity.shape[0],
        lambda: (
            f"intensity and threshold must have the shapes (R, F) and (R,), got {tuple(intensity.shape)} and "
            f"{tuple(threshold.shape)}"
        ),
    )


def _check_rows(intensity: Tensor, frequencies: Tensor, threshold: Tensor, count: int, limited: bool) -> None:
    _check(intensity, threshold)
    check_value(
        frequencies.dim() == 1 and frequencies.shape[0] == intensity.shape[1],
        lambda: f"frequencies must have shape ({intensity.shape[1]},), got {tuple(frequencies.shape)}",
    )
    check_value(count >= 1, lambda: f"count must be at least 1, got {count}")


fullest = register(
    "fullest",
    "(Tensor intensity, Tensor threshold) -> Tensor",
    definition=lambda *_: (None,),
    forward=reference.fullest,
    check=_check,
    shapes=lambda *_: (),
    dtype=torch.int64,
    constants="result",
    rows="intensity threshold",
    common=True,
)
compaction_rows = register(
    "compaction",
    "(Tensor intensity, Tensor frequencies, Tensor threshold, SymInt count, bool limited) -> "
    "(Tensor freqs, Tensor levels)",
    definition=reference.definition,
    forward=reference.compaction,
    launcher="compaction:compaction",
    backward=Backward(
        reference.compaction_backward,
        of="intensity",
        constants="frequencies threshold",
        launcher="compaction:compaction_backward",
    ),
    check=_check_rows,
    shapes=lambda intensity, frequencies, threshold, count, limited: 2 * ((intensity.shape[0], count),),
    constants="freqs",
    rows="intensity threshold",
)
compaction_backward = backward_of(compaction_rows)
