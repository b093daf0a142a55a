"""Windowed DFTs as matrix products on frames that are never written out: frame s starts at ``x + s hop``.

Definition and shapes: :mod:`tamt.ops.windowed_dft`. With u[d] and v[d] the samples at the distance d + 1/2 after and
before the middle of a frame, and the tables C and S (half, pitch) of a window,

    re = (u + v) C,   im = (u - v) S,   I = w (re^2 + im^2),

and backwards, with z = 2 w g (re, im),

    grad u = z_re C^T + z_im S^T,   grad v = z_re C^T - z_im S^T,

summed over all frames that hold a sample. One launch per window; float32 alone.
"""

from itertools import pairwise

import torch
import triton
import triton.language as tl

from tamt.shared import windowed_dft as layouts

from ._common import LAUNCH, cdiv, dot_precision, on_device_of, product

PARTS = 1 << 26  # numbers of z at a time, no more than 32 bits count: fewer leave much of a large GPU idle
PART_PITCH = 8  # rows of z start at multiples of twice as many numbers, so that they are loaded in vectors
# Tiles of the products, chosen by machine code for sm_90: registers let two programs or more share a multiprocessor, so
# that one computes while another loads. Bins of a tile: frames, and samples a step.
TILES = {16: (64, 32), 32: (64, 32), 64: (64, 16)}
WARPS, STAGES = 4, 1
# Of the adjoint: blocks of hop samples, samples of each, and numbers of z a step.
BLOCKS, PHASES, ADJOINT_DEPTH, ADJOINT_WARPS, ADJOINT_STAGES = 64, 32, 32, 4, 1


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
        b_re = product(b_u + b_v, b_cos, b_re, PRECISION)
        b_im = product(b_u - b_v, b_sin, b_im, PRECISION)
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
    z_pitch,
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
    -> z (R, S, 2, z_pitch), 0 behind the bins, and part (R ceil(S/BM), count): sums of ``g (re^2 + im^2)`` over the
    frames of a program.
    """
    n_bins = (z_pitch + BN - 1) // BN
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
        p_tile = p_z + o_r * S * (2 * z_pitch) + ((o_s * (2 * z_pitch))[:, None] + o_c[None, :])
        m_z = (o_s < S)[:, None] & (o_c < z_pitch)[None, :]
        tl.store(p_tile, b_g * b_re, mask=m_z)
        tl.store(p_tile + z_pitch, b_g * b_im, mask=m_z)


@triton.jit(do_not_specialize=["S"])
def windowed_dft_adjoint_kernel(
    p_z,
    p_table,
    p_grad_x,
    S,
    hop,
    width,
    shifts,
    n_samples,
    x_stride,
    BM: tl.constexpr,
    BR: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """z (R, S, width), table (shifts width, hop) -> added to grad_x (R, n_samples), from the window's first sample of
    frame 0 on.

    The samples of block q, ``q hop`` to ``(q + 1) hop``, are in the frames ``q - shifts + 1`` to q, whose z follow one
    another: a product with overlapping rows. Program: BM blocks of one row by BR samples of them.
    """
    n_phases = (hop + BR - 1) // BR
    n_blocks = (S + shifts - 1 + BM - 1) // BM
    o_row = tl.program_id(0) // n_phases // n_blocks
    o_q = (tl.program_id(0) // n_phases) % n_blocks * BM + tl.arange(0, BM)
    o_r = tl.program_id(0) % n_phases * BR + tl.arange(0, BR)
    o_k = tl.arange(0, BK)
    o_z = ((o_q - shifts + 1) * width)[:, None] + o_k[None, :]
    p_row = p_z + o_row * S * width
    p_tile = p_table + o_k[:, None] * hop + o_r[None, :]
    b_acc = tl.zeros([BM, BR], tl.float32)
    for k in range(0, shifts * width, BK):
        m_k = k + o_k < shifts * width
        m_z = (o_z >= -k) & (o_z < S * width - k) & m_k[None, :]
        b_z = tl.load(p_row + (o_z + k), mask=m_z, other=0.0)
        b_table = tl.load(p_tile + k * hop, mask=m_k[:, None] & (o_r < hop)[None, :], other=0.0)
        b_acc = product(b_z, b_table, b_acc, PRECISION)
    o_t = (o_q.to(tl.int64) * hop)[:, None] + o_r[None, :]
    p_out = p_grad_x + o_row.to(tl.int64) * x_stride + o_t
    m_out = (o_r < hop)[None, :] & (o_t < n_samples)
    tl.store(p_out, b_acc + tl.load(p_out, mask=m_out, other=0.0), mask=m_out)


def adjoint_table(table: torch.Tensor, band: layouts.Band, hop: int) -> torch.Tensor:
    """What the frames that hold a block of ``hop`` samples, oldest first, give to it: (frames, 2, pitch of z, hop)."""
    after = table[: 2 * band.half * band.pitch].view(2, band.half, band.pitch)[..., : part_pitch(band)]
    before = after.flip(1)
    before[1].neg_()
    rest = -2 * band.half % hop
    whole = torch.cat((before, after, after.new_zeros(2, rest, after.shape[2])), 1)
    return whole.unflatten(1, (-1, hop)).flip(1).permute(1, 0, 3, 2).contiguous()


def part_pitch(band: layouts.Band) -> int:
    """Numbers from the real to the imaginary part of a frame's z."""
    return cdiv(band.n_bins, PART_PITCH) * PART_PITCH


