"""Where torch_amt and tamt differ, in figures for docs/coming_from/torch_amt.md.

``python -m asv_bench.comparison.differences --out results/torch_amt.json``, where torch_amt is installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import tamt
from asv_bench import environment
from asv_bench.accuracy import SCALES
from asv_bench.benchmarks.common import best_times, dense, golden, relative_error, timed
from asv_bench.comparison.peers import library
from tamt.spl import full_scale_pascal, pascal2spl


class Difference(NamedTuple):
    """A figure of both libraries; ``right`` is what AMT, the formula or physics says, None where figures are errors."""

    what: str
    torch_amt: float | None
    tamt: float | None
    right: float | None
    unit: str


TOPICS: dict[str, Callable[[], Iterator[Difference]]] = {}
PEAK = "of the channel's peak"
FS = 32000


def topic(function: Callable[[], Iterator[Difference]]) -> Callable[[], Iterator[Difference]]:
    TOPICS[function.__name__] = function
    return function


def both(name: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """The class or function of that name of torch_amt, and tamt's; with arguments what they make."""
    found = getattr(library("torch_amt"), name), getattr(tamt, name)
    return tuple(each(*args, **options) for each in found) if args or options else found


def tone(hertz: float, level: float, seconds: float, fs: int = FS) -> Tensor:
    """In pascal."""
    time = torch.arange(round(seconds * fs), dtype=torch.float64) / fs
    return full_scale_pascal(level) * torch.sin(2 * math.pi * hertz * time)


def decibels(power: Tensor) -> float:
    return 10 * power.log10().item()


@topic
def scales() -> Iterator[Difference]:
    data = golden("scales")
    for name, argument, result in (*SCALES, ("f2erb", "f", "f2erb")):
        given, expected = (torch.from_numpy(data[key]) for key in (argument, result))
        errors = ((scale(given) - expected).abs().max().item() / expected.max().item() for scale in both(name))
        yield Difference(f"`{name}`, {len(given)} values", *errors, None, "of the largest of AMT's")
    spaces = [space(100.0, 8000.0, dtype=torch.float64) for space in both("erbspacebw")]
    spread = [(tamt.fc2erb(fc).diff() - 1).abs().max().item() for fc in spaces]
    yield Difference("`erbspacebw(100, 8000)`, steps beside 1 ERB", *spread, None, "ERB")
    yield Difference("the same, last frequency", *[fc[-1].item() for fc in spaces], None, "Hz")


@topic
def gammatone() -> Iterator[Difference]:
    data = golden("gammatone")
    fs, fc = float(data["fs"]), torch.from_numpy(data["fc"])
    impulse, noise = (torch.from_numpy(data[f"x_{name}"])[None] for name in ("impulse", "noise"))
    for name, x in (("impulse", impulse), ("noise", noise)):
        expected = torch.from_numpy(data[f"n4_y_{name}"])
        for dtype in (torch.float64, torch.float32):
            banks = both("GammatoneFilterbank", fc, fs, dtype=dtype)
            errors = (relative_error(bank(x.to(dtype))[0], expected) for bank in banks)
            title = f"`'sos'`, {name}, {str(dtype).removeprefix('torch.')}: error beside AMT"
            yield Difference(title, *errors, None, PEAK)
    low = torch.tensor([50.0, 1000.0])
    impulse = torch.zeros(1, 8000, dtype=torch.float64)
    impulse[0, 0] = 1
    exact = both("GammatoneFilterbank", low[:1], fs, dtype=torch.float64)
    responses = [bank(impulse)[0, 0] for bank in exact]
    missing = [(response - responses[1]).abs().max().item() / responses[1].abs().max().item() for response in responses]
    yield Difference(
        "`'sos'`, 50 Hz at 16 kHz: largest sample that its impulse response lacks", *missing, None, "of the peak"
    )
    time = torch.arange(2000, dtype=torch.float64) / fs
    banks = both("GammatoneFilterbank", low[1:], fs, dtype=torch.float64, implementation="poly")
    for hertz in (1000, 2000):
        sine = torch.sin(2 * math.pi * hertz * time)[None]
        gains = [decibels(2 * bank(sine)[0, 0, 1000:].square().mean()) for bank in banks]
        yield Difference(f"`'poly'`, `fc` 1000 Hz: gain for a tone of {hertz} Hz", *gains, None, "dB")


