"""The modules of tamt, each named once: how it is built and what is asked of it.

Benchmarks, growth, limits, the pages and the contract tests take their modules from :data:`MODULES`. A module's loads,
its truth and its errors stand in ``asv_bench/benchmarks/<stem>.py``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import tamt
from asv_bench.benchmarks.common import difference_of_lists, largest_difference, relative_error
from tamt._learnable import Form
from tamt.loudness.meter import LoudnessMeter

Inputs = tuple[Tensor, ...]
Options = Mapping[str, Any]
Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Limit:
    """The largest value a benchmark may have on two CPU cores, for parameters that hold all of ``parameters``."""

    work: str
    benchmark: str
    parameters: tuple[str, ...]
    most: float


@dataclass(frozen=True)
class Row:
    """A line of the table of modules: a load, and the classes that measure forward pass and training step."""

    load: str
    forward: str
    training: str
    key: tuple[str, ...] = ()  # parameters after the type
    case: str = ""  # parameter before the type, where it is not ("cpu", load)

    def parameters(self, dtype: str) -> tuple[str, ...]:
        return (self.case or f"('cpu', '{self.load}')", dtype, *self.key)


@dataclass(frozen=True)
class Growth:
    """A module of any size, over length, batch and channels.

    ``options`` are those of so many channels, ``given`` the inputs of a length, a batch and so many channels.
    """

    options: Callable[[int], Options]
    given: Callable[[int, int, int], Inputs]
    base: Sizes  # of the axes that stay
    start: Sizes  # of the axis that grows
    limit: float = 5e-5  # of the error of float32
    error: Callable[[Any, Any], float] = relative_error
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)  # why (axis, "time" or "memory") grows faster


@dataclass(frozen=True)
class Module:
    """A module of tamt, by its name there, with what is measured and promised of it.

    ``options`` are those of the module that is measured; ``small`` come in their place where a test wants few channels.
    ``variants`` are options of other ways to compute, which the tests hold to the same promises.
    ``make`` builds it of options, ``learnable``, ``device`` and ``dtype`` where its class does not take them. What has
    no parameters is not asked whether it learns, and what has no type not for one.
    ``inputs`` are those of a size, of which 1 is the least, in float32: two signals, spectra or the like along the
    first dimension, which do not know of each other; the frequencies of bins are one for both. ``frames`` says whether
    frames, the dimension before the last, do not know of each other either.
    """

    name: str
    stem: str  # of its benchmarks
    options: Options
    inputs: Callable[[int], Inputs]
    learnable: tuple[str, ...]  # names of its parameters; none for a module that has no state and learns nothing
    growth: Growth
    small: Options = field(default_factory=dict)
    variants: Mapping[str, Options] = field(default_factory=dict)
    make: Callable[..., nn.Module] | None = None
    frames: bool = False
    typed: bool = True  # whether it has a type to compute in, and not that of its input
    compiled_with: str = ""  # another module, whose compilation will do in tests of every run
    complex: bool = False  # whether it computes with complex numbers where its input has none
    limits: tuple[Limit, ...] = ()
    rows: tuple[Row, ...] = ()

    @property
    def kind(self) -> type[nn.Module]:
        return getattr(tamt, self.name)

    @property
    def arguments(self) -> Mapping[str, inspect.Parameter]:
        """What it is built of."""
        return inspect.signature(self.make or self.kind).parameters

    @property
    def streams(self) -> bool:
        """Whether it takes a signal in chunks, and gives a tensor."""
        return hasattr(self.kind, "stream") and not issubclass(self.kind, LoudnessMeter)

    def build(
        self,
        learnable: Form = False,
        device: str | torch.device | None = "cpu",
        dtype: torch.dtype = torch.float32,
        small: bool = False,
        **options: Any,
    ) -> nn.Module:
        """The module, of ``options`` in place of the usual; ``learnable`` and ``dtype`` are for those that have it."""
        given = {**self.options, **(self.small if small else {}), **options}
        form = {"learnable": learnable} if self.learnable else {}
        typed = {"dtype": dtype} if self.typed else {}
        return (self.make or self.kind)(**given, **form, device=device, **typed)


def signal(length: int, *lead: int, level: float = 1.0) -> Tensor:
    """White noise of shape (``lead``, length)."""
    return level * torch.randn(*lead, length, generator=torch.Generator().manual_seed(0))


def spectrum_and_frequencies(frames: int, batch: int = 2) -> Inputs:
    return signal(1025, batch, frames).square(), torch.linspace(0, 16000, 1025)


def components(frames: int) -> Inputs:
    """Frequencies and levels."""
    freqs = torch.linspace(50, 15000, 60).expand(2, frames, 60).contiguous()
    return freqs, 40 + 10 * signal(60, 2, frames)


def burst(size: int, *lead: int) -> Tensor:
    """Noise of 60 dB SPL, and then of 30, in which its loudness decays."""
    sound = signal(2548 + 1024 * size, *lead, level=0.02)
    sound[..., 500:] *= 0.03
    return sound


def excitation(channels: int, *lead: int) -> Tensor:
    """Ratios of 0 to 60 dB."""
    return 10 ** (3 + 1.5 * signal(channels, *lead).clamp(-2, 2))


def at_least(times: float) -> float:
    """As many times faster than the peer, or than real time, as a limit on the tracked time over the other's."""
    return 1 / times


