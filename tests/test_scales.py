from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tamt
from tamt import audfiltbw, erb2fc, erbrate2f, erbspacebw, f2erb, f2erbrate, fc2erb
from tamt.scales import erb_spaced

GOLDEN = np.load(Path(__file__).parent / "data" / "scales.npz")
CONVERSIONS = [audfiltbw, fc2erb, erb2fc, f2erb, f2erbrate, erbrate2f]
PAIRS = [(fc2erb, erb2fc), (f2erbrate, erbrate2f)]

conversions = pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda function: function.__name__)


@pytest.mark.parametrize(
    ("convert", "argument", "result"),
    [
        (audfiltbw, "f", "audfiltbw"),
        (fc2erb, "f", "freqtoaud_erb"),
        (erb2fc, "cam", "audtofreq_erb_of_cam"),
        (f2erbrate, "f", "fc2erb"),
        (erbrate2f, "cam", "erb2fc_of_cam"),
    ],
)
def test_conversions_agree_with_amt(convert, argument, result):
    computed = convert(torch.from_numpy(GOLDEN[argument]))
    np.testing.assert_allclose(computed.numpy(), GOLDEN[result], rtol=1e-13, atol=1e-13)


def test_f2erb_is_the_rounded_form_of_amts():
    f = torch.from_numpy(GOLDEN["f"])
    assert f2erb(1000.0) == pytest.approx(24.7 * 5.37)
    np.testing.assert_allclose(f2erb(f).numpy(), GOLDEN["f2erb"], rtol=2e-3)


@pytest.mark.parametrize("row", range(6))
def test_erbspacebw_against_amt(row):
    flow, fhigh, bwmul, basef = GOLDEN["erbspacebw_args"][row].tolist()
    expected = GOLDEN[f"erbspacebw_{row}"]
    if not np.isnan(basef):
        computed = erbspacebw(flow, fhigh, bwmul, basef, dtype=torch.float64)
        np.testing.assert_allclose(computed.numpy(), expected, rtol=1e-12)
        return
    # Without basef tamt keeps the ends and AMT the distance: the same count on a grid of its own.
    computed = erbspacebw(flow, fhigh, bwmul, dtype=torch.float64)
    assert computed.shape == expected.shape
    assert computed[0].item() == pytest.approx(flow, rel=1e-14)
    assert computed[-1].item() == pytest.approx(fhigh, rel=1e-14)
    steps = fc2erb(computed).diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-11, atol=0.0)
    assert bwmul <= steps.mean() < bwmul * (1 + 1 / (len(expected) - 1))


def test_erbspacebw_documented_values():
    fc = erbspacebw(100, 8000)
    assert fc.shape == (30,)
    assert fc.dtype == torch.float32
    torch.testing.assert_close(fc[:3], torch.tensor([100.0, 138.6141, 181.7625]), rtol=0.0, atol=5e-5)
    assert fc[-1] == 8000
    assert erbspacebw(100, 8000, bwmul=0.5).shape == (60,)


def test_erbspacebw_of_a_narrow_range_is_flow():
    assert erbspacebw(1000, 1010).tolist() == [1000.0]


def test_erbspacebw_keeps_a_channel_at_the_end_of_a_whole_number_of_steps():
    fc = erbspacebw(erb2fc(3.0), erb2fc(33.0), dtype=torch.float64)
    assert len(fc) == 31


def test_erbspacebw_dtype_and_device():
    fc = erbspacebw(50, 5000, dtype=torch.float64, device="cpu")
    assert fc.dtype == torch.float64
    assert fc.device.type == "cpu"
    assert erbspacebw(50, 5000, device="meta").device.type == "meta"
    with torch.device("meta"):
        assert erbspacebw(50, 5000).device.type == "meta"


@given(
    flow=st.floats(0, 5000),
    width=st.floats(1, 15000),
    bwmul=st.floats(0.05, 5),
    place=st.floats(0, 1),
)
def test_erbspacebw_stays_inside_and_hits_basef(flow, width, bwmul, place):
    fhigh = flow + width
    basef = min(flow + place * width, fhigh)
    between = erbspacebw(flow, fhigh, bwmul, dtype=torch.float64)
    assert between[0] == flow
    assert len(between) == 1 or between[-1] == fhigh
    for fc in (between, erbspacebw(flow, fhigh, bwmul, basef, dtype=torch.float64)):
        assert fc.min() >= flow
        assert fc.max() <= fhigh
        assert (fc.diff() > 0).all()
    assert basef in fc.tolist()
    assert torch.allclose(fc2erb(fc).diff(), torch.tensor(bwmul, dtype=torch.float64), rtol=1e-6, atol=1e-6)


@given(st.floats(0, 1e6))
def test_round_trip_of_numbers(f):
    for there, back in PAIRS:
        assert back(there(f)) == pytest.approx(f, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("there", "back"), PAIRS, ids=["fc2erb", "f2erbrate"])