@topic
def drnl() -> Iterator[Difference]:
    """Of few channels and levels: torch_amt has a loop over samples in Python."""
    noise, impaired = golden("drnl"), golden("drnl_hix")
    channels, levels = [1, 2, 5], [0, 2]
    fs, fc = float(noise["fs"]), torch.from_numpy(noise["cf"][channels])
    x = torch.from_numpy(noise["x"][levels])
    peer, mine = both("DRNLFilterbank", fc, fs)
    for model in ("paulick2024", "jepsen2008"):
        for subject, data in (("NH", noise), ("HIx", impaired)):
            expected = torch.from_numpy(data[f"y_{subject}_{model}"]).transpose(0, 1)[levels][:, channels]
            outputs = [bank(x) for bank in both("DRNLFilterbank", fc, fs, subject=subject, model=model)]
            title = f"`{model}`, `'{subject}'`: error beside AMT"
            yield Difference(title, *(relative_error(y, expected) for y in outputs), None, PEAK)
            for level, name in enumerate(("1e-7 m/s", "1e-3 m/s")):
                powers = [y[level, 1].square().mean() for y in (*outputs, expected)]
                title = f"`{model}`, `'{subject}'`, 1 kHz, noise of {name}: level of the output"
                yield Difference(title, *map(decibels, powers), "dB re 1 m/s")
    short = x[:, :300]
    count = []
    for bank in both("DRNLFilterbank", fc, fs, learnable=True):
        bank(short).square().sum().backward()
        reached = (p.grad is not None and bool((p.grad != 0).any()) for p in bank.parameters())
        count.append(float(sum(reached)))
    yield Difference("learnable: parameters of a channel that a gradient reaches, of 8", *count, 8.0, "")
    exact, fast = (both(name, fc[1:2], fs) for name in ("DRNLFilterbank", "FastDRNLFilterbank"))
    errors = (relative_error(quick(x[1]), slow(x[1])) for quick, slow in zip(fast, exact, strict=True))
    yield Difference("`FastDRNLFilterbank` beside its own `DRNLFilterbank`, 1 kHz", *errors, None, PEAK)
    with torch.no_grad():
        seconds = timed(lambda: peer(x), "cpu"), min(best_times(lambda: mine(x), rounds=5))
    yield Difference(
        "time for two signals of 50 ms, three channels, over tamt's", seconds[0] / seconds[1], 1.0, None, ""
    )


@topic
def spectrum() -> Iterator[Difference]:
    noise = torch.randn(1, FS, generator=torch.Generator().manual_seed(0))
    spectra = both("MultiResolutionFFT", fs=FS)
    integrals = [(psd.sum(-1).mean() * (f[1] - f[0])).item() for psd, f in (each(noise) for each in spectra)]
    truth = noise.square().mean().item()
    ratios = (integral / truth for integral in integrals)
    yield Difference("white noise: integral of the density over the mean square", *ratios, 1.0, "")
    signal = tone(1500, 60, 1.0).float()[None]
    levels = [
        decibels((psd[:, 4:-4].sum(-1).mean() * (f[1] - f[0])) / 4e-10) for psd, f in (s(signal) for s in spectra)
    ]
    yield Difference("tone of 1.5 kHz and 60 dB SPL: integral of the density", *levels, 60.0, "dB SPL")
    centres = (250, 750, 1500, 3000, 6000, 12000)
    shares: list[list[float]] = [[], []]
    for position in range(8000, 9024, 64):
        click = torch.zeros(1, FS)
        click[0, position] = 1
        for share, each in zip(shares, spectra, strict=True):
            psd, f = each(click)
            bins = [int((f - c).abs().argmin()) for c in centres]
            energy = psd[0].sum(0)[bins]
            share.append((energy > 1e-3 * energy.max()).float().mean().item() * len(centres))
    means = (float(np.mean(share)) for share in shares)
    yield Difference("click at 16 instants: bands of six in which it is seen, mean", *means, 6.0, "bands")