def evenly(channels: int, low: float, high: float) -> Tensor:
    """Frequencies in Hz, evenly on the ERB scale."""
    ends = tamt.fc2erb(torch.tensor([low, high], dtype=torch.float64))
    return tamt.erb2fc(torch.linspace(ends[0], ends[1], channels, dtype=torch.float64))


def erb_step(channels: int) -> float:
    """That of as many bands between 50 Hz and 15 kHz."""
    low, high = tamt.f2erbrate(50.0), tamt.f2erbrate(15000.0)
    return (high - low) / (channels - 1.5)


def of_channels(low: float, high: float, fs: int, channels: int) -> Options:
    return {"fc": evenly(channels, low, high), "fs": fs}


def of_bands(channels: int) -> Options:
    return {"erb_step": erb_step(channels)}


def as_ever(channels: int) -> Options:
    return {}


def filterbank_growth(low: float, high: float, fs: int, level: float, **more: Any) -> Growth:
    return Growth(
        functools.partial(of_channels, low, high, fs),
        lambda length, batch, channels: (signal(length, batch, level=level),),
        {"length": 4000, "batch": 1, "channels": 10},
        {"length": 1000, "batch": 1, "channels": 1},
        **more,
    )


def band_levels(length: int, batch: int, channels: int) -> Inputs:
    return (50 + 15 * signal(length * channels, batch).unflatten(1, (length, channels)),)


def many_components(length: int, batch: int, channels: int) -> Inputs:
    """``channels`` counts the components."""
    freqs = torch.linspace(20, 15000, channels, dtype=torch.float64).expand(batch, length, channels)
    return freqs, 40 + 10 * signal(length * channels, batch).unflatten(1, (length, channels))


def cochleagram(
    bank: str,
    hop_length: int,
    *,
    frame_length: int | None = None,
    detector: str = "envelope",
    compression: str | float | None = None,
    fs: float,
    dtype: torch.dtype,
    **options: Any,
) -> nn.Module:
    """The cochleagram of a bank of such a class, by its name, and of such options."""
    filters = getattr(tamt, bank)(fs=fs, dtype=dtype, **options)
    return tamt.Cochleagram(filters, hop_length, frame_length, detector, compression)


