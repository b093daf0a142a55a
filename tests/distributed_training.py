"""Training by two processes, which test_training.py has torchrun start: each takes half of a batch.

What they compute together is compared with one process on the whole batch.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, parametrize

import tamt
from tamt._learnable import Form

FC = [300.0, 700.0, 1500.0]  # of which two processes cannot have equal shares
BF16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
UNCAST = MixedPrecisionPolicy(param_dtype=torch.bfloat16, cast_forward_inputs=False)
PRECISE = r"\w+ must be in the module's own precision, torch.float32, got torch.bfloat16"
WHOLE = StateDictOptions(full_state_dict=True)


def gammatone(learnable: Form) -> nn.Module:
    bank = tamt.GammatoneFilterbank(FC, 16000, learnable=learnable, device="cpu")
    return tamt.Cochleagram(bank, 40, detector="power", compression="db")


def fast_drnl(learnable: Form) -> nn.Module:
    bank = tamt.FastDRNLFilterbank(FC, 16000, learnable=learnable, dtype=torch.float32, ir_length=64, device="cpu")
    return tamt.Cochleagram(bank, 40, detector="power", compression=0.1)


def loudness(learnable: Form) -> nn.Module:
    """Of single numbers, here on levels of bands that a signal's samples stand for."""
    return nn.Sequential(nn.Unflatten(1, (4, 100)), tamt.ExcitationPattern(erb_step=0.375, learnable=learnable))


class Network(nn.Module):
    """A front end and a layer, which is of any type."""

    def __init__(self, front: Callable[[Form], nn.Module] = gammatone, learnable: Form = "relative") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.front = front(learnable)
        self.head = nn.Linear(100 if front is loudness else 3, 4)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        features = self.front(x)
        self.seen = [x.detach(), features.detach()]
        pooled = features.mean(1) if self.head.in_features == 100 else features.mean(2)
        return self.head(pooled.to(self.head.weight.dtype)).float()


def batch(half: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, labels = torch.randn(4, 400, generator=generator), torch.tensor([0, 2, 1, 3])
    mine = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2) if half else slice(None)
    return x[mine], labels[mine]


def backward(network: nn.Module, half: bool = True) -> None:
    x, labels = batch(half)
    nn.functional.cross_entropy(network(x), labels).backward()


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Of every tensor, relative to its peak; what is 0 in one process has to be so in two."""
    for a, e in zip(actual, expected, strict=True):
        a, e = whole(a.detach()), e.detach()
        assert a.dtype == e.dtype, (a.dtype, e.dtype)
        torch.testing.assert_close(a, e, rtol=0, atol=tolerance * e.abs().max().item())


def gradients(network: nn.Module) -> list[Tensor]:
    return [p.grad for p in network.parameters()]


def adamw(network: nn.Module) -> torch.optim.Optimizer:
    """With an eps that leaves rounding in small gradients alone."""
    return torch.optim.AdamW(network.parameters(), 1e-2, eps=1.0)


def steps(network: nn.Module, optimiser: torch.optim.Optimizer, half: bool = True) -> None:
    for _ in range(2):
        optimiser.zero_grad()
        backward(network, half)
        optimiser.step()


def ddp() -> None:
    for front, learnable in (
        (gammatone, "relative"),
        (fast_drnl, "relative"),
        (loudness, "relative"),
        (gammatone, True),
        (fast_drnl, True),
        (loudness, True),
    ):
        single, double = Network(front, learnable), Network(front, learnable)
        parallel = DistributedDataParallel(double)
        backward(single, half=False)
        backward(parallel)
        close(gradients(double), gradients(single))

        # What is accumulated before the processes meet counts as much.
        parallel.zero_grad()
        with parallel.no_sync():
            backward(parallel)
        backward(parallel)
        close(gradients(double), [2 * g for g in gradients(single)])

        single, double = Network(front, learnable), Network(front, learnable)
        parallel = DistributedDataParallel(double, gradient_as_bucket_view=True)
        if (front, learnable) == (gammatone, True):
            with pytest.raises(ValueError, match="only supports using the same dense type for all parameters"):
                ZeroRedundancyOptimizer(parallel.parameters(), torch.optim.AdamW)
            continue
        parts = ZeroRedundancyOptimizer(parallel.parameters(), torch.optim.AdamW, lr=1e-2, eps=1.0)
        steps(parallel, parts)
        steps(single, adamw(single), half=False)
        close(double.parameters(), single.parameters())


def shard(module: nn.Module, policy: MixedPrecisionPolicy | None = None, **options: Any) -> None:
    """On the CPU, wherever torch would."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(module, mesh=mesh, mp_policy=policy or MixedPrecisionPolicy(), **options)


def sharded(network: Network, policy: MixedPrecisionPolicy | None = None, units: str = "front") -> Network:
    """The front end as a unit of its own, whose parameters remain as they are, in a network under a policy."""
    if units == "front":
        shard(network.front)
    shard(network, policy)
    return network


def fsdp() -> None:
    whole_or_in_units()
    the_bank_alone()
    half_types()
    evaluation_and_design()
    saved_and_loaded()
    the_tensors_themselves()


def whole_or_in_units() -> None:
    for front in (gammatone, fast_drnl, loudness):
        for units in ("root", "front"):
            single, double = Network(front), sharded(Network(front), units=units)
            backward(single, half=False)
            backward(double)
            assert {p.dtype for p in double.parameters()} == {torch.float32}
            close(gradients(double), gradients(single))
            most = 0.5 * torch.cat([g.flatten() for g in gradients(single)]).norm().item()
            close([clip_grad_norm_(double.parameters(), most)], [clip_grad_norm_(single.parameters(), most)])
            close(gradients(double), gradients(single))
            for fused in (False, True):
                for network in (single, double):
                    torch.optim.AdamW(network.parameters(), 1e-2, eps=1.0, fused=fused).step()
            close(double.parameters(), single.parameters())
    with pytest.raises(RuntimeError, match="in-place operations that require placement changes are not supported"):
        torch.optim.Adafactor(double.parameters()).step()  # of whatever is sharded


