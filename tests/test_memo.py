"""What is kept is found by value, only where values can be read, and within bounds."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import Tensor

from tamt._memo import Memo, Store, bits, readable


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        self.calls += 1
        return a + b


def test_a_value_is_found_by_the_numbers() -> None:
    memo: Memo[Tensor] = Memo()
    a, b, add = torch.ones(2), torch.ones(2), Counted()
    first = memo.get(add, a, b)
    assert memo.get(add, a.clone(), b) is first
    assert memo.get(add, torch.ones(4)[::2], b) is first
    a.data[0] = 5
    assert memo.get(add, a, b).tolist() == [6, 2]
    assert memo.get(add, torch.ones(2), b) is first  # two are kept
    assert add.calls == 2
    memo.get(add, a.double(), b.double())
    memo.get(add, a, b)
    assert add.calls == 4  # the third had pushed it out
    assert first.tolist() == [2, 2]


def test_a_value_shares_no_memory_with_its_sources() -> None:
    memo: Memo[Tensor] = Memo()
    a = torch.ones(2)
    kept = memo.get(lambda t: t.view(2), a)
    a.data.fill_(3)
    assert kept.tolist() == [1, 1]


def test_the_memory_of_sources_can_still_be_freed() -> None:
    """As FSDP does with what it gathers; numpy arrays that share it would prevent that for good."""
    a = torch.ones(2)
    Memo().get(lambda t: t + 1, a)
    a.untyped_storage().resize_(0)
    assert a.untyped_storage().nbytes() == 0


def test_gradients_reach_the_sources() -> None:
    memo: Memo[Tensor] = Memo()
    a, b, add = torch.ones(2, requires_grad=True), torch.ones(2), Counted()
    assert memo.get(add, a, b).requires_grad
    assert memo.get(add, a, b) is not memo.get(add, a, b)
    with torch.no_grad():
        kept = memo.get(add, a, b)
        assert memo.get(add, a, b) is kept
    assert not kept.requires_grad


def test_what_inference_mode_has_seen_serves_training() -> None:
    memo: Memo[Tensor] = Memo()
    with torch.inference_mode():
        a = torch.ones(2)
        kept = memo.get(lambda t: t[:1], a)
    assert not kept.is_inference()
    x = torch.ones(1, requires_grad=True)
    (x * kept).sum().backward()
    assert memo.get(lambda t: t[:1], a) is kept


def test_what_a_partial_function_was_given_counts() -> None:
    memo, x = Memo(), torch.ones(3)

    def scaled(x: Tensor, by: float) -> Tensor:
        return by * x

    assert torch.equal(memo.get(partial(scaled, by=2.0), x), 2 * x)
    assert torch.equal(memo.get(partial(scaled, by=3.0), x), 3 * x)
    assert torch.equal(memo.get(partial(scaled, by=2.0), x), 2 * x)


def test_copies_begin_empty() -> None:
    memo: Memo[Tensor] = Memo(3)
    kept = memo.get(lambda t: t + 1, torch.ones(2))
    for twin in (copy.deepcopy(memo), pickle.loads(pickle.dumps(memo))):
        assert twin.most == 3
        assert twin.get(lambda t: t + 1, torch.ones(2)) is not kept


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64, torch.int64, torch.bool])
def test_bits(dtype: torch.dtype) -> None:
    a = torch.tensor([0, 1, 1]).to(dtype)
    assert bits(a) == bits(a.clone())
    assert len({bits(a), bits(a[:2]), bits(a.flip(0)), bits(a[None]), bits(a[1])}) == 5
    assert bits(a) != bits(torch.tensor([0, 1, 1], dtype=torch.float16))
    assert bits(torch.ones(2, dtype=torch.cfloat) * 1j) != bits((torch.ones(2, dtype=torch.cfloat) * 1j).conj())


def test_what_can_be_read() -> None:
    a = torch.ones(2)
    assert readable(a, torch.nn.Parameter(a))
    assert not readable(a, a.to("meta"))
    with torch.autograd.forward_ad.dual_level():
        assert not readable(a)
    seen: list[bool] = []
    torch.func.vmap(lambda t: (seen.append(readable(t)), seen.append(readable(a)), t)[2])(a)
    torch.func.grad(lambda t: (seen.append(readable(a)), t.sum())[1])(a)
    torch.jit.trace(lambda t: (seen.append(readable(a)), t)[1], a, check_trace=False)
    with torch._subclasses.fake_tensor.FakeTensorMode():
        seen.append(readable(a))
    assert seen == [False] * len(seen)
    assert len(seen) >= 5
    assert torch.compile(lambda t: t + readable(t), backend="eager", fullgraph=True)(a).tolist() == [1, 1]


def test_a_store_holds_so_many_bytes() -> None:
    store: Store[Tensor] = Store(100)

    def stored(name: str, size: int) -> Tensor:
        return store.get((name,), lambda: torch.zeros(size, dtype=torch.uint8))

    first, second = stored("a", 40), stored("b", 40)
    assert stored("a", 0) is first
    third = stored("c", 40)  # what was not used for longest gives way
    assert stored("a", 0) is first
    assert stored("c", 0) is third
    assert stored("b", 40) is not second
    whole = stored("d", 1000)  # larger than all there is, and kept for its own sake
    assert stored("d", 0) is whole
    assert len(store._values) == 1
    store.clear()
    assert stored("d", 5) is not whole


def test_a_store_serves_threads() -> None:
    store: Store[Tensor] = Store(1000)
    with ThreadPoolExecutor(4) as threads:
        results = list(
            threads.map(lambda i: store.get((i % 7,), lambda: torch.full((100,), i % 7)).sum().item(), range(300))
        )
    assert results == [100 * (i % 7) for i in range(300)]