PAGES = (
    "outputs of more than 32 MiB lie in fresh pages at every call, as glibc gives blocks so large back to the system, "
    "and the first touch of a page takes longer than the work. With `MALLOC_MMAP_THRESHOLD_` and "
    "`MALLOC_TRIM_THRESHOLD_` set high, growth is in proportion (`MultiResolutionFFT`, batch of 1000: 133 ms, not 240)."
)
POINTWISE = (
    "a dozen operations of torch on every number, whose temporaries come to be larger than the caches, and then than "
    "the blocks that glibc keeps."
)
DRNL = {"fc": (250, 8000), "fs": 44100}
FEW = [300.0, 1000.0]  # Hz

SPECIFIC_GROWTH = Growth(
    lambda channels: {"fc": torch.linspace(50, 15000, channels)},
    lambda length, batch, channels: (excitation(channels, batch, length),),
    {"length": 10, "batch": 1, "channels": 150},
    {"length": 10, "batch": 1, "channels": 15},
    reasons={
        ("length", "time"): POINTWISE,
        ("batch", "time"): POINTWISE,
        ("channels", "memory"): "a few MiB, of which the allocator's own blocks are a part.",
    },
)
MODEL_STEPS = ("attack", "release")
MODEL_NUMBERS = ("C", "A", "alpha", "threshold")
MOORE2016_LEARNS = (
    "front.pattern.level_dep_factor",
    *(f"specific.{name}" for name in MODEL_NUMBERS),
    *(f"short_term.{name}" for name in MODEL_STEPS),
    "inhibition.B",
    "inhibition.theta",
    *(f"long_term.{name}" for name in MODEL_STEPS),
)
GLASBERG2002_LEARNS = tuple(name for name in MOORE2016_LEARNS if not name.startswith("inhibition"))
MODEL_GROWTH = {"length": 3200, "batch": 1, "channels": 0}, {"length": 3200, "batch": 1}