def the_bank_alone() -> None:
    """A cochleagram does not call its bank's forward, which is where FSDP gathers: it has to be told of the method."""
    double = Network()
    shard(double.front.bank)
    shard(double)
    with pytest.raises(TypeError, match=r"log_bandwidth .* is a shard where .*register_fsdp_forward_method"):
        backward(double)

    single, double = Network(), Network()
    shard(double.front.bank)
    register_fsdp_forward_method(double.front.bank, "_hop_means")
    shard(double)
    backward(single, half=False)
    backward(double)
    close(gradients(double), gradients(single))


def half_types() -> None:
    """Refused for a front end; what a policy does to the signal shows in what the front end saw."""
    for front, name in ((gammatone, "log_bandwidth"), (fast_drnl, "log_a"), (loudness, "log_upper_slope_base")):
        with pytest.raises(TypeError, match=f"{name} of {PRECISE}"):
            backward(sharded(Network(front), BF16, units="root"))

    single = Network()
    x, _ = batch(half=True)
    features = single.front(x).detach()

    # The layers that may have another type get the policy, the network none: nothing reaches the front end.
    layers = Network()
    shard(layers.head, BF16)
    shard(layers)
    # A policy for the network, with a unit that has another one, and without casts of the network's inputs.
    uncast = sharded(Network(), UNCAST)
    ignored = Network()
    kept = set(ignored.front.parameters())
    shard(ignored, UNCAST, ignored_params=kept)
    backward(single, half=False)
    for network in (layers, uncast, ignored):
        backward(network)
        assert torch.equal(network.seen[0], x)
        assert torch.equal(network.seen[1], features)
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        if network is ignored:  # these are every process's own, and averaging their gradients is the caller's
            for parameter in network.front.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= 2
        close(gradients(network), gradients(single), 2e-2)

    # As policies are by default, a signal is rounded to 8 bits before it gets there.
    cast = sharded(Network(), BF16)
    backward(cast)
    assert cast.seen[0].dtype == torch.bfloat16
    assert cast.seen[1].dtype == torch.float32


def evaluation_and_design() -> None:
    single, double = Network(), Network()
    for network in (single, double):
        parametrize.register_parametrization(network.front.bank, "log_frequency", nn.Tanh())
    sharded(double)
    optimisers = adamw(single), adamw(double)  # now: after an evaluation FSDP leaves the parameters of a root whole
    x, _ = batch()
    for train in (False, True):
        if train:
            steps(single, optimisers[0], half=False)
            steps(double, optimisers[1])
        with torch.no_grad():
            close([double(x)], [single(x)])
        close(double.front.bank.design().values(), single.front.bank.design().values())
        fixed = double.front.with_learnable(False).bank
        close(fixed.state_dict().values(), single.front.bank.with_learnable(False).state_dict().values())


def saved_and_loaded() -> None:
    double = sharded(Network())
    steps(double, adamw(double))
    state = get_model_state_dict(double, options=WHOLE)
    single = Network()
    single.load_state_dict(state)
    close(double.parameters(), single.parameters(), 0)

    other = sharded(Network())
    set_model_state_dict(other, state, options=WHOLE)
    close(other.parameters(), single.parameters(), 0)

    folder = [tempfile.mkdtemp() if dist.get_rank() == 0 else ""]
    dist.broadcast_object_list(folder)
    dcp.save({"model": get_model_state_dict(double)}, checkpoint_id=folder[0])
    other = sharded(Network())
    state = {"model": get_model_state_dict(other)}
    dcp.load(state, checkpoint_id=folder[0])
    set_model_state_dict(other, state["model"])
    close(other.parameters(), single.parameters(), 0)


def the_tensors_themselves() -> None:
    """The form True: what FSDP does with complex parameters, real ones and single numbers."""
    with pytest.raises(AssertionError, match="FSDP expects uniform original parameter dtype"):
        backward(sharded(Network(gammatone, True), units="root"))
    with pytest.raises(ValueError, match="fully_shard doesn't support scalar parameters"):
        sharded(Network(loudness, True))
    with pytest.raises(TypeError, match=f"a of {PRECISE}"):
        backward(sharded(Network(fast_drnl, True), BF16, units="root"))
    for front in (gammatone, fast_drnl):
        single, double = Network(front, True), sharded(Network(front, True))
        backward(single, half=False)
        backward(double)
        close(gradients(double), gradients(single))

    # A policy leaves complex parameters alone.
    single, double = Network(gammatone, True), Network(gammatone, True)
    shard(double.front, UNCAST)
    shard(double)
    backward(single, half=False)
    backward(double)
    close(gradients(double), gradients(single))

    before = [whole(p.detach()).clone() for p in double.parameters()]
    torch.optim.AdamW(double.parameters(), 1e-2, weight_decay=0.0).step()
    for parameter, value in zip(double.parameters(), before, strict=True):
        if torch.__version__ >= (2, 13):  # which steps along with a copy of what is complex
            assert torch.equal(whole(parameter.detach()), value) == value.is_complex()


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    {"ddp": ddp, "fsdp": fsdp}[sys.argv[1]]()
    dist.destroy_process_group()