def test_round_trip_of_float32_tensors(there, back):
    f = torch.logspace(-1, 4.3, 200)
    torch.testing.assert_close(back(there(f)), f, rtol=3e-6, atol=0.0)


@conversions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
def test_shape_dtype_and_device_are_kept(convert, dtype, shape):
    out = convert(torch.full(shape, 20.0, dtype=dtype))
    assert out.shape == shape
    assert out.dtype == dtype
    assert out.device.type == "cpu"


@conversions
def test_numbers_and_integer_tensors(convert):
    expected = convert(torch.tensor(12.0, dtype=torch.float64)).item()
    for number in (12, 12.0, np.float32(12), np.int64(12)):
        result = convert(number)
        assert type(result) is float
        assert result == pytest.approx(expected, rel=1e-15)
    integers = convert(torch.tensor([12, 12]))
    assert integers.dtype == torch.get_default_dtype()
    torch.testing.assert_close(integers, torch.full((2,), expected, dtype=integers.dtype))


@conversions
def test_float32_is_close_to_float64(convert):
    values = torch.linspace(0, 40, 300, dtype=torch.float64)
    torch.testing.assert_close(convert(values.float()).double(), convert(values), rtol=1e-6, atol=1e-6)


@conversions
def test_gradients(convert):
    values = torch.tensor([0.0, 1.0, 30.0, 40.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convert, values)
    assert torch.autograd.gradgradcheck(convert, values)


def test_compiles_to_one_graph():
    def all_of_them(x):
        return sum((convert(x) for convert in CONVERSIONS), start=x) + fc2erb(1000.0) + erbspacebw(100, 8000).sum()

    x = torch.linspace(0, 40, 50)
    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), all_of_them(x))


@conversions
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-1.0, ValueError, r"is -1 .*at least 0"),
        (float("nan"), ValueError, r"is nan .*finite"),
        (float("inf"), ValueError, r"is inf .*finite"),
        ("440", TypeError, r"'440' of type str.*tensor or a real number"),
        (True, TypeError, r"True of type bool"),
        ([440.0], TypeError, r"\[440\.0\] of type list"),
        (torch.ones(2, dtype=torch.complex64), TypeError, r"torch\.complex64.*real"),
        (torch.ones(2, dtype=torch.bool), TypeError, r"torch\.bool.*real"),
    ],
)
def test_conversions_refuse(convert, value, error, message):
    with pytest.raises(error, match=message):
        convert(value)


def test_long_values_are_not_repeated():
    with pytest.raises(TypeError, match=r"^f is of type tuple, but has to be a tensor or a real number$"):
        fc2erb((torch.arange(100.0),))


def test_huge_erb_numbers_are_infinitely_high():
    assert erb2fc(1e6) == float("inf")
    assert erbrate2f(1e6) == float("inf")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"flow": 8000, "fhigh": 100}, ValueError, r"fhigh is 100 Hz.*greater than flow \(8000 Hz\)"),
        ({"flow": 100, "fhigh": 100}, ValueError, r"fhigh is 100 Hz"),
        ({"flow": -1, "fhigh": 100}, ValueError, r"flow is -1 Hz.*at least 0"),
        ({"flow": float("nan"), "fhigh": 100}, ValueError, r"flow is nan Hz.*finite"),
        ({"flow": 100, "fhigh": float("inf")}, ValueError, r"fhigh is inf Hz.*finite"),
        ({"flow": 100, "fhigh": float("nan")}, ValueError, r"fhigh is nan Hz.*finite"),
        ({"bwmul": 0}, ValueError, r"bwmul is 0.*greater than 0"),
        ({"bwmul": -0.5}, ValueError, r"bwmul is -0\.5"),
        ({"bwmul": float("inf")}, ValueError, r"bwmul is inf"),
        ({"basef": 50}, ValueError, r"basef is 50 Hz.*\[100, 8000\] Hz"),
        ({"basef": float("nan")}, ValueError, r"basef is nan Hz"),
        ({"flow": "100"}, TypeError, r"flow is '100' of type str"),
        ({"dtype": torch.int64}, TypeError, r"dtype is torch\.int64.*floating"),
    ],
)
def test_erbspacebw_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        erbspacebw(**{"flow": 100, "fhigh": 8000, **arguments})


def test_docstring_examples():
    import doctest

    failures, tried = doctest.testmod(tamt.scales, extraglobs={"torch": torch})
    assert tried > 0
    assert failures == 0


@pytest.mark.parametrize("count", [1, 2, 30, 96])
def test_so_many_between_two(count):
    fc = erb_spaced(80.0, 8000.0, count)
    assert fc.shape == (count,)
    assert fc[0] == 80
    if count > 1:
        assert fc[-1] == 8000
        steps = fc2erb(fc).diff()
        torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-11, atol=0.0)
