r"""The dual-resonance nonlinear filter (DRNL) with impulse responses of finite length, by FFT.

.. math:: y = h_\mathrm{linear} * x + h_\mathrm{back} * \mathrm{NL}(h_\mathrm{front} * x)

NL is the broken stick (:mod:`tamt.ops.broken_stick`), each :math:`h` a causal impulse response of ``M`` samples.
Signals run in blocks of N samples (overlap-save), the first power of two from 4 M on, at least 1024, so memory beyond
the output does not grow with their length. On CUDA the operator runs on cuFFT and Triton kernels, elsewhere on
:mod:`tamt.reference.fft_drnl`.

From the first sample on that is NaN or infinite, that signal's output and final state are NaN, for good, as in
:mod:`tamt.ops.drnl`; a state that is not finite does so from the start. What came before is what zeros in their place
would give, to the rounding of a transform. Numbers so large that they overflow inside spoil their block as a whole.

For the operator the leading dimensions are one, ``x`` is (B, T), and the state is always given: ``past_x`` (B, M-1) and
``past_w`` (B, F, M-1). From there it takes M.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tamt._memo import Store, bits, readable
from tamt.ops._checks import as_rows, check_same_kind, check_value, with_lead
from tamt.ops._register import Backward, backward_of, register
from tamt.ops.drnl_sections import drnl_sections
from tamt.ops.iir import modal_cascade
from tamt.reference import fft_drnl as reference
from tamt.shared.overlap_save import fft_length

KEPT = 128 << 20  # bytes of spectra kept for later calls; those of 50 channels in float64 take 19 MiB


def ir_spectra(impulses: Tensor) -> Tensor:
    """Spectra for :func:`fft_drnl`.

    Parameters
    ----------
    impulses : Tensor (3, F, M)
        Impulse responses of every channel: linear path, nonlinear path before and after the broken stick.

    Returns
    -------
    Tensor (3, F, N/2 + 1, 2)
        Real and imaginary parts for transforms of N samples: the first power of two from 4 M on, at least 1024.

    Raises
    ------
    ValueError
        Impulse responses of another shape.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.fft_drnl import ir_spectra
    >>> ir_spectra(torch.randn(3, 5, 256)).shape  # a transform of 1024 samples
    torch.Size([3, 5, 513, 2])
    """
    if impulses.dim() != 3 or impulses.shape[0] != 3 or impulses.numel() == 0:
        raise ValueError(f"impulses must have shape (3, F, M) with F, M >= 1, got {tuple(impulses.shape)}")
    return torch.view_as_real(torch.fft.rfft(impulses, fft_length(impulses.shape[2])))


def filter_spectra(parameters: Tensor, fs: float, orders: Sequence[int], ir_length: int) -> Tensor:
    """:func:`ir_spectra` of the filters of a DRNL filterbank, made in double precision where the device has it.

    Parameters
    ----------
    parameters : Tensor (7, F)
        The tensors of :func:`tamt.ops.drnl_sections.drnl_sections` in its order, float32 or float64. They receive no
        gradient.
    fs : float
        Sampling rate in Hz.
    orders : four int
        As for :func:`tamt.ops.drnl_sections.drnl_sections`.
    ir_length : int
        Length of the impulse responses.

    Returns
    -------
    Tensor (3, F, N/2 + 1, 2)
        On the CPU perhaps the tensor of an earlier call that had the same numbers: not to be changed in place.

    Examples
    --------
    >>> import torch, tamt
    >>> from tamt.ops.fft_drnl import filter_spectra
    >>> bank = tamt.DRNLFilterbank([500.0, 4000.0], fs=16000)
    >>> names = ("CF_lin", "BW_lin", "LP_lin_cutoff", "g", "CF_nlin", "BW_nlin", "LP_nlin_cutoff")
    >>> parameters = torch.stack([getattr(bank, name) for name in names])
    >>> filter_spectra(parameters, 16000, (2, 4, 2, 1), ir_length=1024).shape
    torch.Size([3, 2, 2049, 2])
    """
    given = parameters.detach(), float(fs), list(orders), ir_length
    return _kept_spectra(*given) if readable(parameters) else _filter_spectra(*given)


def fft_drnl(
    x: Tensor, spectra: Tensor, stick: Tensor, ir_length: int, *, state: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    r""":math:`h_\mathrm{linear} * x + h_\mathrm{back} * \mathrm{NL}(h_\mathrm{front} * x)` for every channel.

    Parameters
    ----------
    x : Tensor (..., T)
        Signal, float32 or float64; the other tensors have the same type.
    spectra : Tensor (3, F, N/2 + 1, 2)
        Spectra of the impulse responses from :func:`ir_spectra`. They receive no gradient.
    stick : Tensor (F, 3)
        Columns a, b, c of :math:`\mathrm{NL}(v) = \mathrm{sign}(v) \min(a |v|, b |v|^c)`.
    ir_length : int
        Length ``M`` of the impulse responses.
    state : tuple of Tensor (..., M - 1) and Tensor (..., F, M - 1), optional
        The last samples of the signal and of the compressed signal :math:`\mathrm{NL}(h_\mathrm{front} * x)` to
        continue from; zeros if not given.

    Returns
    -------
    y : Tensor (..., F, T)
    state : tuple of Tensor (..., M - 1) and Tensor (..., F, M - 1)

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together, ``spectra`` that require gradients.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Notes
    -----
    On the knee of the broken stick, where both branches are equal, gradients are those of the linear one.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.fft_drnl import fft_drnl, ir_spectra
    >>> spectra = ir_spectra(torch.randn(3, 5, 256) * torch.exp(-torch.arange(256) / 20))  # of F = 5 channels, M = 256
    >>> stick = torch.tensor([10.0, 1.0, 0.25]).expand(5, 3)
    >>> y, (last_x, last_w) = fft_drnl(torch.randn(2, 1000), spectra, stick, 256)
    >>> y.shape, last_x.shape, last_w.shape
    (torch.Size([2, 5, 1000]), torch.Size([2, 255]), torch.Size([2, 5, 255]))
    """
    lead, operands = as_operands(x, spectra, stick, ir_length, state)
    y, last_x, last_w = with_lead(lead, fft_drnl_rows(*operands))
    return y, (last_x, last_w)


def as_operands(
    x: Tensor, spectra: Tensor, stick: Tensor, ir_length: int, state: tuple[Tensor, Tensor] | None
) -> tuple[torch.Size, tuple[Tensor, ...]]:
    """Leading dimensions of the signal, and what the operator takes, from checked arguments of :func:`fft_drnl`."""
    size = fft_length(ir_length)
    if spectra.dim() != 4 or spectra.shape[0] != 3 or spectra.shape[2:] != (size // 2 + 1, 2):
        raise ValueError(
            f"spectra must have shape (3, F, {size // 2 + 1}, 2) for ir_length {ir_length}, got {tuple(spectra.shape)}"
        )
    if spectra.requires_grad:
        raise ValueError("spectra must not require gradients: fft_drnl has none for them, detach it")
    if x.dim() < 1:
        raise ValueError("x must have shape (..., T), got ()")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    lead, channels = x.shape[:-1], spectra.shape[1]
    if state is None:
        state = x.new_zeros(*lead, ir_length - 1), x.new_zeros(*lead, channels, ir_length - 1)
    past_x, past_w = state
    for name, tensor, shape in (
        ("stick", stick, (channels, 3)),
        ("state[0]", past_x, (*lead, ir_length - 1)),
        ("state[1]", past_w, (*lead, channels, ir_length - 1)),
    ):
        if tensor.shape != torch.Size(shape):
            raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")
    given = {"spectra": spectra, "stick": stick, "state[0]": past_x, "state[1]": past_w}
    check_same_kind(given, x, "the signal's")
    return lead, (as_rows(x), spectra, stick, as_rows(past_x), as_rows(past_w, 2))


_spectra: Store[Tensor] = Store(KEPT)


def _kept_spectra(parameters: Tensor, fs: float, orders: list[int], ir_length: int) -> Tensor:
    """What :func:`_computed_spectra` gave for the same numbers before, or gives now."""
    key = (*bits(parameters), fs, *orders, ir_length)
    return _spectra.get(key, lambda: _computed_spectra(parameters.clone(), fs, orders, ir_length))


def _computed_spectra(parameters: Tensor, fs: float, orders: list[int], ir_length: int) -> Tensor:
    exact = parameters if parameters.device.type == "mps" else parameters.double()
    filters = drnl_sections(*exact.unbind(0), fs=fs, orders=orders)
    impulse = exact.new_zeros(ir_length)
    impulse[0] = 1
    responses = torch.stack([modal_cascade(impulse, sections)[0] for sections in filters])
    return ir_spectra(responses).to(parameters.dtype)


def _spectra_of(parameters: Tensor, fs: float, orders: list[int], ir_length: int) -> Tensor:
    if parameters.device.type == "cpu":
        return _kept_spectra(parameters, fs, orders, ir_length).clone()  # a compiled graph may use its memory again
    return _computed_spectra(parameters, fs, orders, ir_length)


_filter_spectra = register(
    "filter_spectra",
    "(Tensor parameters, float fs, int[] orders, int ir_length) -> Tensor",
    definition=_computed_spectra,
    forward=_spectra_of,
    shapes=lambda parameters, fs, orders, ir_length: (3, parameters.shape[1], fft_length(ir_length) // 2 + 1, 2),
)


def check_operands(x: Tensor, spectra: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor) -> None:
    """Operands that belong together, or a ValueError."""
    check_value(
        spectra.dim() == 4 and spectra.shape[0] == 3 and spectra.shape[2] > 1 and spectra.shape[3] == 2,
        lambda: f"spectra must have shape (3, F, N/2+1, 2), got {tuple(spectra.shape)}",
    )
    channels = spectra.shape[1]
    check_value(
        stick.dim() == 2 and stick.shape[0] == channels and stick.shape[1] == 3,
        lambda: f"stick must have shape ({channels}, 3), got {tuple(stick.shape)}",
    )
    check_value(
        x.dim() == 2 and past_x.dim() == 2 and x.shape[0] == past_x.shape[0],
        lambda: f"x and past_x must have the shapes (B, T) and (B, M-1), got {tuple(x.shape)}, {tuple(past_x.shape)}",
    )
    check_value(
        past_w.dim() == 3
        and past_w.shape[0] == x.shape[0]
        and past_w.shape[1] == channels
        and past_w.shape[2] == past_x.shape[1],
        lambda: f"past_w must have shape {(x.shape[0], channels, past_x.shape[1])}, got {tuple(past_w.shape)}",
    )
    check_value(
        past_x.shape[1] < 2 * (spectra.shape[2] - 1),
        lambda: f"transforms of {2 * (spectra.shape[2] - 1)} samples are too short for a past of {past_x.shape[1]}",
    )


fft_drnl_rows = register(
    "fft_drnl",
    "(Tensor x, Tensor spectra, Tensor stick, Tensor past_x, Tensor past_w) -> "
    "(Tensor y, Tensor last_x, Tensor last_w)",
    definition=reference.definition,
    forward=reference.fft_drnl,
    launcher="fft_drnl:fft_drnl",
    backward=Backward(
        reference.fft_drnl_backward,
        of="x stick past_x past_w",
        constants="spectra",
        launcher="fft_drnl:fft_drnl_backward",
        needs=("x past_x",),
        silences="x past_x",
    ),
    check=check_operands,
    shapes=lambda x, spectra, stick, past_x, past_w: (
        (x.shape[0], spectra.shape[1], x.shape[1]),
        past_x.shape,
        past_w.shape,
    ),
    rows="x past_x past_w",
)
fft_drnl_backward = backward_of(fft_drnl_rows)
