r"""Block matrices of the IIR engine's filters, for the definitions of operators.

From rows of coefficients (F, P), as :mod:`tamt.ops.iir` describes them: the impulse response (F, L), what the output
takes from the state at a block's start (F, L, N), what the state at its end takes from each sample (F, N, L), and the
transitions over 1, 2, 4 ... L samples (F, 1 + log2 L, N, N), as :class:`tamt.shared.iir.Blocks` has them.

An operator, so that torch.compile sees one step where there are a hundred small ones. It is plain torch on every device
(:mod:`tamt.reference.blocks`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tamt.ops._register import Backward, backward_of, register
from tamt.reference import blocks as reference
from tamt.shared.iir import KINDS, Blocks, block_shapes


def _forward(coef: Tensor, kind: str, order: int) -> tuple[Tensor, ...]:
    return tuple(matrix.contiguous() for matrix in reference.iir_blocks(coef, kind, order))


def _backward(*operands: Any) -> Tensor:
    *grads, coef, kind, order = operands
    plain = Blocks(*(grad.clone() for grad in grads))  # without tangents, as autograd is off here
    return reference.iir_blocks_vjp(plain, coef, kind, order).contiguous()


iir_blocks = register(
    "iir_blocks",
    "(Tensor coef, str kind, int order) -> (Tensor impulse, Tensor output, Tensor input, Tensor transitions)",
    definition=reference.definition,
    forward=_forward,
    backward=Backward(_backward, of="coef"),
    shapes=lambda coef, kind, order: block_shapes(coef.shape[0], KINDS[kind].states(order)),
    rows="coef",
)
iir_blocks_backward = backward_of(iir_blocks)