def tile(n_bins: int) -> dict:
    """Tile of a product with so many bins, the narrowest that holds them all if there is one."""
    bins = min((width for width in TILES if width >= n_bins), default=max(TILES))
    frames, depth = TILES[bins]
    return {"BM": frames, "BN": bins, "BK": depth, "num_warps": WARPS, "num_stages": STAGES}


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
    """Weighted powers (R, S, F) of x (R, N), all float32."""
    R, S = x.shape[0], layouts.n_frames(x.shape[1], size, hop)
    bands = layouts.layout(lengths, first, last)
    x, weight = x.contiguous(), weight.contiguous()
    follow = sorted(zip(first, last, strict=True))
    apart = all(after[0] == before[1] + 1 for before, after in pairwise(follow))
    out = (x.new_empty if apart else x.new_zeros)(R, S, max(last) - min(first) + 1)
    if out.numel() == 0:
        return out
    with on_device_of(x):
        for band in bands:
            shape = tile(band.n_bins)
            grid = (R * cdiv(S, shape["BM"]) * cdiv(band.n_bins, shape["BN"]),)
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
                PRECISION=dot_precision(),
                **shape,
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
    grad, x, weight = grad.contiguous(), x.contiguous(), weight.contiguous()
    grad_x = x.new_zeros(x.shape if need_x else 0)
    grad_weight = weight.new_zeros(weight.shape if need_weight else 0)
    if grad.numel() == 0:
        return grad_x, grad_weight
    with on_device_of(x):
        for band in layouts.layout(lengths, first, last):
            table, pitch, shape = tables[band.offset :], part_pitch(band), tile(band.n_bins)
            shifts = cdiv(2 * band.half, hop)
            table_of_z = adjoint_table(table, band, hop) if need_x else table
            for r, s in layouts.slices(grad.shape[0], grad.shape[1], pitch, PARTS):
                R, S = r.stop - r.start, s.stop - s.start
                tiles = R * cdiv(S, shape["BM"])
                z = x.new_empty(R * S * 2 * pitch if need_x else 0)
                part = x.new_empty(tiles if need_weight else 0, band.n_bins)
                windowed_dft_scale_kernel[(tiles * cdiv(pitch, shape["BN"]),)](
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
                    pitch,
                    x.stride(0),
                    grad.shape[1],
                    grad.shape[2],
                    NEED_X=need_x,
                    NEED_WEIGHT=need_weight,
                    PRECISION=dot_precision(),
                    **shape,
                    **LAUNCH,
                )
                if need_weight:
                    grad_weight[band.weights] += part.sum(0)
                if need_x:
                    target = grad_x[r, s.start * hop + size // 2 - band.half :]
                    tiles = R * cdiv(S + shifts - 1, BLOCKS)
                    windowed_dft_adjoint_kernel[(tiles * cdiv(hop, PHASES),)](
                        z,
                        table_of_z,
                        target,
                        S,
                        hop,
                        2 * pitch,
                        shifts,
                        target.shape[1],
                        x.stride(0),
                        BM=BLOCKS,
                        BR=PHASES,
                        BK=ADJOINT_DEPTH,
                        PRECISION=dot_precision(),
                        num_warps=ADJOINT_WARPS,
                        num_stages=ADJOINT_STAGES,
                        **LAUNCH,
                    )
    return grad_x, grad_weight
