"""Rows of the IIR engine for poles that have moved from their design, and their gradients: a launch each.

Definition and shapes: :mod:`tamt.ops.onepole_rows`. A lane takes a channel; all is done in float64, which rounds once.
"""

import torch
import triton
import triton.language as tl

from tamt.design.poles import MIN_DECAY

from ._common import LAUNCH, cdiv, on_device_of
from ._math import angle_of, log_one_plus

LANES = 64  # channels of a program


@triton.jit
def load_pole(p_poles, o_f, m_f, EPS: tl.constexpr):
    """Real and imaginary part, those at 0 moved by a rounding error, as the definition has it."""
    b_re = tl.load(p_poles + 2 * o_f, mask=m_f, other=1.0).to(tl.float64)
    b_im = tl.load(p_poles + 2 * o_f + 1, mask=m_f, other=0.0).to(tl.float64)
    return tl.where(tl.maximum(tl.abs(b_re), tl.abs(b_im)) < EPS, b_re + 2 * EPS, b_re), b_im


@triton.jit(do_not_specialize=["F"])
def onepole_rows_kernel(
    p_poles, p_gains, p_design, p_rows, F, MIN_DECAY: tl.constexpr, EPS: tl.constexpr, LANES: tl.constexpr
):
    """poles, gains (F, 2), design (F, 5) -> rows (F, 5); LANES channels per program."""
    o_f = tl.program_id(0) * LANES + tl.arange(0, LANES)
    m_f = o_f < F
    b_re, b_im = load_pole(p_poles, o_f, m_f, EPS)
    b_re0 = tl.load(p_design + 5 * o_f, mask=m_f, other=1.0).to(tl.float64)
    b_im0 = tl.load(p_design + 5 * o_f + 1, mask=m_f, other=0.0).to(tl.float64)
    b_decay0 = tl.load(p_design + 5 * o_f + 2, mask=m_f, other=0.0).to(tl.float64)
    b_high = tl.load(p_design + 5 * o_f + 3, mask=m_f, other=0.0)
    b_low = tl.load(p_design + 5 * o_f + 4, mask=m_f, other=0.0).to(tl.float64)
    b_norm = b_re0 * b_re0 + b_im0 * b_im0
    b_dre = b_re - b_re0
    b_dim = b_im - b_im0
    b_rre = (b_dre * b_re0 + b_dim * b_im0) / b_norm
    b_rim = (b_dim * b_re0 - b_dre * b_im0) / b_norm
    m_far = b_rre * b_rre + b_rim * b_rim > 0.25
    # The step where it is small; the pole itself, as one number and not as a step from 1, elsewhere.
    b_size = tl.where(
        m_far,
        tl.log(b_re * b_re + b_im * b_im),
        log_one_plus(tl.where(m_far, 0.0, b_rre * (2.0 + b_rre) + b_rim * b_rim)),
    )
    b_angle = angle_of(tl.where(m_far, b_re, 1.0 + b_rre), tl.where(m_far, b_im, b_rim)) * 0.15915494309189535
    b_decay = tl.where(m_far, 0.0, b_decay0) - 0.5 * b_size
    b_least = tl.minimum(b_decay0, tl.full([], MIN_DECAY, tl.float64))
    b_decay = tl.where(b_decay < b_least, b_least, b_decay)
    b_low = tl.where(m_far, 0.0, b_low) + b_angle
    dtype = p_rows.dtype.element_ty
    p_row = p_rows + 5 * o_f
    tl.store(p_row, b_decay.to(dtype), mask=m_f)
    tl.store(p_row + 1, tl.where(m_far, 0.0, b_high).to(dtype), mask=m_f)
    tl.store(p_row + 2, b_low.to(dtype), mask=m_f)
    for i in tl.static_range(2):
        tl.store(p_row + 3 + i, 2.0 * tl.load(p_gains + 2 * o_f + i, mask=m_f, other=0.0), mask=m_f)


@triton.jit(do_not_specialize=["F"])
def onepole_rows_backward_kernel(
    p_grad,
    p_poles,
    p_rows,
    p_design,
    p_grad_poles,
    p_grad_gains,
    F,
    MIN_DECAY: tl.constexpr,
    EPS: tl.constexpr,
    LANES: tl.constexpr,
):
    """grad, rows, design (F, 5), poles (F, 2) -> grad_poles, grad_gains (F, 2): ``dp / p`` is the step of log p."""
    o_f = tl.program_id(0) * LANES + tl.arange(0, LANES)
    m_f = o_f < F
    b_re, b_im = load_pole(p_poles, o_f, m_f, EPS)
    dtype = p_rows.dtype.element_ty
    b_least = tl.minimum(tl.load(p_design + 5 * o_f + 2, mask=m_f, other=0.0), tl.full([], MIN_DECAY, dtype))
    m_free = tl.load(p_rows + 5 * o_f, mask=m_f, other=0.0) > b_least
    b_size = tl.where(m_free, tl.load(p_grad + 5 * o_f, mask=m_f, other=0.0), 0.0).to(tl.float64)
    b_angle = tl.load(p_grad + 5 * o_f + 2, mask=m_f, other=0.0).to(tl.float64) * 0.15915494309189535
    b_norm = b_re * b_re + b_im * b_im
    tl.store(p_grad_poles + 2 * o_f, ((-b_size * b_re - b_angle * b_im) / b_norm).to(dtype), mask=m_f)
    tl.store(p_grad_poles + 2 * o_f + 1, ((b_angle * b_re - b_size * b_im) / b_norm).to(dtype), mask=m_f)
    for i in tl.static_range(2):
        b_gain = 2.0 * tl.load(p_grad + 5 * o_f + 3 + i, mask=m_f, other=0.0)
        tl.store(p_grad_gains + 2 * o_f + i, b_gain, mask=m_f)


def _options(poles: torch.Tensor) -> dict:
    eps = torch.finfo(poles.dtype).eps
    return {"MIN_DECAY": MIN_DECAY, "EPS": eps, "LANES": LANES, "num_warps": LANES // 32, **LAUNCH}


def onepole_rows(poles: torch.Tensor, gains: torch.Tensor, design: torch.Tensor) -> torch.Tensor:
    """Rows (F, 5)."""
    rows = torch.empty_like(design, memory_format=torch.contiguous_format)
    F = design.shape[0]
    with on_device_of(poles):
        onepole_rows_kernel[(cdiv(F, LANES),)](
            poles.contiguous(), gains.contiguous(), design.contiguous(), rows, F, **_options(poles)
        )
    return rows


def onepole_rows_backward(
    grad: torch.Tensor, poles: torch.Tensor, gains: torch.Tensor, design: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of poles and gains."""
    of_poles, of_gains = (torch.empty_like(poles, memory_format=torch.contiguous_format) for _ in range(2))
    F = design.shape[0]
    with on_device_of(poles):
        onepole_rows_backward_kernel[(cdiv(F, LANES),)](
            grad.contiguous(),
            poles.contiguous(),
            rows.contiguous(),
            design.contiguous(),
            of_poles,
            of_gains,
            F,
            **_options(poles),
        )
    return of_poles, of_gains
