"""Functions that Triton's language lacks, for designs in float64."""

import triton
import triton.language as tl


@triton.jit
def log_one_plus(b_u):
    """``log(1 + u)``, exact for small u: what rounding 1 + u takes is added to the first order."""
    b_w = 1.0 + b_u
    return tl.log(b_w) - ((b_w - 1.0) - b_u) / b_w


@triton.jit
def angle_of(b_re, b_im):
    """Angle of a complex number, not 0, in float64: to 0.004 from the octant, then two steps of third order."""
    b_least = tl.minimum(tl.abs(b_re), tl.abs(b_im))
    b_most = tl.maximum(tl.abs(b_re), tl.abs(b_im))
    b_ratio = b_least / b_most
    b_angle = b_ratio * (0.7853981633974483 + 0.273 * (1.0 - b_ratio))
    b_angle = tl.where(tl.abs(b_im) > tl.abs(b_re), 1.5707963267948966 - b_angle, b_angle)
    b_angle = tl.where(b_re < 0.0, 3.141592653589793 - b_angle, b_angle)
    b_angle = tl.where(b_im < 0.0, -b_angle, b_angle)
    b_size = b_most * tl.sqrt(1.0 + b_ratio * b_ratio)
    for _ in tl.static_range(2):
        b_sine = (b_im * tl.cos(b_angle) - b_re * tl.sin(b_angle)) / b_size
        b_angle += b_sine + b_sine * b_sine * b_sine / 6.0
    return b_angle


@triton.jit
def exp_minus_one(b_x):
    """``exp(x) - 1``, exact for small x other than 0: both factors know the exponential as it is rounded."""
    b_exp = tl.exp(b_x)
    return tl.where(b_exp == 0.0, -1.0, (b_exp - 1.0) * (b_x / tl.log(b_exp)))