@topic
def erb_integration() -> Iterator[Difference]:
    freqs = torch.linspace(0, FS / 2, 1025)
    psd = torch.ones(1, 1, 1025)
    fixed, learnable = both("ERBIntegration", fs=FS), both("ERBIntegration", fs=FS, learnable=True)
    outputs = [module(psd, freqs)[0, 0] for module in fixed]
    apart = (outputs[0] - outputs[1]).abs().max().item()
    yield Difference("fixed, flat spectrum: tamt beside torch_amt", apart, 0.0, None, "dB")
    high = fixed[1].fc_erb > 1000
    for name, chosen in (("all channels", high | True), ("above 1 kHz", high)):
        off = [
            (module(psd, freqs)[0, 0] - output).abs()[chosen].max().item()
            for module, output in zip(learnable, outputs, strict=True)
        ]
        yield Difference(f"learnable beside fixed, flat spectrum, {name}", *off, None, "dB")


@topic
def excitation() -> Iterator[Difference]:
    modules = both("ExcitationPattern", fs=FS)
    count = modules[1].n_erb_bands

    def level(value: float, rest: float, channel: int) -> list[float]:
        levels = torch.full((1, 1, count), rest)
        levels[..., 75] = value
        return [module(levels)[0, 0, channel].item() for module in modules]

    yield Difference("one channel of 60 dB, others -100 dB: at that channel", *level(60.0, -100.0, 75), 60.0, "dB")
    yield Difference("the same, 1 ERB above", *level(60.0, -100.0, 79), 33.0, "dB")
    yield Difference("one channel of -20 dB, others -100 dB: at that channel", *level(-20.0, -100.0, 75), -20.0, "dB")
    distance = 0.25 * (torch.arange(count, dtype=torch.float64) - 75)
    attenuation = torch.where(distance > 0, 11 * distance, -27 * distance)  # from a channel at that distance
    right = decibels((10 ** (6 - attenuation[attenuation <= 50] / 10)).sum())
    yield Difference("60 dB in all channels: in the middle", *level(60.0, 60.0, 75), right, "dB")


@topic
def moore2016_components() -> Iterator[Difference]:
    data = golden("moore2016_spectrum")
    away = torch.ones(960, dtype=torch.bool)
    away[torch.from_numpy(data["limiting_bin"]) - 1] = False
    for case in ("harm", "diff", "click"):
        frames = torch.from_numpy(data[f"{case}_frames"]).transpose(1, 2)
        padded = torch.nn.functional.pad(frames, (0, 32))
        expected = []
        for ear in (0, 1):
            rows = [torch.from_numpy(data[f"{case}_{kind}"][:, ear]) for kind in "fL"]
            for row, count in zip(zip(*rows, strict=True), data[f"{case}_count"][:, ear], strict=True):
                row[0][count:], row[1][count:] = 0, 0
            expected += [rows[0][:, None], rows[1][:, None]]
        wanted = dense(expected)
        counts, largest, median, inside = [], [], [], []
        peer, mine = both("Moore2016Spectrum")
        for module in (peer(dtype=torch.float64), mine(dtype=torch.float64, joint_threshold=True)):
            lists = [each[:, :1] for each in module(padded)]
            counts.append(float(sum(int((f > 0).sum()) for f in lists[::2])))
            levels = dense(lists)
            off = (levels - wanted).abs().where(levels.isfinite() & wanted.isfinite(), torch.nan)
            largest.append(off.nan_to_num().max().item())
            median.append(off.nanmedian().item())
            inside.append(off[..., away].nan_to_num().max().item())
        name = {"harm": "harmonic complex", "diff": "harmonics left, noise right", "click": "click"}[case]
        yield Difference(f"{name}: components in six frames", *counts, float(data[f"{case}_count"].sum()), "")
        yield Difference(f"{name}: level of a component that AMT has too, median error", *median, None, "dB")
        yield Difference("the same, largest error", *largest, None, "dB")
        yield Difference("the same, largest error away from the limits of bands", *inside, None, "dB")


@topic
def moore2016_excitation() -> Iterator[Difference]:
    data = golden("moore2016_excitation")
    f, levels, expected = (torch.from_numpy(data[key]) for key in ("f", "L", "E"))
    f = torch.where(torch.arange(f.shape[1]) < torch.from_numpy(data["count"])[:, None], f, 0)
    seen = expected > 0
    wide = both("Moore2016ExcitationPattern", spreading_limit_octaves=10.0, dtype=torch.float64)
    off = [(module(f, levels) - expected).abs()[seen].max().item() for module in wide]
    yield Difference("12 spectra, where AMT reads above 0 dB, limit of 10 octaves: largest error", *off, None, "dB")
    fc = wide[1].fc_channels
    middle = int((fc - 1000).abs().argmin())
    rows = [module(torch.tensor([[1000.0]]).double(), torch.tensor([[90.0]]).double())[0] for module in wide]
    for steps, name in ((16, "4 ERB above"), (-16, "4 ERB below")):
        yield Difference(
            f"tone of 1 kHz and 90 dB, {name} beside its place",
            *((row[middle + steps] - row[middle]).item() for row in rows),
            None,
            "dB",
        )


