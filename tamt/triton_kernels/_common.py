"""What every kernel file shares: launch options, lane counts, tiles taken apart into columns and put together again.

Names in kernels: ``p_`` pointer, ``o_`` offset, ``m_`` mask, ``b_`` values in registers; constexpr parameters are in
capitals.
"""

import contextlib

import torch
import triton
import triton.language as tl

# Contraction of a * b + c is asked for by name: triton 3.10 changes the default, and without it the recursions
# take half as many instructions again.
LAUNCH = {"enable_fp_fusion": True}


def cdiv(number: int, by: int) -> int:
    """Quotient, rounded up: what triton.cdiv gives, which takes 2 to 5 us, a third of a launch."""
    return -(-number // by)


def next_power_of_2(number: int) -> int:
    """The least power of two that is not below the number, as triton.next_power_of_2, for the same reason."""
    return 1 << (number - 1).bit_length() if number > 0 else number


def on_amd() -> bool:
    """Whether this torch is built for AMD's devices."""
    return torch.version.hip is not None


def lanes_per_warp() -> int:
    """Lanes which run together: 64 on AMD's compute cards, 32 elsewhere."""
    return 64 if on_amd() else 32


def dot_precision() -> str:
    """Input precision of a ``tl.dot`` that must keep float32's accuracy (triton's own default is tf32)."""
    return "ieee" if on_amd() else "tf32x3"


def on_device_of(tensor: torch.Tensor) -> contextlib.AbstractContextManager:
    """Makes the tensor's GPU current, as Triton launches on the current one; nothing to do in interpreter mode."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


@triton.jit
def split_columns(b_tile, R: tl.constexpr, K: tl.constexpr):
    """Tile (R, K), K a power of two, as a tuple of its K columns, each (R,)."""
    b_parts = (b_tile,)
    # Part q of level l holds the columns congruent to q modulo 2^l, so after the last level part q is column q.
    for level in tl.static_range(5):
        if (K >> level) > 1:
            b_even = ()
            b_odd = ()
            for q in tl.static_range(1 << level):
                if (K >> level) > 2:
                    b_e, b_o = tl.split(tl.reshape(b_parts[q], [R, K >> (level + 1), 2]))
                else:
                    b_e, b_o = tl.split(b_parts[q])
                b_even = b_even + (b_e,)
                b_odd = b_odd + (b_o,)
            b_parts = b_even + b_odd
    return b_parts


@triton.jit
def load_columns(p_tile, o_row, m_row, R: tl.constexpr, K: tl.constexpr):
    """Tuple of the K columns of the tile whose rows begin o_row (R,) after p_tile; zeros where m_row (R,) is not set.

    In pieces of 128 bits a row, each loaded by the lane that has the row: what is loaded as one tile has to change
    lanes, by shuffles and through shared memory, before it can be split.
    """
    W: tl.constexpr = 128 // p_tile.dtype.element_ty.primitive_bitwidth
    b_columns = ()
    for piece in tl.static_range(K // W):
        o_piece = o_row[:, None] + (piece * W + tl.arange(0, W))[None, :]
        b_columns = b_columns + split_columns(tl.load(p_tile + o_piece, mask=m_row[:, None], other=0.0), R, W)
    return b_columns


@triton.jit
def join_columns(b_columns, R: tl.constexpr, K: tl.constexpr):
    """Tile (R, K), K a power of two of at least 2, from a tuple of its K columns; undoes :func:`split_columns`."""
    b_parts = b_columns
    for level in tl.static_range(5):
        if (K >> level) > 1:
            b_joined = ()
            for q in tl.static_range(K >> (level + 1)):
                b_pair = tl.join(b_parts[q], b_parts[q + (K >> (level + 1))])
                b_joined = b_joined + (tl.reshape(b_pair, [R, 2 << level]),)
            b_parts = b_joined
    return b_parts[0]


@triton.jit
def select(m_new, b_new, b_old, N: tl.constexpr):
    """Tuple of N tensors: the new ones where the mask is set, the old ones elsewhere."""
    b_out = ()
    for n in tl.static_range(N):
        b_out = b_out + (tl.where(m_new, b_new[n], b_old[n]),)
    return b_out


@triton.jit
def split_tf32(b_x):
    """A float32 tile as a rounded part of 11 bits, what tensor cores multiply, and the rest."""
    b_high = ((b_x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return b_high, b_x - b_high


@triton.jit
def product(b_a, b_b, b_acc, PRECISION: tl.constexpr):
    """``b_acc + b_a b_b``. tf32x3 is spelled out: triton's own spends half of its instructions on infinities.

    The sum over steps is added up outside of the tensor cores, which cut off what does not fit.
    """
    if PRECISION == "tf32x3":
        b_a_high, b_a_low = split_tf32(b_a)
        b_b_high, b_b_low = split_tf32(b_b)
        b_step = tl.dot(b_a_low, b_b_high, input_precision="tf32")
        b_step = tl.dot(b_a_high, b_b_low, b_step, input_precision="tf32")
        return b_acc + tl.dot(b_a_high, b_b_high, b_step, input_precision="tf32")
    else:
        return tl.dot(b_a, b_b, b_acc, input_precision=PRECISION)
