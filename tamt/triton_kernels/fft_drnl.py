"""The dual-resonance nonlinear filter by FFT: cuFFT transforms, and one kernel for all that lies between two of them.

What the last transform gives goes to the output, or to means over hops of what a detector makes of it.

The walk over groups of blocks is that of :mod:`tamt.shared.overlap_save`; here a group is as large as a budget of bytes
allows. ``p`` counts pairs of a row and a block, ``p = r G + g``. Time ``q`` counts from a group's first new sample:
sample ``i`` of block ``g`` is at ``q = g hop + i - memory``, and ``n`` new samples end the group. Spectra are given as
real and imaginary parts, ``K = N/2 + 1`` pairs each. Channels are those of one slice.

What depends on batch and length is left unspecialised: with impulse responses of an even length, ``memory`` is odd and
only what is of width N lies where 128 bits can be loaded or stored at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from tamt.shared.overlap_save import (
    BYTES,
    TEMPORARIES,
    Group,
    block_spectra,
    complex_spectra,
    groups,
    mark_bad,
    next_past,
    split_bad,
)
from tamt.triton_kernels._common import LAUNCH, cdiv, next_power_of_2, on_device_of
from tamt.triton_kernels.broken_stick import broken_stick_gain, load_stick, log2_magnitude
from tamt.triton_kernels.filter_frames import detect, divisor, mean_of

BLOCK = 1024  # samples per program
BINS = 512  # of a spectrum per program


@triton.jit
def load_bins(p_spectrum, o_k, m_k):
    """Real and imaginary parts of the bins ``o_k``."""
    o_part = tl.arange(0, 2)
    return tl.split(tl.load(p_spectrum + (2 * o_k[:, None] + o_part[None, :]), mask=m_k[:, None], other=0.0))


@triton.jit
def store_bins(p_spectrum, o_k, m_k, b_re, b_im):
    o_part = tl.arange(0, 2)
    tl.store(p_spectrum + (2 * o_k[:, None] + o_part[None, :]), tl.join(b_re, b_im), mask=m_k[:, None])


@triton.jit
def overlapped(p_blocks, o_s, m_s, C, G, hop, N, OVERLAPS: tl.constexpr):
    """Sum of a channel's blocks that reach ``q = o_s - memory``; block g of (G, C, N) begins at ``o_s = g hop``."""
    b_sum = tl.zeros(o_s.shape, p_blocks.dtype.element_ty)
    for back in tl.static_range(OVERLAPS):
        o_g = o_s // hop - back
        o_i = o_s % hop + back * hop
        m_g = m_s & (o_g >= 0) & (o_g < G) & (o_i < N)
        b_sum += tl.load(p_blocks + (o_g.to(tl.int64) * C * N + o_i), mask=m_g, other=0.0)
    return b_sum