@topic
def ear() -> Iterator[Difference]:
    peer = library("torch_amt").OuterMiddleEarFilter(fs=FS, compensation_type="tfOuterMiddle2007", dtype=torch.float64)
    mine = tamt.OuterMiddleEar(FS, dtype=torch.float64)
    impulse = torch.zeros(1, 16384, dtype=torch.float64)
    impulse[0, 8192] = 1
    taps = torch.from_numpy(golden("ear")["fir_free"])
    gains = [torch.fft.rfft(h.flatten(), 65536).abs() for h in (peer(impulse), mine(impulse), taps)]
    for hertz in (100, 1000, 3000, 8000):
        k = round(hertz * 65536 / FS)
        yield Difference(f"free field, gain at {hertz} Hz", *(decibels(gain[k].square()) for gain in gains), "dB")
    k = torch.arange(round(50 * 65536 / FS), round(14000 * 65536 / FS))
    off = (20 * (gain[k] / gains[2][k]).log10().abs().max().item() for gain in gains[:2])
    yield Difference("largest error, 50 Hz to 14 kHz", *off, None, "dB")
    peaks = (float(h.flatten().abs().argmax() - 8192) for h in (peer(impulse), mine(impulse)))
    yield Difference("delay", *peaks, 2048.0, "samples")


