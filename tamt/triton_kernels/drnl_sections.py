"""Sections of the three filters of DRNL channels in one launch, a lane each; in float64, which rounds once.

Definition and shapes: :mod:`tamt.ops.drnl_sections`, formulas: :func:`tamt.design.gammatone.classic_gammatone` and
:func:`tamt.design.butterworth.butterworth_lowpass`.
"""

import torch
import triton
import triton.language as tl

from tamt.design.poles import MIN_DECAY

from ._common import LAUNCH, cdiv, on_device_of
from ._math import angle_of, exp_minus_one, log_one_plus

LANES = 32  # channels of a program


@triton.jit
def load_parameter(p_one, o_f, m_f):
    """Of channels o_f, in float64."""
    return tl.load(p_one + o_f, mask=m_f, other=1.0).to(tl.float64)


@triton.jit
def store_section(p_sections, o_f, m_f, b_section, J: tl.constexpr, K: tl.constexpr):
    """Six numbers as section J of the K of channels o_f."""
    for i in tl.static_range(6):
        p_out = p_sections + (o_f * K + J) * 6 + i
        tl.store(p_out, b_section[i].to(p_sections.dtype.element_ty), mask=m_f)


@triton.jit
def gammatone(b_cf, b_bw, b_fs, MIN_DECAY: tl.constexpr):
    """Section of the classic gammatone."""
    b_least = tl.full([], MIN_DECAY, tl.float64)
    b_decay = 6.283185307179586 * b_bw / b_fs
    b_decay = tl.where(b_decay < b_least, b_least, b_decay)
    b_cycles = b_cf / b_fs
    b_shrink = exp_minus_one(-b_decay)
    b_angle = 6.283185307179586 * b_cycles
    b_sine = tl.sin(b_angle)
    b_re = 2.0 * (1.0 + b_shrink) * b_sine * b_sine - b_shrink
    b_im = (1.0 + b_shrink) * tl.sin(2.0 * b_angle)
    b_norm = b_re * b_re + b_im * b_im
    b_one = b_re / b_norm - 1.0 / b_shrink
    b_other = b_im / b_norm
    b_zero = tl.zeros_like(b_cf)
    return b_decay, b_cycles, b_zero, 2.0 / tl.sqrt(b_one * b_one + b_other * b_other), b_zero, b_zero


@triton.jit
def lowpass(b_cutoff, b_fs):
    """Section of the second-order Butterworth low-pass."""
    b_most = 0.9999 * (b_fs / 2)
    b_angle = 3.141592653589793 * tl.where(b_cutoff > b_most, b_most, b_cutoff) / b_fs
    b_w = tl.sin(b_angle) / tl.cos(b_angle)
    b_twice = 1.4142135623730951 * b_w
    b_square = b_w * b_w
    b_ratio = b_twice / (1.0 + b_square)
    b_decay = 0.5 * log_one_plus(2.0 * b_ratio / (1.0 - b_ratio))
    b_cycles = angle_of(1.0 - b_square, b_twice) * 0.15915494309189535
    b_scale = -2.0 * b_twice / (1.0 + b_square * b_square)
    b_direct = b_square / (1.0 - b_twice + b_square)
    return b_decay, b_cycles, tl.zeros_like(b_cutoff), b_scale * b_square, b_scale, b_direct


@triton.jit(do_not_specialize=["F"])
def drnl_sections_kernel(
    p_cf_lin,
    p_bw_lin,
    p_lp_lin,
    p_g,
    p_cf_nlin,
    p_bw_nlin,
    p_lp_nlin,
    p_linear,
    p_front,
    p_back,
    F,
    GAMMATONES_LIN: tl.constexpr,
    LOWPASSES_LIN: tl.constexpr,
    GAMMATONES_NLIN: tl.constexpr,
    LOWPASSES_NLIN: tl.constexpr,
    FS: tl.constexpr,
    MIN_DECAY: tl.constexpr,
    LANES: tl.constexpr,
):
    """Parameters (F,) -> linear, front, back (F, K, 6); LANES channels per program."""
    o_f = tl.program_id(0) * LANES + tl.arange(0, LANES)
    m_f = o_f < F
    b_fs = tl.full([], FS, tl.float64)  # which a number among the arguments would be in float32
    b_section = gammatone(load_parameter(p_cf_lin, o_f, m_f), load_parameter(p_bw_lin, o_f, m_f), b_fs, MIN_DECAY)
    b_gain = b_section[3] * load_parameter(p_g, o_f, m_f)
    b_first = (b_section[0], b_section[1], b_section[2], b_gain, b_section[4], b_section[5])
    LINEAR: tl.constexpr = GAMMATONES_LIN + LOWPASSES_LIN
    for j in tl.static_range(GAMMATONES_LIN):
        store_section(p_linear, o_f, m_f, b_first if j == 0 else b_section, j, LINEAR)
    b_section = lowpass(load_parameter(p_lp_lin, o_f, m_f), b_fs)
    for j in tl.static_range(LOWPASSES_LIN):
        store_section(p_linear, o_f, m_f, b_section, GAMMATONES_LIN + j, LINEAR)
    BACK: tl.constexpr = GAMMATONES_NLIN + LOWPASSES_NLIN
    b_section = gammatone(load_parameter(p_cf_nlin, o_f, m_f), load_parameter(p_bw_nlin, o_f, m_f), b_fs, MIN_DECAY)
    for j in tl.static_range(GAMMATONES_NLIN):
        store_section(p_front, o_f, m_f, b_section, j, GAMMATONES_NLIN)
        store_section(p_back, o_f, m_f, b_section, j, BACK)
    b_section = lowpass(load_parameter(p_lp_nlin, o_f, m_f), b_fs)
    for j in tl.static_range(LOWPASSES_NLIN):
        store_section(p_back, o_f, m_f, b_section, GAMMATONES_NLIN + j, BACK)


def drnl_sections(*given) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sections (F, K, 6) from the seven parameters (F,), the sampling rate and the orders of the model."""
    *parameters, fs, orders = given
    like = parameters[0]
    F = like.shape[0]
    gammatones_lin, lowpasses_lin, gammatones_nlin, lowpasses_nlin = orders
    counts = (gammatones_lin + lowpasses_lin, gammatones_nlin, gammatones_nlin + lowpasses_nlin)
    linear, front, back = (like.new_empty(F, count, 6) for count in counts)
    with on_device_of(like):
        drnl_sections_kernel[(cdiv(F, LANES),)](
            *(parameter.contiguous() for parameter in parameters),
            linear,
            front,
            back,
            F,
            GAMMATONES_LIN=gammatones_lin,
            LOWPASSES_LIN=lowpasses_lin,
            GAMMATONES_NLIN=gammatones_nlin,
            LOWPASSES_NLIN=lowpasses_nlin,
            FS=fs,
            MIN_DECAY=MIN_DECAY,
            LANES=LANES,
            num_warps=1,
            **LAUNCH,
        )
    return linear, front, back