@triton.jit(do_not_specialize=["C", "a_stride_p", "a_stride_c"])
def fft_drnl_product_kernel(p_a, p_h, p_out, C, K, a_stride_p, a_stride_c, CONJUGATE: tl.constexpr, BK: tl.constexpr):
    """``out[p, c] = a[p, c] h[c]``, with ``conj(h[c])`` if CONJUGATE.

    a (P, C, K, 2) with strides, that of c being 0 for a spectrum shared by all channels; h (C, K, 2)
    -> out (P, C, K, 2)
    """
    n_tiles = (K + BK - 1) // BK
    o_row = tl.program_id(0) // n_tiles
    o_p, o_c = (o_row // C).to(tl.int64), (o_row % C).to(tl.int64)
    o_k = (tl.program_id(0) % n_tiles) * BK + tl.arange(0, BK)
    m_k = o_k < K
    b_re, b_im = load_bins(p_a + o_p * a_stride_p + o_c * a_stride_c, o_k, m_k)
    b_hre, b_him = load_bins(p_h + o_c * K * 2, o_k, m_k)
    if CONJUGATE:
        b_him = -b_him
    p_row = p_out + o_row.to(tl.int64) * K * 2
    store_bins(p_row, o_k, m_k, b_re * b_hre - b_im * b_him, b_re * b_him + b_im * b_hre)


@triton.jit(do_not_specialize=["C"])
def fft_drnl_mix_kernel(p_x, p_linear, p_w, p_back, C, K, BK: tl.constexpr):
    """``w[p, c] <- x[p] linear[c] + w[p, c] back[c]``, in place.

    x (P, K, 2); linear, back (C, K, 2); w (P, C, K, 2)
    """
    n_tiles = (K + BK - 1) // BK
    o_row = tl.program_id(0) // n_tiles
    o_p, o_c = (o_row // C).to(tl.int64), (o_row % C).to(tl.int64)
    o_k = (tl.program_id(0) % n_tiles) * BK + tl.arange(0, BK)
    m_k = o_k < K
    p_row = p_w + o_row.to(tl.int64) * K * 2
    b_xre, b_xim = load_bins(p_x + o_p * K * 2, o_k, m_k)
    b_lre, b_lim = load_bins(p_linear + o_c * K * 2, o_k, m_k)
    b_wre, b_wim = load_bins(p_row, o_k, m_k)
    b_bre, b_bim = load_bins(p_back + o_c * K * 2, o_k, m_k)
    b_re = b_xre * b_lre - b_xim * b_lim + (b_wre * b_bre - b_wim * b_bim)
    b_im = b_xre * b_lim + b_xim * b_lre + (b_wre * b_bim + b_wim * b_bre)
    store_bins(p_row, o_k, m_k, b_re, b_im)


@triton.jit(do_not_specialize=["C"])
def fft_drnl_adjoint_mix_kernel(p_v, p_front, p_y, p_linear, p_total, C, K, ACCUMULATE: tl.constexpr, BK: tl.constexpr):
    """``total[p] = sum_c conj(front[c]) v[p, c] + conj(linear[c]) y[p, c]``, added to what is there if ACCUMULATE.

    v, y (P, C, K, 2): spectra of gradients; front, linear (C, K, 2) -> total (P, K, 2). Program: BK bins of one p.
    """
    n_tiles = (K + BK - 1) // BK
    o_p = (tl.program_id(0) // n_tiles).to(tl.int64)
    o_k = (tl.program_id(0) % n_tiles) * BK + tl.arange(0, BK)
    m_k = o_k < K
    if ACCUMULATE:
        b_re, b_im = load_bins(p_total + o_p * K * 2, o_k, m_k)
    else:
        b_re = tl.zeros([BK], p_total.dtype.element_ty)
        b_im = tl.zeros([BK], p_total.dtype.element_ty)
    p_v += o_p * C * K * 2
    p_y += o_p * C * K * 2
    for _ in range(0, C):
        b_vre, b_vim = load_bins(p_v, o_k, m_k)
        b_fre, b_fim = load_bins(p_front, o_k, m_k)
        b_yre, b_yim = load_bins(p_y, o_k, m_k)
        b_lre, b_lim = load_bins(p_linear, o_k, m_k)
        b_re += b_fre * b_vre + b_fim * b_vim + (b_lre * b_yre + b_lim * b_yim)
        b_im += b_fre * b_vim - b_fim * b_vre + (b_lre * b_yim - b_lim * b_yre)
        p_v += K * 2
        p_y += K * 2
        p_front += K * 2
        p_linear += K * 2
    store_bins(p_total + o_p * K * 2, o_k, m_k, b_re, b_im)


@triton.jit(do_not_specialize=["C", "G", "n_windows", "first", "n", "past_stride_r", "past_stride_c"])
def fft_drnl_windows_kernel(
    p_v,
    p_stick,
    p_past,
    p_out,
    C,
    G,
    n_windows,
    first,
    n,
    hop,
    memory,
    N,
    width,
    past_stride_r,
    past_stride_c,
    BLOCK: tl.constexpr,
):
    """Windows of the compressed signal: ``out[r, j, c, i] = w[r, c, first + j hop + i]``, i < width.

    ``w[q] = past[q + memory]`` for q < 0, ``NL(v[q])`` for q < n, and 0 after that; ``NL(v) = v min(a, b |v|^(c-1))``.
    v (R, G, C, N), its new samples from ``memory`` on; stick (C, 3); past (R, C, memory) with strides
    -> out (R, n_windows, C, width)
    """
    n_tiles = (width + BLOCK - 1) // BLOCK
    o_row = tl.program_id(0) // n_tiles
    o_i = (tl.program_id(0) % n_tiles) * BLOCK + tl.arange(0, BLOCK)
    o_c = o_row % C
    o_r = (o_row // C // n_windows).to(tl.int64)
    o_q = first + (o_row // C % n_windows) * hop + o_i
    m_i = o_i < width
    p_history = p_past + o_r * past_stride_r + o_c.to(tl.int64) * past_stride_c
    b_w = tl.load(p_history + (o_q + memory), mask=m_i & (o_q < 0), other=0.0)
    m_new = m_i & (o_q >= 0) & (o_q < n)
    o_g = tl.where(m_new, o_q // hop, 0)
    b_v = tl.load(p_v + (((o_r * G + o_g) * C + o_c) * N + (memory + o_q - o_g * hop)), mask=m_new, other=0.0)
    b_a, b_b, b_c = load_stick(p_stick, o_c)
    b_new = b_v * broken_stick_gain(b_v, b_a, b_b, b_c)
    tl.store(p_out + o_row.to(tl.int64) * width + o_i, tl.where(m_new, b_new, b_w), mask=m_i)


@triton.jit(do_not_specialize=["start", "C", "G", "n", "bad_stride_r", "y_stride_r", "y_stride_c"])
def fft_drnl_valid_kernel(
    p_blocks,
    p_bad,
    p_y,
    start,
    C,
    G,
    n,
    hop,
    memory,
    N,
    bad_stride_r,
    bad_stride_c,
    y_stride_r,
    y_stride_c,
    BLOCK: tl.constexpr,
):
    """New samples of every block to their places in the output: ``y[r, c, g hop + i] = blocks[r, g, c, memory + i]``.

    blocks (R, G, C, N); bad (R, C) with strides: the sample, ``start`` of them being before this group, from which on
    there is NaN -> y (R, C, n) with strides
    """
    n_tiles = (hop + BLOCK - 1) // BLOCK
    o_row = tl.program_id(0) // n_tiles
    o_i = (tl.program_id(0) % n_tiles) * BLOCK + tl.arange(0, BLOCK)
    o_r, o_c = (o_row // C // G).to(tl.int64), (o_row % C).to(tl.int64)
    o_q = (o_row // C % G).to(tl.int64) * hop
    m_i = (o_i < hop) & (o_i < n - o_q)
    b_y = tl.load(p_blocks + (o_row.to(tl.int64) * N + memory) + o_i, mask=m_i, other=0.0)
    b_bad = tl.load(p_bad + (o_r * bad_stride_r + o_c * bad_stride_c)) - start - o_q
    b_y = tl.where(o_i < tl.minimum(b_bad, hop).to(tl.int32), b_y, float("nan"))
    tl.store(p_y + (o_r * y_stride_r + o_c * y_stride_c + o_q) + o_i, b_y, mask=m_i)


@triton.jit(
    do_not_specialize=[
        "start",
        "C",
        "G",
        "n",
        "first",
        "n_hops",
        "period",
        "bad_stride_r",
        "bad_stride_c",
        "means_stride_r",
        "means_stride_c",
    ]
)
def fft_drnl_hops_kernel(
    p_blocks,
    p_bad,
    p_means,
    start,
    C,
    G,
    n,
    hop,
    memory,
    N,
    first,
    n_hops,
    period,
    bad_stride_r,
    bad_stride_c,
    means_stride_r,
    means_stride_c,
    DETECTOR: tl.constexpr,
    HOPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Means over hops of ``period`` samples of what the detector gives for new samples of blocks.

    blocks and bad as in :func:`fft_drnl_valid_kernel`, ``start`` samples being before this group -> of means (R, C, M),
    with strides, those from the one numbered ``first`` on: what is there of a hop that began before this group is added
    to, and what is left of one that ends after it is a sum. Program: HOPS hops, BLOCK samples of each at a time.
    """
    n_tiles = (n_hops + HOPS - 1) // HOPS
    o_row = tl.program_id(0) // n_tiles
    o_hop = (tl.program_id(0) % n_tiles) * HOPS + tl.arange(0, HOPS)
    m_hop = o_hop < n_hops
    o_r, o_c = (o_row // C).to(tl.int64), (o_row % C).to(tl.int64)
    b_begin = (o_hop + first).to(tl.int64) * period - start
    b_end = b_begin + period
    p_channel = p_blocks + ((o_r * G * C + o_c) * N + memory)
    b_sum = tl.zeros([HOPS], p_blocks.dtype.element_ty)
    lower = tl.maximum(-tl.max(b_begin, axis=0), 0).to(tl.int32)
    upper = tl.minimum(n - tl.min(b_begin, axis=0), period).to(tl.int32)
    for i in range(lower, upper, BLOCK):
        o_i = i + tl.arange(0, BLOCK)
        o_q = b_begin[:, None] + o_i[None, :]
        m_q = m_hop[:, None] & (o_i < period)[None, :] & (o_q >= 0) & (o_q < n)
        o_q = tl.where(m_q, o_q, 0).to(tl.int32)
        o_g = o_q // hop
        b_y = tl.load(p_channel + (o_g.to(tl.int64) * C * N + (o_q - o_g * hop)), mask=m_q, other=0.0)
        b_sum += tl.sum(detect(b_y, (), 0, DETECTOR), axis=1)
    p_hops = p_means + (o_r * means_stride_r + o_c * means_stride_c + first) + o_hop
    b_sum += tl.load(p_hops, mask=m_hop & (b_begin < 0), other=0.0)
    b_bad = tl.load(p_bad + (o_r * bad_stride_r + o_c * bad_stride_c)) - start
    b_mean = tl.where(b_end <= b_bad, mean_of(b_sum, divisor(period, DETECTOR)), float("nan"))
    tl.store(p_hops, tl.where(b_end <= n, b_mean, b_sum), mask=m_hop)


@triton.jit(do_not_specialize=["C", "G", "n", "y_stride_r", "y_stride_c"])
def fft_drnl_valid_adjoint_kernel(p_y, p_blocks, C, G, n, hop, memory, N, y_stride_r, y_stride_c, BLOCK: tl.constexpr):
    """Adjoint of :func:`fft_drnl_valid_kernel`: y (R, C, n) with strides -> blocks (R, G, C, N), zeros elsewhere."""
    n_tiles = (N + BLOCK - 1) // BLOCK
    o_row = tl.program_id(0) // n_tiles
    o_i = (tl.program_id(0) % n_tiles) * BLOCK + tl.arange(0, BLOCK)
    o_c = (o_row % C).to(tl.int64)
    o_q = (o_row // C % G).to(tl.int64) * hop + (o_i - memory)
    m_q = (o_i >= memory) & (o_i < N) & (o_q < n)
    p_row = p_y + (o_row // C // G).to(tl.int64) * y_stride_r + o_c * y_stride_c
    b_y = tl.load(p_row + o_q, mask=m_q, other=0.0)
    tl.store(p_blocks + o_row.to(tl.int64) * N + o_i, b_y, mask=o_i < N)


@triton.jit(do_not_specialize=["C", "G", "n", "carry_stride_r", "carry_stride_c"])
def fft_drnl_stick_adjoint_kernel(
    p_w,
    p_v,
    p_stick,
    p_carry,
    p_sums,
    C,
    G,
    n,
    hop,
    memory,
    N,
    carry_stride_r,
    carry_stride_c,
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of v, in v's place, and of the broken stick, from those of the blocks of w.

    The gradient ``g[q]`` of w is the sum of the blocks that reach q, plus ``carry[q - n + memory]`` from the group
    after this. Where ``b |v|^(c-1) >= a``: ``v <- a g``, else ``v <- b c |v|^(c-1) g``, and 0 where no sample is new.
    w, v (R, G, C, N); stick (C, 3); carry (R, C, memory) with strides -> v; sums (R G, tiles, C, 3), the gradients of
    a, b, c, one part from each program.
    """
    n_tiles = (N + BLOCK - 1) // BLOCK
    tile = tl.program_id(0) % n_tiles
    o_row = tl.program_id(0) // n_tiles
    o_i = tile * BLOCK + tl.arange(0, BLOCK)
    o_c, o_g = o_row % C, o_row // C % G
    o_r = (o_row // C // G).to(tl.int64)
    o_q = o_g * hop + (o_i - memory)
    m_i = o_i < N
    m_q = m_i & (o_i >= memory) & (o_q < n)
    p_blocks = p_w + (o_r * G * C + o_c) * N
    b_g = overlapped(p_blocks, tl.where(m_q, o_q + memory, 0), m_q, C, G, hop, N, OVERLAPS)
    p_after = p_carry + o_r * carry_stride_r + o_c.to(tl.int64) * carry_stride_c
    o_after = o_q - n + memory
    b_g += tl.load(p_after + o_after, mask=m_q & (o_after >= 0), other=0.0)
    p_row = p_v + o_row.to(tl.int64) * N + o_i
    b_v = tl.load(p_row, mask=m_q, other=0.0)
    b_a, b_b, b_c = load_stick(p_stick, o_c)
    b_log = log2_magnitude(b_v)
    b_power = tl.exp2((b_c - 1) * b_log)
    m_linear = b_b * b_power >= b_a
    b_power = tl.where(m_linear, 0.0, b_power)
    tl.store(p_row, tl.where(m_linear, b_a, b_b * b_c * b_power) * b_g, mask=m_i)
    b_weight = b_g * b_v
    p_sum = p_sums + (((o_row // C).to(tl.int64) * n_tiles + tile) * C + o_c) * 3
    tl.store(p_sum, tl.sum(tl.where(m_linear, b_weight, 0.0), 0))
    b_weight *= b_power
    tl.store(p_sum + 1, tl.sum(b_weight, 0))
    tl.store(p_sum + 2, b_b * 0.6931471805599453 * tl.sum(b_weight * b_log, 0))


@triton.jit(
    do_not_specialize=[
        "C",
        "G",
        "first",
        "width",
        "n",
        "carry_stride_r",
        "carry_stride_c",
        "out_stride_r",
        "out_stride_c",
    ]
)
def fft_drnl_overlap_add_kernel(
    p_blocks,
    p_carry,
    p_out,
    C,
    G,
    first,
    width,
    n,
    hop,
    memory,
    N,
    carry_stride_r,
    carry_stride_c,
    out_stride_r,
    out_stride_c,
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``out[r, c, i]``, i < width: the blocks that reach ``q = first + i``, plus ``carry[r, c, q - n + memory]``.

    blocks (R, G, C, N); carry (R, C, memory) and out (R, C, width) with strides
    """
    n_tiles = (width + BLOCK - 1) // BLOCK
    o_row = tl.program_id(0) // n_tiles
    o_i = (tl.program_id(0) % n_tiles) * BLOCK + tl.arange(0, BLOCK)
    o_r, o_c = (o_row // C).to(tl.int64), (o_row % C).to(tl.int64)
    m_i = o_i < width
    p_row = p_blocks + (o_r * G * C + o_c) * N
    b_sum = overlapped(p_row, first + o_i + memory, m_i, C, G, hop, N, OVERLAPS)
    o_after = first + o_i - n + memory
    p_after = p_carry + o_r * carry_stride_r + o_c * carry_stride_c
    b_sum += tl.load(p_after + o_after, mask=m_i & (o_after >= 0) & (o_after < memory), other=0.0)
    tl.store(p_out + o_r * out_stride_r + o_c * out_stride_c + o_i, b_sum, mask=m_i)


def product(a: Tensor, h: Tensor, conjugate: bool) -> Tensor:
    """Spectra (R, G, C or 1, K) times those of the channels (C, K)."""
    out = a.new_empty(*a.shape[:2], *h.shape)
    channels, bins = h.shape
    fft_drnl_product_kernel[(a.shape[0] * a.shape[1] * channels * cdiv(bins, BINS),)](
        torch.view_as_real(a),
        torch.view_as_real(h),
        torch.view_as_real(out),
        channels,
        bins,
        2 * bins * a.shape[2],
        0 if a.shape[2] == 1 else 2 * bins,
        CONJUGATE=conjugate,
        BK=BINS,
        **LAUNCH,
    )
    return out


def windows(v: Tensor, stick: Tensor, past: Tensor, first: int, count: int, width: int, n: int) -> Tensor:
    """``count`` windows (R, count, C, width) of the compressed signal, the first from ``q = first`` on."""
    rows, n_blocks, channels, size = v.shape
    memory = past.shape[2]
    out = v.new_empty(rows, count, channels, width)
    if width:
        fft_drnl_windows_kernel[(rows * count * channels * cdiv(width, BLOCK),)](
            v,
            stick,
            past,
            out,
            channels,
            n_blocks,
            count,
            first,
            n,
            size - memory,
            memory,
            size,
            width,
            past.stride(0),
            past.stride(1),
            BLOCK=BLOCK,
            **LAUNCH,
        )
    return out


def overlap_add(blocks: Tensor, carry: Tensor, out: Tensor, first: int, n: int) -> None:
    """Fill ``out`` (R, C, width) from blocks (R, G, C, N) and what the group after this one carried here."""
    rows, n_blocks, channels, size = blocks.shape
    memory, width = carry.shape[2], out.shape[2]
    if width:
        fft_drnl_overlap_add_kernel[(rows * channels * cdiv(width, BLOCK),)](
            blocks,
            carry,
            out,
            channels,
            n_blocks,
            first,
            width,
            n,
            size - memory,
            memory,
            size,
            carry.stride(0),
            carry.stride(1),
            out.stride(0),
            out.stride(1),
            OVERLAPS=cdiv(size, size - memory),
            BLOCK=BLOCK,
            **LAUNCH,
        )


def plan(grad_y: Tensor, size: int, memory: int) -> list[Group]:
    """All groups, first to last."""
    samples = BYTES // (TEMPORARIES * grad_y.element_size())
    return [group for row in groups(grad_y.shape, size - memory, size, samples) for group in row]


def fft_drnl(
    x: Tensor, spectra: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`tamt.reference.fft_drnl.fft_drnl`."""
    y = x.new_empty(x.shape[0], spectra.shape[1], x.shape[1])

    def put(blocks: Tensor, bad: Tensor, group: Group, part: slice) -> None:
        rows, count, channels, size = blocks.shape
        memory, target = past_x.shape[1], y[group.rows, part, group.start : group.end]
        fft_drnl_valid_kernel[(rows * count * channels * cdiv(size - memory, BLOCK),)](
            blocks,
            bad,
            target,
            group.start,
            channels,
            count,
            group.end - group.start,
            size - memory,
            memory,
            size,
            *bad.stride(),
            target.stride(0),
            target.stride(1),
            BLOCK=BLOCK,
            **LAUNCH,
        )

    return y, *filtered(x, spectra, stick, past_x, past_w, put)


def fft_drnl_frames(
    x: Tensor, spectra: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor, hop: int, detector: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Means (B, F, T // hop) of what the detector gives for the output, and the state after the last whole hop."""
    means = x.new_empty(x.shape[0], spectra.shape[1], x.shape[1] // hop)
    together = min(BLOCK, next_power_of_2(hop))

    def put(blocks: Tensor, bad: Tensor, group: Group, part: slice) -> None:
        rows, count, channels, size = blocks.shape
        memory, target, first = past_x.shape[1], means[group.rows, part], group.start // hop
        n_hops = cdiv(group.end, hop) - first
        fft_drnl_hops_kernel[(rows * channels * cdiv(n_hops, BLOCK // together),)](
            blocks,
            bad,
            target,
            group.start,
            channels,
            count,
            group.end - group.start,
            size - memory,
            memory,
            size,
            first,
            n_hops,
            hop,
            *bad.stride(),
            target.stride(0),
            target.stride(1),
            DETECTOR=detector,
            HOPS=BLOCK // together,
            BLOCK=together,
            **LAUNCH,
        )

    return means, *filtered(x[:, : means.shape[2] * hop], spectra, stick, past_x, past_w, put)


def filtered(
    x: Tensor,
    spectra: Tensor,
    stick: Tensor,
    past_x: Tensor,
    past_w: Tensor,
    put: Callable[[Tensor, Tensor, Group, slice], None],
) -> tuple[Tensor, Tensor]:
    """The state after the last sample; ``put`` is given the output, some channels of a group at a time.

    That is blocks (R, G, C, N), whose new samples are from ``memory`` on; the samples (R, C) from which on NaN is due;
    the group; and which channels these are.
    """
    linear, front, back = complex_spectra(spectra)
    stick = stick.contiguous()
    size, memory, bins = 2 * (spectra.shape[2] - 1), past_x.shape[1], spectra.shape[2]
    if x.shape[1] == 0:
        return next_past(past_x, x), past_w.clone(memory_format=torch.contiguous_format)
    bad, x, past_x, past_w = split_bad(x, past_x, past_w)
    last_w = past_w.clone(memory_format=torch.contiguous_format)
    with on_device_of(x):
        for group in plan(x[:, None].expand(-1, len(stick), -1), size, memory):
            shared, n = block_spectra(x, past_x, group, size)[:, :, None], group.end - group.start
            count = len(group.lengths)
            for part in group.channels:
                v = torch.fft.irfft(product(shared, front[part], False), size)
                history = last_w[group.rows, part]
                spectrum = torch.fft.rfft(windows(v, stick[part], history, -memory, count, size, n))
                history.copy_(windows(v, stick[part], history, n - memory, 1, memory, n)[:, 0])
                del v
                pairs, channels = spectrum.shape[0] * count, spectrum.shape[2]
                fft_drnl_mix_kernel[(pairs * channels * cdiv(bins, BINS),)](
                    torch.view_as_real(shared),
                    torch.view_as_real(linear[part]),
                    torch.view_as_real(spectrum),
                    torch.view_as_real(back[part]),
                    channels,
                    bins,
                    BK=BINS,
                    **LAUNCH,
                )
                put(torch.fft.irfft(spectrum, size), bad.channels[group.rows, part], group, part)
    last_x = next_past(past_x, x)
    mark_bad(bad, x.shape[1], last_x, last_w)
    return last_x, last_w


def fft_drnl_backward(
    grad_y: Tensor,
    grad_last_x: Tensor,
    grad_last_w: Tensor,
    x: Tensor,
    spectra: Tensor,
    stick: Tensor,
    past_x: Tensor,
    past_w: Tensor,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`tamt.reference.fft_drnl.fft_drnl_backward`."""
    linear, front, back = complex_spectra(spectra)
    grad_y, stick = grad_y.contiguous(), stick.contiguous()
    size, memory, bins = 2 * (spectra.shape[2] - 1), past_x.shape[1], spectra.shape[2]
    hop, tiles = size - memory, cdiv(size, BLOCK)
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_stick = torch.zeros_like(stick)
    carry_x = grad_last_x.clone(memory_format=torch.contiguous_format)
    carry_w = grad_last_w.clone(memory_format=torch.contiguous_format)
    with on_device_of(x):
        for group in reversed(plan(grad_y, size, memory)):
            shared, n = block_spectra(x, past_x, group, size)[:, :, None], group.end - group.start
            rows, count = shared.shape[:2]
            total = torch.zeros_like(shared[:, :, 0])
            for part in group.channels:
                v = torch.fft.irfft(product(shared, front[part], False), size)
                channels = v.shape[2]
                programs = rows * count * channels * tiles
                source = grad_y[group.rows, part, group.start : group.end]
                blocks = torch.empty_like(v)
                fft_drnl_valid_adjoint_kernel[(programs,)](
                    source,
                    blocks,
                    channels,
                    count,
                    n,
                    hop,
                    memory,
                    size,
                    source.stride(0),
                    source.stride(1),
                    BLOCK=BLOCK,
                    **LAUNCH,
                )
                from_y = torch.fft.rfft(blocks)
                blocks = torch.fft.irfft(product(from_y, back[part], True), size)
                carry = carry_w[group.rows, part]
                sums = v.new_empty(rows * count * tiles, channels, 3)
                fft_drnl_stick_adjoint_kernel[(programs,)](
                    blocks,
                    v,
                    stick[part],
                    carry,
                    sums,
                    channels,
                    count,
                    n,
                    hop,
                    memory,
                    size,
                    carry.stride(0),
                    carry.stride(1),
                    OVERLAPS=cdiv(size, hop),
                    BLOCK=BLOCK,
                    **LAUNCH,
                )
                grad_stick[part] += sums.sum(0)
                before = torch.empty_like(carry, memory_format=torch.contiguous_format)
                overlap_add(blocks, carry, before, -memory, n)
                carry.copy_(before)
                if need_x:
                    fft_drnl_adjoint_mix_kernel[(rows * count * cdiv(bins, BINS),)](
                        torch.view_as_real(torch.fft.rfft(v)),
                        torch.view_as_real(front[part]),
                        torch.view_as_real(from_y),
                        torch.view_as_real(linear[part]),
                        torch.view_as_real(total),
                        channels,
                        bins,
                        ACCUMULATE=part.start > 0,
                        BK=BINS,
                        **LAUNCH,
                    )
            if need_x:
                blocks = torch.fft.irfft(total, size)[:, :, None]
                carry = carry_x[group.rows, None]
                overlap_add(blocks, carry, grad_x[group.rows, None, group.start : group.end], 0, n)
                before = torch.empty_like(carry)
                overlap_add(blocks, carry, before, -memory, n)
                carry.copy_(before)
    if not need_x:
        return x.new_empty(0), grad_stick, x.new_empty(0), carry_w
    return grad_x, grad_stick, carry_x, carry_w