@topic
def specific_loudness() -> Iterator[Difference]:
    data = golden("moore2016_loudness")
    levels, expected = torch.from_numpy(data["stage_spec_E_dB"]), torch.from_numpy(data["stage_spec_N"])
    fc = tamt.erbrate2f(1.75 + 0.25 * torch.arange(150, dtype=torch.float64))
    channels = [int((fc - each).abs().argmin()) for each in torch.from_numpy(data["stage_fc"])]
    columns = levels[:, None].expand(-1, 150)
    peer, mine = both("Moore2016SpecificLoudness", dtype=torch.float64)
    outputs = [peer(columns[None])[0][:, channels], mine(10 ** (columns / 10))[:, channels]]
    for low, high in ((0, 40), (40, 100)):
        chosen = (levels >= low) & (levels <= high)
        off = [((y - expected).abs() / expected)[chosen].max().item() for y in outputs]
        yield Difference(f"Moore 2016, excitation of {low} to {high} dB: largest error beside AMT", *off, None, "of it")
    left, right = (torch.from_numpy(data[f"stage_inh_in_{ear}"]) for ear in "LR")
    total = torch.from_numpy(data["stage_inh_out"])[:, 0]
    peer = library("torch_amt").Moore2016BinauralLoudness(dtype=torch.float64)
    mine = tamt.BinauralInhibition(dtype=torch.float64)

    def loudness(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return peer(left, right)[0].flatten(), 0.25 * mine(torch.stack((left, right), -3)).sum((-3, -1))

    off = (((y - total).abs() / total).max().item() for y in loudness(left, right))
    yield Difference("binaural inhibition, six pairs of ears: largest error beside AMT", *off, None, "of it")
    pattern = left[:1]
    for name, other, right_share in (("one ear alone", 0 * pattern, 1.0), ("both ears alike", pattern, 0.75)):
        whole = 0.25 * (pattern + other).sum()
        shares = ((y / whole).item() for y in loudness(pattern, other))
        yield Difference(f"the same, {name}: loudness over that without inhibition", *shares, right_share, "")


@topic
def smoothing() -> Iterator[Difference]:
    data = golden("attack_release")
    x, expected = torch.from_numpy(data["am_STL_L"]), torch.from_numpy(data["am_LTL_L"])
    peer = library("torch_amt").Moore2016AGC(attack_alpha=0.01, release_alpha=0.00133, dtype=torch.float64)
    mine = tamt.AttackRelease(0.01, 0.00133, dtype=torch.float64)
    off = [relative_error(y.flatten(), expected) for y in (peer(x), mine(x))]
    yield Difference("long-term loudness of a modulated tone: error beside AMT", *off, None, "of the peak")
    with torch.no_grad():
        ours, theirs = best_times(lambda: mine(x), lambda: peer(x), rounds=5)
    yield Difference("time for its 1201 frames over tamt's", theirs / ours, 1.0, None, "")


@topic
def moore2016() -> Iterator[Difference]:
    data = golden("moore2016_loudness")
    pascal = pascal2spl(1.0) - 10 * math.log10(2)  # level of a tone of amplitude 1
    peer, matched = (library("torch_amt").Moore2016(spectrum_kwargs={"db_max": level}) for level in (93.98, pascal))
    mine = tamt.Moore2016Loudness()
    names = {"tone40": "1 kHz, 40 dB SPL", "tone60": "1 kHz, 60 dB SPL", "harm": "harmonic complexes, two ears"}
    for case, name in names.items():
        x = torch.from_numpy(data[f"{case}_x"]) * full_scale_pascal(float(data["db_max"]))
        x = x.expand(2, -1).float()
        right = float(data[f"{case}_peak"][1])
        with torch.no_grad():
            found = [model(x[None])[2].item() for model in (peer, matched)]
            ours = mine(x).peak.item()
        yield Difference(f"{name}, peak long-term loudness", found[0], ours, right, "sone")
        yield Difference("the same, torch_amt with the `db_max` of pascal, 90.97", found[1], ours, right, "sone")
    x = torch.from_numpy(data["tone60_x"]).expand(2, -1).float() * full_scale_pascal(100.0)
    with torch.no_grad():
        ours, theirs = best_times(lambda: mine(x), lambda: peer(x[None]), rounds=2)
    yield Difference("time for 0.3 s of sound over tamt's", theirs / ours, 1.0, None, "")


@topic
def glasberg2002() -> Iterator[Difference]:
    models = tamt.Glasberg2002Loudness(), tamt.Glasberg2002Loudness(front_end="documents")
    with torch.no_grad():
        for level in (20, 40, 60, 80):
            x = tone(1000, level, 1.0).float()
            peer = library("torch_amt").Glasberg2002()(x[None]).max().item()
            right = 1.0 if level == 40 else None
            title = f"1 kHz, {level} dB SPL, 1 s: peak long-term loudness"
            yield Difference(title, peer, models[0](x).peak.item(), right, "sone")
        twice = library("torch_amt").Glasberg2002()
        first, second = (twice(x[None])[0, 0].item() for _ in range(2))
        yield Difference("first frame of a second call over that of the first", second / first, 1.0, 1.0, "")
        ours, theirs = best_times(lambda: models[1](x), lambda: twice(x[None]), rounds=3)
        yield Difference("time for 1 s over that of `front_end='documents'`", theirs / ours, 1.0, None, "")


def state_dicts() -> Iterator[dict[str, Any]]:
    """What the modules of both save, by name."""
    for name, arguments in (
        ("GammatoneFilterbank", ([500.0, 1000.0], 16000)),
        ("DRNLFilterbank", ([500.0, 1000.0], 44100)),
        ("FastDRNLFilterbank", ([500.0, 1000.0], 44100)),
        ("MultiResolutionFFT", ()),
        ("ERBIntegration", ()),
        ("ExcitationPattern", ()),
        ("Moore2016Spectrum", ()),
        ("Moore2016ExcitationPattern", ()),
    ):
        given = [torch.tensor(each) if isinstance(each, list) else each for each in arguments]
        theirs, ours = (list(kind(*given).state_dict()) for kind in both(name))
        yield {
            "module": name,
            "both": [key for key in ours if key in theirs],
            "torch_amt": [key for key in theirs if key not in ours],
            "tamt": [key for key in ours if key not in theirs],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--only", default="", help="part of a topic's name")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of torch_amt
    peer = library("torch_amt")
    result = environment.describe("cpu") | {
        "torch_amt": importlib.metadata.version("torch_amt"),
        "public": sorted(peer.__all__),
        "state dicts": list(state_dicts()),
        "results": [],
    }
    rows = (
        {"topic": name} | difference._asdict()
        for name, measured in TOPICS.items()
        if arguments.only in name
        for difference in measured()
    )
    environment.write_all(result, rows, arguments.out)


if __name__ == "__main__":
    main()