_MODULES = (
    Module(
        "GammatoneFilterbank",
        "gammatone",
        {"fc": (100, 7900), "fs": 16000},
        lambda size: (signal(100 * size, 2),),
        ("poles", "gains"),
        filterbank_growth(100, 7000, 16000, 1.0, reasons={("length", "time"): PAGES, ("batch", "time"): PAGES}),
        small={"fc": FEW},
        variants={"poly": {"implementation": "poly"}},
        limits=(
            Limit(
                "gammatone, 2 x 1 s x 30, float32: time over scipy.signal.sosfilt",
                "gammatone.GammatoneAgainstScipy.track_time_over_sosfilt",
                ("2 x 1 s x 30", "float32"),
                at_least(6),
            ),
            Limit(
                "the same, float64",
                "gammatone.GammatoneAgainstScipy.track_time_over_sosfilt",
                ("2 x 1 s x 30", "float64"),
                at_least(4),
            ),
            Limit(
                "1 x 10 s x 30, float32: time over scipy.signal.sosfilt",
                "gammatone.GammatoneAgainstScipy.track_time_over_sosfilt",
                ("1 x 10 s x 30", "float32"),
                at_least(6),
            ),
            Limit(
                "the same, float64",
                "gammatone.GammatoneAgainstScipy.track_time_over_sosfilt",
                ("1 x 10 s x 30", "float64"),
                at_least(4),
            ),
            Limit(
                "2 x 1 s x 30, float32: time over scipy.signal.lfilter",
                "gammatone.GammatoneAgainstScipy.track_time_over_lfilter",
                ("2 x 1 s x 30", "float32"),
                at_least(12),
            ),
            Limit(
                "the same, learnable: training step over forward",
                "gammatone.GammatoneTraining.track_training_over_forward",
                ("2 x 1 s x 30", "float32"),
                5,
            ),
            Limit(
                "the same, relative parameters: training step over that of poles and gains",
                "gammatone.GammatoneRelative.track_relative_over_direct",
                ("2 x 1 s x 30", "float32"),
                1.15,
            ),
            Limit("10 s over ten times 1 s", "gammatone.GammatoneGrowth.track_growth_with_length", (), 1.15),
            Limit("8 x 10 s: peak memory in outputs", "gammatone.GammatoneGrowth.track_peak_memory_8_x_10_s", (), 4),
            Limit(
                "16 x 4 s x 64, training step with a mean square: peak memory in outputs",
                "gammatone.GammatoneTrainingMemory.track_peak_memory_mean_square",
                ("float32",),
                5.25,
            ),
            Limit(
                "the same: backward pass beyond signal, output and its gradient, in outputs",
                "gammatone.GammatoneTrainingMemory.track_peak_memory_backward",
                ("float32",),
                0.4,
            ),
            Limit("float32 error, 20 Hz to 4 kHz", "gammatone.GammatoneAccuracy.track_float32_error", (), 5e-6),
        ),
        rows=(
            Row("2 x 1 s x 30", "gammatone.Gammatone", "gammatone.GammatoneTraining"),
            Row("1 x 10 s x 30", "gammatone.Gammatone", "gammatone.GammatoneTraining"),
        ),
    ),
    Module(
        "Cochleagram",
        "cochleagram",
        {"bank": "GammatoneFilterbank", "fc": (100, 7900), "fs": 16000, "hop_length": 160},
        lambda size: (signal(100 * size, 2, level=1e-3),),
        ("bank.poles", "bank.gains"),
        filterbank_growth(100, 7000, 16000, 1.0),
        small={"fc": FEW, "hop_length": 7},
        variants={
            "power over three hops": {"detector": "power", "frame_length": 21},
            "poly, halves in dB": {"implementation": "poly", "detector": "halfwave", "compression": "db"},
            "of DRNL, power law": {"bank": "DRNLFilterbank", "detector": "power", "compression": 0.3},
            "of FastDRNL": {"bank": "FastDRNLFilterbank", "ir_length": 512, "detector": "power", "frame_length": 14},
        },
        make=cochleagram,
        limits=(
            Limit(
                "cochleagram, power, 8 x 10 s x 64, hop 160, float32: time over the composition",
                "cochleagram.AgainstComposition.track_time_over_composition",
                ("gammatone, 8 x 10 s",),
                at_least(1.7),
            ),
            Limit(
                "the same: training step over the composition's",
                "cochleagram.TrainingAgainstComposition.track_training_over_composition",
                ("gammatone, 8 x 10 s",),
                at_least(1.5),
            ),
            Limit(
                "the same: envelope over power",
                "cochleagram.EnvelopeOverPower.track_envelope_over_power",
                ("8 x 10 s", "float32"),
                1.7,
            ),
            Limit(
                "the same, any detector: peak memory beside input and result, MiB",
                "cochleagram.Frames.track_peak_memory",
                ("8 x 10 s", "float32"),
                64,
            ),
            Limit(
                "the same, training step: peak memory beside gradients, MiB",
                "cochleagram.FramesTraining.track_peak_memory_of_training_step",
                ("8 x 10 s", "float32"),
                128,
            ),
            Limit(
                "the same: 100 s and 1000 s over as many times 1 s",
                "cochleagram.FramesGrowth.track_growth_with_length",
                (),
                1.1,
            ),
        ),
        rows=tuple(
            Row(load, "cochleagram.Frames", "cochleagram.FramesTraining", ("power",))
            for load in ("2 x 1 s", "8 x 10 s")
        ),
    ),
    Module(
        "DRNLFilterbank",
        "drnl",
        DRNL,
        lambda size: (signal(100 * size, 2, level=1e-3),),
        ("CF_lin", "BW_lin", "g", "CF_nlin", "BW_nlin", "a", "b", "c"),
        filterbank_growth(250, 8000, 44100, 1e-3),
        small={"fc": FEW},
        limits=(
            Limit(
                "DRNL, 1 x 1 s, float64: time over scipy.signal.sosfilt",
                "drnl.DRNLAgainstScipy.track_time_over_scipy",
                ("1 x 1 s", "float64", "drnl"),
                at_least(1.5),
            ),
            Limit(
                "DRNL, 8 x 1 s, float32: time over scipy.signal.sosfilt",
                "drnl.DRNLAgainstScipy.track_time_over_scipy",
                ("8 x 1 s", "float32", "drnl"),
                at_least(2.5),
            ),
            Limit(
                "DRNL, learnable: training step over a fixed forward",
                "drnl.DRNLTraining.track_training_over_forward",
                ("drnl",),
                6,
            ),
            Limit("design of 50 learnable DRNL channels, s", "drnl.DRNLDesign.track_design_beside_forward", (), 5e-3),
        ),
        rows=(
            Row("1 x 1 s", "drnl.DRNL", "drnl.DRNLTraining", ("drnl",)),
            Row("8 x 1 s", "drnl.DRNL", "drnl.DRNLTraining", ("drnl",)),
        ),
    ),
    Module(
        "FastDRNLFilterbank",
        "drnl",
        DRNL,
        lambda size: (signal(100 * size, 2, level=1e-3),),
        ("a", "b", "c"),
        filterbank_growth(250, 8000, 44100, 1e-3),
        small={"fc": FEW, "ir_length": 512},
        complex=True,
        limits=(
            Limit(
                "FastDRNL, 0.5 s, float64: time over real time",
                "fft_drnl.FftDrnl.track_time_over_real_time",
                ("float64",),
                at_least(5),
            ),
            Limit(
                "FastDRNL, memory beyond the output, 60 s over 10 s",
                "fft_drnl.FftDrnlGrowth.track_memory_60_s_over_10_s",
                (),
                1.2,
            ),
        ),
        rows=(Row("1 x 1 s", "drnl.DRNL", "drnl.DRNLTraining", ("fast-drnl",)),),
    ),
    Module(
        "OuterMiddleEar",
        "outer_middle_ear",
        {},
        lambda size: (signal(100 * size, 2),),
        (),
        Growth(
            as_ever,
            lambda length, batch, channels: (signal(length, batch),),
            {"length": 8000, "batch": 1, "channels": 0},
            {"length": 8000, "batch": 1},
            reasons={("length", "time"): PAGES, ("batch", "time"): PAGES},
        ),
        small={"fs": 1000},
        variants={"diffuse field": {"field": "diffuse"}},
        complex=True,
        limits=(
            Limit(
                "OuterMiddleEar, stereo 1 s, float32: time over real time",
                "outer_middle_ear.Ear.track_time_over_real_time",
                ("stereo 1 s", "float32"),
                at_least(250),
            ),
            Limit(
                "the same: time over scipy.signal.oaconvolve",
                "outer_middle_ear.EarAgainstScipy.track_time_over_scipy",
                ("stereo 1 s", "float32"),
                1,
            ),
            Limit(
                "the same: training step over forward",
                "outer_middle_ear.Ear.track_training_over_forward",
                ("stereo 1 s", "float32"),
                4,
            ),
        ),
        rows=(Row("stereo 1 s", "outer_middle_ear.Ear", "outer_middle_ear.Ear"),),
    ),
    Module(
        "MultiResolutionFFT",
        "multi_resolution_fft",
        {},
        lambda size: (signal(2000 + 100 * size, 2),),
        ("freq_thresholds",),
        Growth(
            as_ever,
            lambda length, batch, channels: (signal(length, batch),),
            {"length": 8000, "batch": 1, "channels": 0},
            {"length": 3200, "batch": 1},
            error=lambda actual, expected: relative_error(actual[0], expected[0]),
            reasons={("batch", "time"): PAGES},
        ),
        typed=False,
        small={"window_lengths": [512, 64], "freq_thresholds": [2113.0]},
        variants={"hops that do not divide": {"hop_fraction": 0.3}},
        limits=(
            Limit(
                "MultiResolutionFFT, 8 x 1 s, float32: time over real time",
                "multi_resolution_fft.MultiResolution.track_time_over_real_time",
                ("8 x 1 s", "float32", "fixed"),
                at_least(700),
            ),
            Limit(
                "MultiResolutionFFT: training step over forward",
                "multi_resolution_fft.MultiResolutionTraining.track_training_over_forward",
                ("float32",),
                4,
            ),
        ),
        rows=(
            Row(
                "8 x 1 s",
                "multi_resolution_fft.MultiResolution",
                "multi_resolution_fft.MultiResolutionTraining",
                ("fixed",),
            ),
        ),
    ),
    Module(
        "Moore2016Spectrum",
        "moore2016_spectrum",
        {"max_components": 960},
        lambda size: (signal(2100 + 100 * size, 2, 2, level=0.02),),
        ("freq_limits", "threshold_max_minus", "threshold_absolute"),
        Growth(
            lambda channels: {"segment_duration": 10},
            lambda length, batch, channels: (signal(length, 2 * batch, level=0.02).unflatten(0, (batch, 2)),),
            {"length": 4000, "batch": 1, "channels": 0},
            {"length": 3200, "batch": 1},
            limit=0.05,
            error=difference_of_lists,
            reasons={("length", "time"): PAGES, ("batch", "time"): PAGES},
        ),
        variants={"joint threshold": {"joint_threshold": True}},
        limits=(
            Limit(
                "Moore2016Spectrum, stereo 1 s, float32: time over real time",
                "moore2016_spectrum.Spectrum.track_time_over_real_time",
                ("'stereo 1 s'", "float32"),
                at_least(40),
            ),
            Limit(
                "the same: peak memory beside input and output, MiB",
                "moore2016_spectrum.Spectrum.track_peak_memory",
                ("'stereo 1 s'", "float32"),
                40,
            ),
            Limit(
                "the same: training step over forward",
                "moore2016_spectrum.Spectrum.track_training_over_forward",
                ("'stereo 1 s'", "float32"),
                4,
            ),
        ),
        rows=(Row("stereo 1 s", "moore2016_spectrum.Spectrum", "moore2016_spectrum.Spectrum", ("960",)),),
    ),
    Module(
        "ERBIntegration",
        "erb_integration",
        {},
        spectrum_and_frequencies,
        ("integration_weights", "bandwidth_scale"),
        Growth(
            of_bands,
            lambda length, batch, channels: spectrum_and_frequencies(length, batch),
            {"length": 10, "batch": 1, "channels": 150},
            {"length": 10, "batch": 1, "channels": 5},
            limit=1e-3,
            error=largest_difference,
        ),
        typed=False,
        frames=True,
        limits=(
            Limit(
                "ERBIntegration, 8 x 32 spectra, float32, s",
                "erb_integration.ERBBands.time_forward",
                ("8 x 32", "float32", "fixed"),
                1e-3,
            ),
            Limit(
                "ERBIntegration: training step over forward",
                "erb_integration.ERBBandsTraining.track_training_over_forward",
                ("float32",),
                4,
            ),
        ),
        rows=(Row("8 x 32", "erb_integration.ERBBands", "erb_integration.ERBBandsTraining", ("fixed",)),),
    ),
    Module(
        "ExcitationPattern",
        "spreading",
        {},
        lambda size: (50 + 15 * signal(150, 2, size),),
        ("upper_slope_base", "lower_slope_base", "upper_slope_per_db", "lower_slope_per_db"),
        Growth(  # rounding decides whether a term 50 dB down counts
            of_bands,
            band_levels,
            {"length": 10, "batch": 1, "channels": 150},
            {"length": 10, "batch": 1, "channels": 5},
            limit=0.1,
            error=largest_difference,
            reasons={
                ("channels", "time"): "more bands in the same range stand closer, so that more of them lie within the "
                "5 ERB over which a band spreads: the work is the product of both, as the definition has it."
            },
        ),
        typed=False,
        frames=True,
        limits=(
            Limit(
                "ExcitationPattern, 2 x 32 frames, float32, s",
                "spreading.Spreading.time_forward",
                ("2 x 32", "float32"),
                1e-3,
            ),
            Limit(
                "four times the frames: time over four times",
                "spreading.SpreadingGrowth.track_growth",
                ("float32",),
                1.2,
            ),
            Limit(
                "16 x 1000 frames: peak memory in inputs",
                "spreading.Spreading.track_peak_memory",
                ("16 x 1000", "float32"),
                8,
            ),
            Limit(
                "ExcitationPattern: training step over forward",
                "spreading.SpreadingTraining.track_training_over_forward",
                ("float32",),
                5,
            ),
        ),
        rows=(Row("2 x 32", "spreading.Spreading", "spreading.SpreadingTraining"),),
    ),
    Module(
        "Moore2016ExcitationPattern",
        "roex",
        {},
        components,
        ("level_dep_factor",),
        Growth(
            as_ever,
            many_components,
            {"length": 1, "batch": 1, "channels": 300},
            {"length": 1, "batch": 1, "channels": 2},
            limit=1e-3,
            error=largest_difference,
            reasons={
                ("channels", "time"): "the level per ERB at a component sums over all components around it: pairs, as "
                "the definition has it."
            },
        ),
        frames=True,
        limits=(
            Limit(
                "Moore2016ExcitationPattern, float32: time over real time, frames of 1 ms",
                "roex.Roex.track_time_over_real_time",
                ("float32",),
                at_least(0.7),
            ),
            Limit("the same: peak memory, MB", "roex.Roex.track_peak_memory", ("float32",), 100),
            Limit(
                "the same: training step over forward", "roex.RoexTraining.track_training_over_forward", ("float32",), 5
            ),
            Limit(
                "Moore2016ExcitationPattern.excitation, float32: time over real time, stereo frames of 1 ms with all "
                "bins",
                "roex.RoexStereo.track_time_over_real_time",
                ("float32",),
                at_least(6),
            ),
            Limit("the same: peak memory, MB", "roex.RoexStereo.track_peak_memory", ("float32",), 40),
            Limit(
                "the same: training step over forward",
                "roex.RoexStereoTraining.track_training_over_forward",
                ("float32",),
                4,
            ),
        ),
        rows=tuple(
            Row(f"100 frames, {kind}", "roex.Roex", "roex.RoexTraining", (kind,), "cpu") for kind in ("grid", "any")
        ),
    ),
    Module(
        "AttackRelease",
        "recurrence",
        {"attack": 0.045, "release": 0.033},
        lambda size: (signal(100 * size, 2),),
        ("attack", "release"),
        Growth(
            as_ever,
            lambda length, batch, channels: (signal(length, batch).square(),),
            {"length": 4000, "batch": 1, "channels": 0},
            {"length": 1000, "batch": 1},
        ),
        variants={"a slow attack": {"attack": 0.02, "release": 0.3}},
        compiled_with="Moore2016Loudness",
        limits=(
            Limit(
                "AttackRelease, 2 x 10 s at 1 ms x 150, float32, s",
                "recurrence.AttackRelease.time_forward",
                ("2 x 10000 x 150", "float32", "fast"),
                25e-3,
            ),
            Limit(
                "the same, learnable: training step over forward",
                "recurrence.AttackReleaseTraining.track_training_over_forward",
                ("2 x 10000 x 150", "float32", "fast"),
                4,
            ),
        ),
        rows=(Row("2 x 10000 x 150", "recurrence.AttackRelease", "recurrence.AttackReleaseTraining", ("fast",)),),
    ),
    Module(
        "Moore2016SpecificLoudness",
        "loudness",
        {},
        lambda size: (excitation(150, 2, size),),
        MODEL_NUMBERS,
        SPECIFIC_GROWTH,
        frames=True,
        compiled_with="Moore2016Loudness",
        rows=(Row("2 x 1000", "loudness.Stage", "loudness.Stage", ("specific loudness",)),),
    ),
    Module(
        "Glasberg2002SpecificLoudness",
        "loudness",
        {},
        lambda size: (excitation(150, 2, size),),
        MODEL_NUMBERS,
        SPECIFIC_GROWTH,
        frames=True,
        compiled_with="Moore2016Loudness",
    ),
    Module(
        "BinauralInhibition",
        "loudness",
        {},
        lambda size: (signal(150, 2, 2, 16 * size).square(),),
        ("B", "theta"),
        Growth(
            as_ever,
            lambda length, batch, channels: (signal(channels, batch, 2, length).square(),),
            {"length": 10, "batch": 1, "channels": 150},
            {"length": 10, "batch": 1, "channels": 15},
            reasons={
                ("channels", "time"): "every channel inhibits all within 18 Cam: pairs, as the definition has it.",
                ("channels", "memory"): "the matrix of weights between channels.",
                ("length", "memory"): POINTWISE,
            },
        ),
        compiled_with="Moore2016Loudness",
        rows=(Row("2 x 1000", "loudness.Stage", "loudness.Stage", ("inhibition",)),),
    ),
    Module(
        "Moore2016Loudness",
        "loudness",
        {},
        lambda size: (burst(size, 2, 2),),
        MOORE2016_LEARNS,
        Growth(
            lambda channels: {"hop": 10},
            lambda length, batch, channels: (signal(length, 2 * batch, level=0.02).unflatten(0, (batch, 2)),),
            *MODEL_GROWTH,
            limit=2e-4,
            error=lambda actual, expected: relative_error(actual.specific.mT, expected.specific.mT),
        ),
        small={"hop": 32},
        complex=True,
        limits=(
            Limit(
                "Moore2016Loudness, stereo 1 s, frames of 1 ms, float32: time over real time",
                "loudness.Loudness.track_time_over_real_time",
                ("stereo 1 s", "float32", "moore2016", "1"),
                at_least(1.5),
            ),
            Limit(
                "the same, frames of 10 ms",
                "loudness.Loudness.track_time_over_real_time",
                ("stereo 1 s", "float32", "moore2016", "10"),
                at_least(12),
            ),
            Limit(
                "the same, frames of 1 ms, learnable: training step over forward",
                "loudness.LearnableLoudness.track_training_over_forward",
                ("stereo 1 s", "float32", "moore2016", "1"),
                4,
            ),
            Limit(
                "stereo 60 s, frames of 1 ms: peak memory beside the results, MiB",
                "loudness.LoudnessMemory.track_peak_memory",
                ("stereo 60 s", "float32", "moore2016", "1"),
                64,
            ),
        ),
        rows=tuple(
            Row(
                f"stereo 1 s, frames of {hop} ms",
                "loudness.Loudness",
                "loudness.Loudness",
                ("moore2016", hop),
                "('cpu', 'stereo 1 s')",
            )
            for hop in ("1", "10")
        ),
    ),
    Module(
        "Glasberg2002Loudness",
        "loudness",
        {},
        lambda size: (burst(size, 2),),
        GLASBERG2002_LEARNS,
        Growth(
            lambda channels: {"hop": 10},
            lambda length, batch, channels: (signal(length, batch, level=0.02),),
            *MODEL_GROWTH,
            limit=2e-4,
            error=lambda actual, expected: relative_error(actual.specific.mT, expected.specific.mT),
        ),
        small={"hop": 32},
        complex=True,
        compiled_with="Moore2016Loudness",
        variants={"documents": {"front_end": "documents", "hop": 32}},
        rows=tuple(
            Row(f"1 s, {name}", "loudness.Loudness", "loudness.Loudness", key, "('cpu', 'stereo 1 s')")
            for name, key in {
                "frames of 1 ms": ("glasberg2002", "1"),
                "frames of 10 ms": ("glasberg2002", "10"),
                "documents": ("documents", "1"),
            }.items()
        ),
    ),
)

MODULES = {module.name: module for module in _MODULES}
