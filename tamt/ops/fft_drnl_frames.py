r"""Mean power or positive half of the outputs of :mod:`tamt.ops.fft_drnl` in every hop, without the outputs themselves.

Hops and detectors are those of :mod:`tamt.ops.drnl_frames`. The output is made in chunks of whole transforms; on CUDA
what the last transform of a group gives is added up at once.

The operator takes what that of :mod:`tamt.ops.fft_drnl` takes, hop and detector.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from tamt.ops._checks import with_lead
from tamt.ops._register import Backward, backward_of, register
from tamt.ops.drnl_frames import check_real_hops
from tamt.ops.fft_drnl import as_operands, check_operands, fft_drnl_backward, fft_drnl_rows
from tamt.reference.fft_drnl import definition as filtered
from tamt.shared.hops import (
    Chunks,
    Sizes,
    States,
    chunk_sizes,
    detect,
    hop_means,
    in_chunks,
    in_chunks_backward,
    pull_back_,
)


def fft_drnl_frames(
    x: Tensor,
    spectra: Tensor,
    stick: Tensor,
    ir_length: int,
    hop: int,
    detector: str,
    *,
    state: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Means over hops of what the detector gives for the outputs of all channels.

    Parameters
    ----------
    x, spectra, stick, ir_length, state
        As for :func:`tamt.ops.fft_drnl.fft_drnl`.
    hop : int
        Samples of a hop.
    detector : {'power', 'halfwave'}

    Returns
    -------
    means : Tensor (..., F, T // hop)
    state : tuple of Tensor (..., M - 1) and Tensor (..., F, M - 1)
        State after the last whole hop.

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together, ``spectra`` that require gradients, a ``hop`` below 1,
        another ``detector``.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.fft_drnl import ir_spectra
    >>> from tamt.ops.fft_drnl_frames import fft_drnl_frames
    >>> spectra = ir_spectra(torch.randn(3, 5, 256) * torch.exp(-torch.arange(256) / 20))  # of F = 5 channels, M = 256
    >>> stick = torch.tensor([10.0, 1.0, 0.25]).expand(5, 3)
    >>> means, state = fft_drnl_frames(torch.randn(2, 1000), spectra, stick, 256, 160, "power")
    >>> means.shape
    torch.Size([2, 5, 6])
    """
    lead, operands = as_operands(x, spectra, stick, ir_length, state)
    means, last_x, last_w = with_lead(lead, fft_drnl_frames_rows(*operands, hop, detector))
    return means, (last_x, last_w)


def _check(x: Tensor, spectra: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor, hop: int, detector: str) -> None:
    check_operands(x, spectra, stick, past_x, past_w)
    check_real_hops(hop, detector)


def _definition(
    x: Tensor, spectra: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor, hop: int, detector: str
) -> tuple[Tensor, Tensor, Tensor]:
    y, last_x, last_w = filtered(x[:, : x.shape[1] // hop * hop], spectra, stick, past_x, past_w)
    return hop_means(detect(y, detector), hop), last_x, last_w


def _sizes(x: Tensor, spectra: Tensor, past_x: Tensor) -> Sizes:
    """Chunks of as many samples as whole transforms have new ones."""
    new, sizes = 2 * (spectra.shape[2] - 1) - past_x.shape[1], chunk_sizes(x)
    return sizes._replace(unit=new, least=sizes.least and new)


def _run(spectra: Tensor, stick: Tensor, chunk: Tensor, states: States) -> tuple[Tensor, States]:
    """Output and final state of a chunk."""
    y, *last = fft_drnl_rows(chunk, spectra, stick, *states)
    return y, tuple(last)


def _forward(
    x: Tensor, spectra: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor, hop: int, detector: str
) -> tuple[Tensor, Tensor, Tensor]:
    sizes = _sizes(x, spectra, past_x)
    means, (last_x, last_w) = in_chunks(
        partial(_run, spectra, stick), x, (past_x, past_w), len(stick), hop, detector, sizes
    )
    return means, last_x, last_w


def _backward(
    grad_means: Tensor,
    grad_last_x: Tensor,
    grad_last_w: Tensor,
    x: Tensor,
    spectra: Tensor,
    stick: Tensor,
    past_x: Tensor,
    past_w: Tensor,
    hop: int,
    detector: str,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_x = torch.zeros_like(x) if need_x else x.new_empty(0)
    grad_stick = torch.zeros_like(stick)

    def advance(chunk: Tensor, states: States) -> States:
        return _run(spectra, stick, chunk, states)[1]

    def pull_back(rows: slice, time: slice, states: States, grads: States) -> States:
        y, _ = _run(spectra, stick, x[rows, time], states)
        grad_y = pull_back_(y, grad_means[rows], time.start, hop, detector)
        of_x, of_stick, *of_past = fft_drnl_backward(grad_y, *grads, x[rows, time], spectra, stick, *states, True)
        grad_stick.add_(of_stick)
        if need_x:
            grad_x[rows, time] = of_x
        return tuple(of_past)

    past, grad_last = (past_x, past_w), (grad_last_x, grad_last_w)
    chunks = Chunks(len(x), len(stick), grad_means.shape[2] * hop, _sizes(x, spectra, past_x))
    grad_past_x, grad_past_w = in_chunks_backward(advance, pull_back, x, past, grad_last, chunks)
    return grad_x, grad_stick, grad_past_x if need_x else x.new_empty(0), grad_past_w


fft_drnl_frames_rows = register(
    "fft_drnl_frames",
    "(Tensor x, Tensor spectra, Tensor stick, Tensor past_x, Tensor past_w, int hop, str detector) -> "
    "(Tensor means, Tensor last_x, Tensor last_w)",
    definition=_definition,
    forward=_forward,
    launcher="fft_drnl:fft_drnl_frames",
    backward=Backward(
        _backward,
        of="x stick past_x past_w",
        constants="spectra",
        needs=("x past_x",),
        silences="x past_x",
    ),
    check=_check,
    shapes=lambda x, spectra, stick, past_x, past_w, hop, detector: (
        (x.shape[0], spectra.shape[1], x.shape[1] // hop),
        past_x.shape,
        past_w.shape,
    ),
    rows="x past_x past_w",
)
fft_drnl_frames_backward = backward_of(fft_drnl_frames_rows)
