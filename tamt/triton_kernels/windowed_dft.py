"""Windowed DFTs as matrix products on frames that are never written out: frame s starts at ``x + s hop``.

Definition and shapes: :mod:`tamt.ops.windowed_dft`. With u[d] and v[d] the samples at the distance d + 1/2 after and
before the middle of a frame, and the tables C and S (half, pitch) of a window,

    re = (u + v) C,   im = (u - v) S,   I = w (re^2 + im^2),

and backwards, with z = 2 w g (re, im),

    grad u = z_re C^T + z_im S^T,   grad v = z_re C^T - z_im S^T,

summed over all frames that hold a sample. One launch per window.
"""

from itertools import pairwise

import torch
import triton
import triton.language as tl

from tamt.reference import windowed_dft as reference

from ._common import LAUNCH, dot_precision, on_device_of

SCRATCH = 1 << 24  # numbers: z of so many frames at a time, or samples of frames written out in float64
FRAMES, BINS, DEPTH = 64, 64, 16  # tile of a product, and samples a step: 32 samples spill on sm_80
BLOCKS, PHASES = 64, 32  # tile of the adjoint: blocks of hop samples, and samples in them


@triton.jit
def frame_products(p_middle, p_table, hop, half, pitch, o_s, o_c, m_s, PRECISION: tl.constexpr, BK: tl.constexpr):
    """re and im (frames, bins) of the frames o_s; p_middle is the sample after the middle of frame 0."""
    o_k = tl.arange(0, BK)
    o_u = (o_s.to(tl.int64) * hop)[:, None] + o_k[None, :]
    o_v = (o_s.to(tl.int64) * hop - 1)[:, None] - o_k[None, :]
    o_table = o_k[:, None] * pitch + o_c[None, :]
    m_c = (o_c < pitch)[None, :]
    b_re = tl.zeros([o_s.shape[0], o_c.shape[0]], tl.float32)
    b_im = tl.zeros([o_s.shape[0], o_c.shape[0]], tl.float32)
    for k in range(0, half, BK):
        m_k = k + o_k < half
        b_u = tl.load(p_middle + o_u + k, mask=m_s[:, None] & m_k[None, :], other=0.0)
        b_v = tl.load(p_middle + o_v - k, mask=m_s[:, None] & m_k[None, :], other=0.0)
        b_cos = tl.load(p_table + o_table + k * pitch, mask=m_k[:, None] & m_c, other=0.0)
        b_sin = tl.load(p_table + o_table + (half + k) * pitch, mask=m_k[:, None] & m_c, other=0.0)
        b_re = tl.dot(b_u + b_v, b_cos, b_re, input_precision=PRECISION)
        b_im = tl.dot(b_u - b_v, b_sin, b_im, input_precision=PRECISION)
    return b_re, b_im


@triton.jit(do_not_specialize=["S"])
def windowed_dft_kernel(
    p_x,
    p_table,
    p_weight,
    p_out,
    S,
    hop,
    half,
    count,
    pitch,
    x_stride,
    out_stride_s,
    ADD: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """x (R, ...) from the middle of frame 0 on, tables (2, half, pitch), weight (count,) -> out (R, S, count), rows of
    which are S frames apart.

    ADD: to what is there. Program: BM frames of one row by BN bins; bins run fastest, so that a tile of x is read from
    DRAM once.
    """
    n_bins = (count + BN - 1) // BN
    n_frames = (S + BM - 1) // BM
    o_r = (tl.program_id(0) // n_bins // n_frames).to(tl.int64)
    o_s = (tl.program_id(0) // n_bins) % n_frames * BM + tl.arange(0, BM)
    o_c = tl.program_id(0) % n_bins * BN + tl.arange(0, BN)
    b_re, b_im = frame_products(p_x + o_r * x_stride, p_table, hop, half, pitch, o_s, o_c, o_s < S, PRECISION, BK)
    m_out = (o_s < S)[:, None] & (o_c < count)[None, :]
    p_tile = p_out + o_r * S * out_stride_s + (o_s.to(tl.int64) * out_stride_s)[:, None] + o_c[None, :]
    b_power = (b_re * b_re + b_im * b_im) * tl.load(p_weight + o_c, mask=o_c < count, other=0.0)[None, :]
    if ADD:
        b_power += tl.load(p_tile, mask=m_out, other=0.0)
    tl.store(p_tile, b_power, mask=m_out)


@triton.jit(do_not_specialize=["S", "grad_frames"])
def windowed_dft_scale_kernel(
    p_x,
    p_table,
    p_weight,
    p_grad,
    p_z,
    p_part,
    S,
    hop,
    half,
    count,
    pitch,
    x_stride,
    grad_frames,
    grad_stride_s,
    NEED_X: tl.constexpr,
    NEED_WEIGHT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """As :func:`windowed_dft_kernel`, with grad (R, S, count), rows of which are grad_frames apart
    -> z (R, S, 2, pitch), 0 behind the bins, and part (R ceil(S/BM), count): sums of ``g (re^2 + im^2)`` over the
    frames of a program.
    """
    n_bins = (pitch + BN - 1) // BN
    n_frames = (S + BM - 1) // BM
    o_tile = tl.program_id(0) // n_bins
    o_r = (o_tile // n_frames).to(tl.int64)
    o_s = o_tile % n_frames * BM + tl.arange(0, BM)
    o_c = tl.program_id(0) % n_bins * BN + tl.arange(0, BN)
    b_re, b_im = frame_products(p_x + o_r * x_stride, p_table, hop, half, pitch, o_s, o_c, o_s < S, PRECISION, BK)
    p_g = p_grad + o_r * grad_frames * grad_stride_s + (o_s.to(tl.int64) * grad_stride_s)[:, None] + o_c[None, :]
    b_g = tl.load(p_g, mask=(o_s < S)[:, None] & (o_c < count)[None, :], other=0.0)
    if NEED_WEIGHT:
        b_sum = tl.sum(b_g * (b_re * b_re + b_im * b_im), axis=0)
        tl.store(p_part + o_tile.to(tl.int64) * count + o_c, b_sum, mask=o_c < count)
    if NEED_X:
        b_g *= 2 * tl.load(p_weight + o_c, mask=o_c < count, other=0.0)[None, :]
        p_tile = p_z + ((o_r * S + o_s) * (2 * pitch))[:, None] + o_c[None, :]
        m_z = (o_s < S)[:, None] & (o_c < pitch)[None, :]
        tl.store(p_tile, b_g * b_re, mask=m_z)
        tl.store(p_tile + pitch, b_g * b_im, mask=m_z)


@triton.jit(do_not_specialize=["S"])
def windowed_dft_adjoint_kernel(
    p_z,
    p_table,
    p_grad_x,
    S,
    hop,
    half,
    pitch,
    n_samples,
    x_stride,
    BM: tl.constexpr,
    BR: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """z (R, S, 2, pitch), tables (2, half, pitch) -> added to grad_x (R, n_samples), from the window's first sample of
    frame 0 on.

    Sample q hop + r is sample n = j hop + r of the window in frame q - j, for all j. Program: BM blocks q of one row by
    BR samples r of them.
    """
    shifts = (2 * half + hop - 1) // hop
    n_phases = (hop + BR - 1) // BR
    n_blocks = (S + shifts - 1 + BM - 1) // BM
    o_row = (tl.program_id(0) // n_phases // n_blocks).to(tl.int64)
    o_q = (tl.program_id(0) // n_phases) % n_blocks * BM + tl.arange(0, BM)
    o_r = tl.program_id(0) % n_phases * BR + tl.arange(0, BR)
    o_k = tl.arange(0, BK)
    b_acc = tl.zeros([BM, BR], tl.float32)
    for j in range(0, shifts):
        o_n = j * hop + o_r
        m_n = (o_r < hop) & (o_n < 2 * half)
        o_d = tl.where(o_n >= half, o_n - half, half - 1 - o_n)
        b_sign = tl.where(o_n >= half, 1.0, -1.0)
        o_s = o_q - j
        m_s = (o_s >= 0) & (o_s < S)
        p_re = p_z + ((o_row * S + o_s) * (2 * pitch))[:, None] + o_k[None, :]
        p_cos = p_table + (o_d * pitch)[None, :] + o_k[:, None]
        for k in range(0, pitch, BK):
            m_k = k + o_k < pitch
            b_re = tl.load(p_re + k, mask=m_s[:, None] & m_k[None, :], other=0.0)
            b_im = tl.load(p_re + pitch + k, mask=m_s[:, None] & m_k[None, :], other=0.0)
            b_cos = tl.load(p_cos + k, mask=m_k[:, None] & m_n[None, :], other=0.0)
            b_sin = tl.load(p_cos + half * pitch + k, mask=m_k[:, None] & m_n[None, :], other=0.0)
            b_acc = tl.dot(b_re, b_cos, b_acc, input_precision=PRECISION)
            b_acc = tl.dot(b_im, b_sin * b_sign[None, :], b_acc, input_precision=PRECISION)
    o_t = (o_q.to(tl.int64) * hop)[:, None] + o_r[None, :]
    p_out = p_grad_x + o_row * x_stride + o_t
    m_out = (o_r < hop)[None, :] & (o_t < n_samples)
    tl.store(p_out, b_acc + tl.load(p_out, mask=m_out, other=0.0), mask=m_out)


def windowed_dft(
    x: torch.Tensor,
    tables: torch.Tensor,
    weight: torch.Tensor,
    lengths: list[int],
    first: list[int],
    last: list[int],
    hop: int,
    size: int,
) -> torch.Tensor:
    """Weighted powers (R, S, F) of x (R, N)."""
    if x.dtype == torch.float64:
        return reference.windowed_dft(x, tables, weight, lengths, first, last, hop, size, SCRATCH)
    R, S = x.shape[0], reference.n_frames(x.shape[1], size, hop)
    bands = reference.layout(lengths, first, last)
    x, weight = x.contiguous(), weight.contiguous()
    shape = R, S, max(last) - min(first) + 1
    follow = sorted(zip(first, last, strict=True))
    apart = all(after[0] == before[1] + 1 for before, after in pairwise(follow))
    out = x.new_empty(shape) if apart else x.new_zeros(shape)
    if out.numel() == 0:
        return out
    with on_device_of(x):
        for band in bands:
            grid = (R * triton.cdiv(S, FRAMES) * triton.cdiv(band.n_bins, BINS),)
            windowed_dft_kernel[grid](
                x[:, size // 2 :],
                tables[band.offset :],
                weight[band.weights],
                out[..., band.bins],
                S,
                hop,
                band.half,
                band.n_bins,
                band.pitch,
                x.stride(0),
                out.shape[2],
                ADD=not apart,
                BM=FRAMES,
                BN=BINS,
                BK=DEPTH,
                PRECISION=dot_precision(),
                num_warps=8,
                **LAUNCH,
            )
    return out


def windowed_dft_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    tables: torch.Tensor,
    weight: torch.Tensor,
    lengths: list[int],
    first: list[int],
    last: list[int],
    hop: int,
    size: int,
    need_x: bool,
    need_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and weight, empty where they are not needed."""
    if x.dtype == torch.float64:
        plan = lengths, first, last, hop, size
        return reference.windowed_dft_backward(grad, x, tables, weight, *plan, need_x, need_weight, SCRATCH)
    grad, x, weight = grad.contiguous(), x.contiguous(), weight.contiguous()
    grad_x = x.new_zeros(x.shape if need_x else 0)
    grad_weight = weight.new_zeros(weight.shape if need_weight else 0)
    if grad.numel() == 0:
        return grad_x, grad_weight
    with on_device_of(x):
        for band in reference.layout(lengths, first, last):
            table = tables[band.offset :]
            for r, s in reference.slices(grad.shape[0], grad.shape[1], band.pitch, SCRATCH):
                R, S = r.stop - r.start, s.stop - s.start
                tiles = R * triton.cdiv(S, FRAMES)
                z = x.new_empty(R * S * 2 * band.pitch if need_x else 0)
                part = x.new_empty(tiles if need_weight else 0, band.n_bins)
                windowed_dft_scale_kernel[(tiles * triton.cdiv(band.pitch, BINS),)](
                    x[r, s.start * hop + size // 2 :],
                    table,
                    weight[band.weights],
                    grad[r, s, band.bins],
                    z,
                    part,
                    S,
                    hop,
                    band.half,
                    band.n_bins,
                    band.pitch,
                    x.stride(0),
                    grad.shape[1],
                    grad.shape[2],
                    NEED_X=need_x,
                    NEED_WEIGHT=need_weight,
                    BM=FRAMES,
                    BN=BINS,
                    BK=DEPTH,
                    PRECISION=dot_precision(),
                    num_warps=8,
                    **LAUNCH,
                )
                if need_weight:
                    grad_weight[band.weights] += part.sum(0)
                if need_x:
                    target = grad_x[r, s.start * hop + size // 2 - band.half :]
                    blocks = S + triton.cdiv(2 * band.half, hop) - 1
                    windowed_dft_adjoint_kernel[(R * triton.cdiv(blocks, BLOCKS) * triton.cdiv(hop, PHASES),)](
                        z,
                        table,
                        target,
                        S,
                        hop,
                        band.half,
                        band.pitch,
                        target.shape[1],
                        x.stride(0),
                        BM=BLOCKS,
                        BR=PHASES,
                        BK=DEPTH,
                        PRECISION=dot_precision(),
                        num_warps=8,
                        **LAUNCH,
                    )
    return grad_x, grad_weight
