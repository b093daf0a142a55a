"""The command ``tamt``: a demonstration, the analysis of sound files, and a report on the installation.

Everything but ``tamt info`` needs the extras ``audio`` and ``plot``: ``pip install 'tamt[audio,plot]'``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from . import __version__, plot
from ._module import erb_spaced
from .drnl import MODELS, SUBJECTS, DRNLFilterbank, FastDRNLFilterbank
from .excitation import REFERENCE_PRESSURE, ERBIntegration, ExcitationPattern, Moore2016ExcitationPattern
from .gammatone import GammatoneFilterbank
from .multiresolution import MultiResolutionFFT
from .ops._register import backend
from .scales import erbspacebw
from .spectrum import FRAME as MOORE2016_FRAME
from .spectrum import FS as SPECTRUM_FS
from .spectrum import Moore2016Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from soundfile import SoundFile

# Numbers of output or intermediate results held at once while a file is analysed: this bounds memory whatever the
# file's length.
_BLOCK_ELEMENTS = 4_000_000
# A picture of more sound channels than this would be too tall to look at.
_MOST_PANELS = 4
# Peak velocity of the stapes in m/s for a tone of 1 kHz at 0 dB SPL: 4.24e-4 m/s per Pa, the gain there of AMT's
# middleearfilter, whose ground are the measurements of Goode et al., Am. J. Otol. 15, 145-154, 1994.
_STAPES_AT_0_DB = 1.2e-8
SPECTRA = ("multires", "moore2016")
EXCITATIONS = ("glasberg2002", "moore2016")

_NPZ_CONTENTS = """\
Each sound file NAME.EXT gives NAME.png and NAME.npz (NAME-2 and so on where several inputs share a name). The .npz
file of a filterbank holds, for C sound channels, F filters and N frames:
  fc         (F,)       centre frequencies in Hz
  times      (N,)       middle of each frame in seconds
  rms        (C, F, N)  root mean square of each filter's output in each frame; of a DRNL in m/s, else re full scale
  full_scale ()         what full scale was to the filters: of a DRNL a stapes velocity in m/s, else 1
  fs         ()         sampling rate of the analysis in Hz
  source_fs  ()         sampling rate of the file in Hz
  frame      ()         samples per frame (the last frame may have fewer)
  source, filterbank    name of the sound file and of the filterbank
  subject, model        of a DRNL only: the names that the options gave

That of a spectrum or an excitation pattern has times, fs, source_fs and source likewise, and:
  levels (C, N, F), fc (F,)      in dB SPL: of --spectrum multires in bands as wide as the auditory filters (four per
                                 ERB, so they overlap); of --excitation the excitation
  psd (C, N, B), freqs (B,)      of --spectrum multires: power spectral density in Pa^2/Hz, frequencies in Hz
  freqs, levels (C, N, K)        of --spectrum moore2016: each frame's components in Hz and dB SPL, then 0 and 0
  hop ()                         samples from one frame to the next
  full_scale_db ()               dB SPL of a full-scale sine
  spectrum or excitation         the name that the option gave
"""

_SPECTRUM_NOTE = """\
--spectrum and --excitation take the place of the filterbank. They work at 32 kHz, to which files of other rates are
resampled as by --fs, and on sound pressure: --full-scale-db says how loud a file was. multires and glasberg2002
(MultiResolutionFFT, ERBIntegration, ExcitationPattern) give a frame every 32 ms; moore2016 (Moore2016Spectrum,
Moore2016ExcitationPattern) gives one per --frame, in whole milliseconds (the model itself takes 0.001). moore2016 has
two ears, and a mono file goes to both; as they are then alike, C is 1. The sound is analysed piece by piece, but its
results are in memory until they are written: a minute of one channel takes 9 MB with multires, and with moore2016 and
frames of 10 ms up to 46 MB where it is full of components, as noise is.
"""

_DRNL_NOTE = """\
drnl and fast-drnl filter the velocity of the stapes, and they compress: levels matter. A file does not know how loud
it was; --full-scale-db says it. tamt has no middle ear: all frequencies get the gain that it has at 1 kHz, where a
tone of 100 dB SPL moves the stapes with a peak velocity of 1.2e-3 m/s (Goode et al. 1994, as in AMT). A real one
passes less far from there: 7 dB less at 2 kHz, 15 dB less at 4 kHz.
"""


class Streaming(Protocol):
    """What a filterbank needs for ``tamt analyze``."""

    def stream(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Filter the next piece of a sound."""


class Filterbank(NamedTuple):
    """What ``--filterbank`` can name."""

    kind: Callable[..., Streaming]
    flow: float  # default of --flow in Hz
    channels: int  # default of --channels
    takes_velocity: bool  # of the stapes in m/s, and has the options of a DRNL; else sound, full scale being 1


FILTERBANKS = {
    "drnl": Filterbank(DRNLFilterbank, 250.0, 50, True),
    "fast-drnl": Filterbank(FastDRNLFilterbank, 250.0, 50, True),
    "gammatone": Filterbank(GammatoneFilterbank, 80.0, 64, False),
}


def _options() -> dict[str, dict[str, Any]]:
    """What ``tamt analyze`` can do, the options that it has for each, and their defaults."""
    options: dict[str, dict[str, Any]] = {}
    for name, chosen in sorted(FILTERBANKS.items()):
        options[name] = {"flow": chosen.flow, "fhigh": None, "channels": chosen.channels, "fs": None, "frame": 0.01}
        if chosen.takes_velocity:
            options[name] |= {"subject": "NH", "model": "paulick2024", "full_scale_db": 100.0}
    for kind, names in (("--spectrum", SPECTRA), ("--excitation", EXCITATIONS)):
        for name in names:
            options[f"{kind} {name}"] = {"full_scale_db": 100.0}
            if name == "moore2016":
                options[f"{kind} {name}"]["frame"] = 0.01
    return options


_OPTIONS = _options()


class Design(NamedTuple):
    """A filterbank for one sampling rate."""

    fc: Tensor  # centre frequencies in Hz, (F,)
    bank: Streaming
    full_scale: float  # what a sample of 1 is to the filterbank


class CommandError(Exception):
    """Something that the user can put right; the message says what."""


class Analysis(NamedTuple):
    """What is kept of a sound: frames of the output of a filterbank."""

    fc: NDArray  # centre frequencies in Hz, (F,)
    times: NDArray  # middle of each frame in s, (N,)
    rms: NDArray  # root mean square of each filter's output in each frame, (C, F, N)
    low: NDArray  # lowest sample of the sound in each frame, (C, N)
    high: NDArray  # highest sample, likewise
    fs: float  # sampling rate in Hz
    source_fs: int  # sampling rate of the file in Hz
    frame: int  # samples per frame
    seconds: float  # duration of the sound


class Spectra(NamedTuple):
    """What is kept of a sound: frames of a spectrum or of an excitation pattern."""

    arrays: dict[str, NDArray]  # as in the .npz file
    times: NDArray  # middle of each frame in s, (N,)
    hop: int  # samples from one frame to the next
    samples: int  # of the sound, at SPECTRUM_FS
    peak: float  # the largest magnitude of a sample


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, or 1 if something could not be done. Wrong arguments exit with status 2.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except CommandError as error:
        print(f"tamt: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tamt", description="Auditory filterbanks: demonstration and sound analysis.")
    parser.add_argument("--version", action="version", version=f"tamt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="filter a synthetic vowel sequence and draw pictures of it",
        description="Synthesise a sequence of vowels, write it as a WAV file, filter it and draw pictures of it.",
    )
    demo.add_argument("--out", type=Path, default=Path("tamt-demo"), metavar="DIR", help="folder (default: tamt-demo)")
    demo.set_defaults(command=_demo)

    analyze = commands.add_parser(
        "analyze",
        help="filter sound files; write the levels as numbers and pictures",
        description="Filter sound files, or take their spectra or excitation patterns, and write what comes out as\n"
        "numbers and as a picture.",
        epilog=f"{_NPZ_CONTENTS}\n{_DRNL_NOTE}\n{_SPECTRUM_NOTE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = analyze.add_argument
    option("files", nargs="+", type=Path, metavar="FILE", help="sound file of any kind that soundfile reads")
    # No default here: argparse would then let it pass beside one of the others.
    kind = analyze.add_mutually_exclusive_group().add_argument
    kind("--filterbank", choices=sorted(FILTERBANKS), help="default: gammatone")
    kind("--spectrum", choices=SPECTRA, help="the spectrum of a loudness model instead, see below")
    kind("--excitation", choices=EXCITATIONS, help="the excitation pattern of a loudness model instead, see below")
    option("--subject", choices=SUBJECTS, help="of a DRNL: hearing normal or without the active part (default: NH)")
    option("--model", choices=tuple(MODELS), help="of a DRNL: orders of its filters (default: paulick2024)")
    option(
        "--full-scale-db",
        type=_sound_level,
        metavar="DB",
        help="for all but gammatone: dB SPL of a full-scale sine, 0 to 200, see below (default: 100)",
    )
    option("--out", type=Path, required=True, metavar="DIR", help="folder for the results; made if there is none")
    option(
        "--fs", type=_positive, metavar="HZ", help="of a filterbank: resample to this rate (default: the file's own)"
    )
    option("--flow", type=_positive, metavar="HZ", help="of a filterbank: lowest centre (default: 80, of a DRNL 250)")
    option(
        "--fhigh",
        type=_positive,
        metavar="HZ",
        help="likewise highest (default: 8000, or 0.45 times the rate if lower)",
    )
    option("--channels", type=_count, metavar="N", help="likewise number, even in ERB (default: 64, of a DRNL 50)")
    option(
        "--frame",
        type=_frame,
        metavar="S",
        help="of a filterbank or moore2016: seconds per frame, at most 1 (default: 0.01)",
    )
    option("--device", type=_device, default=torch.device("cpu"), help="torch device, such as cuda (default: cpu)")
    analyze.set_defaults(command=_analyze)

    info = commands.add_parser(
        "info", help="print versions and devices", description="Print versions, devices and the backend of each device."
    )
    info.set_defaults(command=_info)
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} has to be a finite number greater than 0")
    return value


def _frame(text: str) -> float:
    value = _positive(text)
    if value > 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} has to be at most 1 second")
    return value


def _sound_level(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 200.0:
        raise argparse.ArgumentTypeError(f"{text!r} has to be a level from 0 to 200 dB SPL")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} has to be a whole number of at least 1")
    return int(text)


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {reason}") from error
    return device


def _demo(arguments: argparse.Namespace) -> int:
    _require("soundfile", "matplotlib")
    import soundfile

    fs = 16000
    vowels = _vowels(fs)
    fc = _centre_frequencies(80.0, 7000.0, 96, fs)
    gammatone = Design(fc, GammatoneFilterbank(fc, fs), 1.0)
    fc = _centre_frequencies(250.0, 7000.0, 96, fs)
    # As loud as people talk: the vowels' root mean square is that of a sine of 65 dB SPL.
    full_scale = _stapes_velocity(65.0) / math.sqrt(2 * np.square(vowels).mean())
    drnl = Design(fc, DRNLFilterbank(fc, fs, dtype=torch.float32), full_scale)

    out = _made_folder(arguments.out)
    results = {
        "sound": out / "vowels.wav",
        "filters": out / "filters.png",
        "cochleagram": out / "cochleagram.png",
        "DRNL": out / "drnl_cochleagram.png",
        "DRNL levels": out / "drnl_io.png",
    }
    with _replacing(*results.values()) as (wav, responses, gammatone_picture, drnl_picture, curves):
        soundfile.write(wav, vowels, fs, format="WAV", subtype="PCM_16")
        few = GammatoneFilterbank(erbspacebw(80, 6500), fs)
        frequencies = torch.logspace(math.log10(40.0), math.log10(fs / 2), 2000)
        plot.filter_responses(
            frequencies,
            few.frequency_response(frequencies),
            few.fc,
            title=f"{few.num_channels} gammatone filters, one per ERB",
        ).savefig(responses, format="png")
        title = "A sequence of vowels through 96 gammatone filters"
        _draw_demo(wav, gammatone, gammatone_picture, title, "full scale")
        _draw_demo(wav, drnl, drnl_picture, "The same vowels at 65 dB SPL through 96 DRNL filters", "1 m/s")
        four = DRNLFilterbank([500.0, 1000.0, 2000.0, 4000.0], 44100)
        levels = torch.arange(-180.0, -19.0, 2.0)
        plot.io_functions(
            levels, four.io_function(levels), four.fc, title="Four DRNL filters, each for tones at its own frequency"
        ).savefig(curves, format="png")

    for name, path in results.items():
        print(f"{name:<16}{path}")
    duration = len(vowels) / fs
    for name, design in {"gammatone": gammatone, "DRNL": drnl}.items():
        signal = torch.from_numpy(design.full_scale * vowels).float()
        took = _time_of(partial(design.bank.stream, signal))
        print(
            f"{'speed':<16}{duration:.2f} s of sound through {len(design.fc)} {name} filters in {1e3 * took:.1f} ms: "
            f"{duration / took:.1f} times faster than real time"
        )
    return 0


def _draw_demo(wav: Path, design: Design, picture: Path, title: str, reference: str) -> None:
    analysis = _analysis(wav, lambda rate: design, frame=0.004)
    plot.cochleagram(
        analysis.rms[0],
        analysis.times,
        analysis.fc,
        waveform=(analysis.low, analysis.high),
        title=title,
        reference=reference,
    ).savefig(picture, format="png")


@torch.no_grad()
def _time_of(work: Callable[[], Any], repetitions: int = 3) -> float:
    """Give the seconds that the fastest of a few calls took; one call before them warms up."""
    work()
    durations = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return min(durations)


def _analyze(arguments: argparse.Namespace) -> int:
    _require("soundfile", "soxr", "matplotlib", "tqdm")
    from tqdm import tqdm

    _settle(arguments)
    analyze_file = _filter_file if arguments.analysis in FILTERBANKS else _spectra_file
    out = _made_folder(arguments.out)
    failed = 0
    names = _result_names(arguments.files)
    for path, name in zip(tqdm(arguments.files, unit="file", disable=None), names, strict=True):
        try:
            start = time.perf_counter()
            seconds = analyze_file(path, out / f"{name}.npz", out / f"{name}.png", arguments)
            duration = time.perf_counter() - start
        except (CommandError, OSError) as error:
            failed += 1
            tqdm.write(f"tamt: {path}: {error}", file=sys.stderr)
        else:
            took = f"{seconds:.2f} s of sound in {duration:.2f} s"
            tqdm.write(f"{path}: {took}: {out / name}.npz, {out / name}.png")
    if failed:
        print(f"tamt: {failed} of {len(names)} files could not be analysed", file=sys.stderr)
    return 1 if failed else 0


def _settle(arguments: argparse.Namespace) -> None:
    """Say in ``arguments.analysis`` what to do, put in its defaults, and refuse options that it does not have."""
    if arguments.spectrum:
        arguments.analysis = f"--spectrum {arguments.spectrum}"
    elif arguments.excitation:
        arguments.analysis = f"--excitation {arguments.excitation}"
    else:
        arguments.analysis = arguments.filterbank or "gammatone"
    own = _OPTIONS[arguments.analysis]
    for name in dict.fromkeys(name for options in _OPTIONS.values() for name in options):
        if getattr(arguments, name) is None:
            setattr(arguments, name, own.get(name))
        elif name not in own:
            *most, last = (analysis for analysis, options in _OPTIONS.items() if name in options)
            raise CommandError(
                f"--{name.replace('_', '-')} is for {', '.join(most)} and {last}, not for {arguments.analysis}"
            )
    if arguments.fhigh is not None and arguments.flow >= arguments.fhigh:
        raise CommandError(
            f"--fhigh is {arguments.fhigh:g} Hz, but has to be greater than --flow, {arguments.flow:g} Hz"
        )
    if arguments.analysis not in FILTERBANKS and arguments.frame is not None:
        milliseconds = 1000 * arguments.frame
        if round(milliseconds) < 1 or abs(milliseconds - round(milliseconds)) > 1e-6:
            raise CommandError(f"--frame is {milliseconds:g} ms, but has to be whole ones for {arguments.analysis}")


def _filter_file(path: Path, npz: Path, png: Path, arguments: argparse.Namespace) -> float:
    """Write what a filterbank makes of a sound file, and give its duration in seconds."""
    chosen, title = FILTERBANKS[arguments.analysis], f"{path.name}: {arguments.analysis}"
    own: dict[str, Any] = {}
    full_scale = 1.0
    if chosen.takes_velocity:
        own = {"subject": arguments.subject, "model": arguments.model}
        title += f" ({arguments.subject}, {arguments.model}), full scale {arguments.full_scale_db:g} dB SPL"
        full_scale = _stapes_velocity(arguments.full_scale_db)

    def design(fs: float) -> Design:
        fc = _centre_frequencies(arguments.flow, arguments.fhigh, arguments.channels, fs)
        try:
            bank = chosen.kind(fc, fs, dtype=torch.float32, device=arguments.device, **own)
        except ValueError as error:
            raise CommandError(f"{error}; --fhigh sets the highest") from error
        return Design(fc, bank, full_scale)

    analysis = _analysis(path, design, arguments.frame, arguments.fs, arguments.device)
    title += f", {arguments.channels} filters, {analysis.fs:g} Hz{_drawn_channels(len(analysis.rms))}"
    figure = plot.cochleagram(
        analysis.rms[:_MOST_PANELS],
        analysis.times,
        analysis.fc,
        waveform=(analysis.low[:_MOST_PANELS], analysis.high[:_MOST_PANELS]),
        title=title,
        reference="1 m/s" if chosen.takes_velocity else "full scale",
    )
    arrays = {
        "fc": analysis.fc,
        "times": analysis.times,
        "rms": analysis.rms,
        "fs": analysis.fs,
        "source_fs": analysis.source_fs,
        "frame": analysis.frame,
        "source": path.name,
        "filterbank": arguments.analysis,
        "full_scale": full_scale,
        **own,
    }
    _write(npz, png, arrays, figure)
    return analysis.seconds


def _spectra_file(path: Path, npz: Path, png: Path, arguments: argparse.Namespace) -> float:
    """Write the spectrum or excitation pattern of a sound file, and give its duration in seconds."""
    with _opened(path) as sound:
        moore = "moore2016" in (arguments.spectrum, arguments.excitation)
        found = (_moore2016 if moore else _multiresolution)(sound, arguments)
        source_fs = sound.samplerate
    levels = found.arrays["levels"]
    if not np.isfinite(levels).all():
        raise CommandError(f"has samples as large as {found.peak:g}, too large for single precision; full scale is 1")

    if arguments.spectrum:
        kind, name = "spectrum", "Moore2016Spectrum" if moore else "MultiResolutionFFT, ERBIntegration"
    else:
        kind, name = "excitation", f"excitation ({arguments.excitation})"
    full_scale = arguments.full_scale_db
    title = f"{path.name}: {name}, full scale {full_scale:g} dB SPL{_drawn_channels(len(levels))}"
    if arguments.spectrum and moore:
        figure = plot.components(found.arrays["freqs"], levels, found.times, title=title)
    else:
        label = "Band level (dB SPL)" if arguments.spectrum else "Excitation level (dB SPL)"
        figure = plot.level_map(levels[:_MOST_PANELS], found.times, found.arrays["fc"], title=title, label=label)
    arrays = {
        **found.arrays,
        "times": found.times,
        "hop": found.hop,
        "full_scale_db": full_scale,
        "fs": SPECTRUM_FS,
        "source_fs": source_fs,
        "source": path.name,
        kind: arguments.spectrum or arguments.excitation,
    }
    _write(npz, png, arrays, figure)
    return found.samples / SPECTRUM_FS


@torch.no_grad()
def _multiresolution(sound: SoundFile, arguments: argparse.Namespace) -> Spectra:
    fft = MultiResolutionFFT(SPECTRUM_FS, device=arguments.device)
    integration = ERBIntegration(SPECTRUM_FS, device=arguments.device)
    spreading = ExcitationPattern(SPECTRUM_FS, device=arguments.device)
    hop = fft.hop_lengths[fft.window_lengths[0]]
    # Six windows, whose frames overlap by half, make the signal twelve times as large.
    count = max(1, _BLOCK_ELEMENTS // (12 * hop * sound.channels))
    # Full scale is the peak of a sine.
    pressure = math.sqrt(2) * REFERENCE_PRESSURE * 10 ** (arguments.full_scale_db / 20)
    psds, levels, peak = [], [], 0.0
    for start, piece, last in _overlapping(sound, (count + 2) * hop, 2 * hop):
        _expect_samples(start + len(piece), hop + 1, sound, arguments)
        x = torch.from_numpy(piece.T.copy()).to(arguments.device)
        psd, freqs = fft(pressure * x)
        # The longest window reaches one hop to either side. Where the piece ends but not the sound, frames closer to
        # the end than that saw a reflection: they are left to the neighbouring piece.
        psd = psd[:, 1 if start else 0 : None if last else count + 1]
        level = integration(psd, freqs)
        if arguments.spectrum:
            psds.append(psd.cpu().numpy())
        else:
            level = spreading(level)
        levels.append(level.cpu().numpy())
        peak = max(peak, float(x.abs().max()))
    arrays = {"levels": np.concatenate(levels, axis=1), "fc": integration.fc_erb.cpu().numpy()}
    if arguments.spectrum:
        arrays |= {"psd": np.concatenate(psds, axis=1), "freqs": freqs.cpu().numpy()}
    times = np.arange(arrays["levels"].shape[1]) * hop / SPECTRUM_FS
    return Spectra(arrays, times, hop, start + len(piece), peak)


@torch.no_grad()
def _moore2016(sound: SoundFile, arguments: argparse.Namespace) -> Spectra:
    if sound.channels > 2:
        raise CommandError(
            f"has {sound.channels} channels, but {arguments.analysis} is for one or two: it has two ears"
        )
    spectrum = Moore2016Spectrum(
        SPECTRUM_FS, round(1000 * arguments.frame), arguments.full_scale_db, device=arguments.device
    )
    pattern = Moore2016ExcitationPattern(device=arguments.device)
    hop = spectrum.hop
    # Per frame and ear 960 intensities, their levels, frequencies, and what it takes to choose among them.
    count = max(1, _BLOCK_ELEMENTS // (8 * 2 * 960))
    parts, peak = [], 0.0
    for start, piece, _ in _overlapping(sound, count * hop + MOORE2016_FRAME, MOORE2016_FRAME):
        _expect_samples(start + len(piece), MOORE2016_FRAME + hop, sound, arguments)
        x = torch.from_numpy(piece.T.copy()).to(arguments.device)
        peak = max(peak, float(x.abs().max()))
        # What is left of the sound may be too short for another frame.
        if len(piece) >= MOORE2016_FRAME + hop:
            freqs_left, levels_left, freqs_right, levels_right = spectrum(x.expand(2, -1)[None])
            freqs = torch.cat((freqs_left, freqs_right))[: sound.channels]
            levels = torch.cat((levels_left, levels_right))[: sound.channels]
            part = (freqs, levels) if arguments.spectrum else (pattern(freqs, levels),)
            parts.append([values.cpu().numpy() for values in part])
    if arguments.spectrum:
        arrays = dict(zip(("freqs", "levels"), map(_joined, zip(*parts, strict=True)), strict=True))
    else:
        arrays = {"levels": np.concatenate([level for (level,) in parts], axis=1)}
        arrays["fc"] = pattern.fc_channels.cpu().numpy()
    times = (np.arange(arrays["levels"].shape[1]) * hop + MOORE2016_FRAME / 2) / SPECTRUM_FS
    return Spectra(arrays, times, hop, start + len(piece), peak)


def _joined(parts: Sequence[NDArray]) -> NDArray:
    """Join lists (C, N, K) of different K along the frames; shorter ones get zeros at their ends."""
    width = max(part.shape[2] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, 0), (0, width - part.shape[2]))) for part in parts], axis=1)


def _expect_samples(samples: int, least: int, sound: SoundFile, arguments: argparse.Namespace) -> None:
    if samples < least:
        raise CommandError(
            f"holds {sound.frames} samples, which makes {samples} at {SPECTRUM_FS} Hz; {arguments.analysis} needs "
            f"{least} or more"
        )


def _drawn_channels(channels: int) -> str:
    return f" (channels 1 to {_MOST_PANELS} of {channels})" if channels > _MOST_PANELS else ""


def _write(npz: Path, png: Path, arrays: dict[str, Any], figure: Figure) -> None:
    with _replacing(npz, png) as (npz_draft, png_draft):
        with npz_draft.open("wb") as file:
            np.savez_compressed(file, **arrays)
        figure.savefig(png_draft, format="png")


def _stapes_velocity(sound_level: float) -> float:
    """Peak velocity of the stapes in m/s for a sine of so many dB SPL, with the gain of the middle ear at 1 kHz."""
    return _STAPES_AT_0_DB * 10 ** (sound_level / 20)


def _result_names(paths: list[Path]) -> list[str]:
    """Give each input the name of its results: its stem, numbered where an earlier input has taken it."""
    names: list[str] = []
    taken = {path.stem.casefold() for path in paths}
    used: set[str] = set()
    for path in paths:
        name, number = path.stem, 1
        while name.casefold() in used or (number > 1 and name.casefold() in taken):
            number += 1
            name = f"{path.stem}-{number}"
        used.add(name.casefold())
        names.append(name)
    return names


def _centre_frequencies(flow: float, fhigh: float | None, count: int, fs: float) -> Tensor:
    fhigh = min(8000.0, 0.45 * fs) if fhigh is None else fhigh
    if not flow < fhigh <= fs / 2:
        raise CommandError(
            f"filters from {flow:g} Hz (--flow) to {fhigh:g} Hz (--fhigh) do not suit its sampling rate of {fs:g} Hz, "
            f"which allows 0 < flow < fhigh <= {fs / 2:g}"
        )
    return erb_spaced(flow, fhigh, count)


@torch.no_grad()
def _analysis(
    path: Path,
    design: Callable[[float], Design],
    frame: float,
    fs: float | None = None,
    device: torch.device | str = "cpu",
) -> Analysis:
    """Filter a sound file block by block and keep frames of the output.

    `design` makes the filterbank for a sampling rate, `frame` is in seconds, and `fs` is the rate to resample to.
    """
    with _opened(path) as sound:
        fs = sound.samplerate if fs is None else fs
        fc, bank, full_scale = design(fs)
        length = max(1, round(frame * fs))
        block = length * max(1, _BLOCK_ELEMENTS // (len(fc) * sound.channels * length))
        # One growing buffer each: many small arrays, kept between large ones that come and go, fragment memory.
        rms, low, high = bytearray(), bytearray(), bytearray()
        state = None
        samples = 0
        for piece in _blocks(_resampled(_samples(sound, block), sound, fs), block):
            x = torch.from_numpy(piece.T.copy()).to(device)
            y, state = bank.stream(full_scale * x, state)
            samples += len(piece)
            rms += _frames(y, length, lambda frames: frames.square().mean(-1).sqrt())
            low += _frames(x, length, lambda frames: frames.amin(-1))
            high += _frames(x, length, lambda frames: frames.amax(-1))
        if not samples:
            raise CommandError(f"holds {sound.frames} samples, which leaves nothing to analyse at {fs:g} Hz")
        starts = np.arange(0, samples, length)
        ends = np.minimum(starts + length, samples)
        analysis = Analysis(
            fc=fc.numpy(),
            times=(starts + ends) / (2 * fs),
            rms=_unpacked(rms, sound.channels, len(fc)),
            low=_unpacked(low, sound.channels),
            high=_unpacked(high, sound.channels),
            fs=fs,
            source_fs=sound.samplerate,
            frame=length,
            seconds=samples / fs,
        )
    if not np.isfinite(analysis.rms).all():
        peak = max(-analysis.low.min(), analysis.high.max())
        raise CommandError(f"has samples as large as {peak:g}, too large for single precision; full scale is 1")
    return analysis


def _frames(x: Tensor, length: int, reduce: Callable[[Tensor], Tensor]) -> bytes:
    """Reduce consecutive frames of the last axis, the last of which has what is left; give float32, frame by frame."""
    count = x.shape[-1] // length
    parts = [reduce(x[..., : count * length].unflatten(-1, (count, length)))]
    if count * length < x.shape[-1]:
        parts.append(reduce(x[..., count * length :].unsqueeze(-2)))
    return torch.cat(parts, dim=-1).movedim(-1, 0).cpu().numpy().tobytes()


def _unpacked(frames: bytearray, *shape: int) -> NDArray:
    return np.ascontiguousarray(np.moveaxis(np.frombuffer(frames, dtype=np.float32).reshape(-1, *shape), 0, -1))


@contextmanager
def _opened(path: Path) -> Iterator[SoundFile]:
    import soundfile

    if not path.exists():
        raise CommandError("there is no such file")
    if not path.is_file():
        raise CommandError("is not a file")
    try:
        # A file without a header (.raw) is a TypeError: soundfile asks for the rate that the header lacks.
        with soundfile.SoundFile(path) as sound:
            yield sound
    except (soundfile.SoundFileError, TypeError) as error:
        raise CommandError(f"cannot be read as sound: {error}") from error


def _samples(sound: SoundFile, block: int) -> Iterator[NDArray]:
    """Read a file in blocks of shape (samples, channels), and refuse NaN and infinity."""
    start = 0
    while len(samples := sound.read(block, dtype="float32", always_2d=True)):
        wrong = np.argwhere(~np.isfinite(samples))
        if len(wrong):
            index, channel = wrong[0]
            value = samples[index, channel]
            raise CommandError(f"sample {start + index} of channel {channel + 1} is {value}; samples have to be finite")
        start += len(samples)
        yield samples


def _resampled(pieces: Iterator[NDArray], sound: SoundFile, fs: float) -> Iterator[NDArray]:
    if fs == sound.samplerate:
        yield from pieces
        return
    import soxr

    resampler = soxr.ResampleStream(sound.samplerate, fs, sound.channels, dtype="float32")
    for piece in pieces:
        yield resampler.resample_chunk(piece)
    yield resampler.resample_chunk(np.empty((0, sound.channels), dtype=np.float32), last=True)


def _blocks(pieces: Iterator[NDArray], length: int) -> Iterator[NDArray]:
    """Cut a sequence of pieces of any length into blocks of one length; the last has what is left."""
    rest = None
    for piece in pieces:
        rest = piece if rest is None else np.concatenate((rest, piece))
        while len(rest) >= length:
            yield rest[:length]
            rest = rest[length:]
    if rest is not None and len(rest):
        yield rest


def _overlapping(sound: SoundFile, length: int, overlap: int) -> Iterator[tuple[int, NDArray, bool]]:
    """Cut a sound, at the rate of the spectra, into pieces of `length` samples of which neighbours share `overlap`.

    Gives each one's position and whether it is the last, which has what is left: at least `overlap` samples, if others
    came before.
    """
    start, rest = 0, np.empty((0, sound.channels), dtype=np.float32)
    for piece in _resampled(_samples(sound, length), sound, SPECTRUM_FS):
        rest = np.concatenate((rest, piece))
        while len(rest) >= length:
            yield start, rest[:length], False
            start, rest = start + length - overlap, rest[length - overlap :]
    yield start, rest, True


def _made_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"the folder {path} cannot be made: {error.strerror}") from error
    return path


@contextmanager
def _replacing(*targets: Path) -> Iterator[list[Path]]:
    """Give names to write to; the files take the targets' places once all are complete, and vanish if one fails."""
    drafts = [target.with_name(f".{target.name}.{os.getpid()}.part") for target in targets]
    try:
        yield drafts
        for draft, target in zip(drafts, targets, strict=True):
            os.replace(draft, target)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _require(*modules: str) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        # soundfile raises OSError where the library libsndfile is missing.
        except (ImportError, OSError) as error:
            raise CommandError(f"{module} cannot be used ({error}); pip install 'tamt[audio,plot]'") from error


def _info(arguments: argparse.Namespace) -> int:
    print(f"{'tamt':<12}{__version__}\n{'python':<12}{platform.python_version()}, {platform.platform()}")
    for package in ("torch", "triton", "numpy", "scipy", "soundfile", "soxr", "matplotlib"):
        print(f"{package:<12}{_version(package) or 'not installed'}")
    served = {"triton": "Triton kernels", "reference": "reference (plain torch)"}
    print(f"\ncpu         {served[backend('cpu')]}, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        print(f"{f'cuda:{index}':<12}{served[backend('cuda')]}, {torch.cuda.get_device_name(index)}")
    if torch.backends.mps.is_available():
        print(f"mps         {served[backend('mps')]}")
    return 0


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# Vowels by their first three formants in Hz, averages of men's voices: Peterson and Barney, J. Acoust. Soc. Am. 24,
# 175-184, 1952. The higher ones, here the same for all vowels, lie a kilohertz apart as in a tube of 17 cm.
_FORMANTS = {
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
_HIGH_FORMANTS = tuple(range(3500, 11000, 1000))
_FORMANT_BANDWIDTHS = (60, 90, 130, *(0.05 * hertz for hertz in _HIGH_FORMANTS))
# Syllables: seconds of silence before, seconds of sound, the vowels it glides through, and the pitch in Hz likewise.
_SYLLABLES = (
    (0.10, 0.65, "ai", (105, 145, 120)),
    (0.15, 0.85, "uae", (120, 165, 110)),
    (0.25, 0.60, "iu", (190, 130)),
    (0.12, 0.75, "oia", (125, 150, 85)),
)


def _vowels(fs: int) -> NDArray:
    """Synthesise voiced vowels: harmonics of a gliding pitch, shaped by resonances that move."""
    parts = []
    for silence, duration, vowels, pitch in _SYLLABLES:
        parts += [np.zeros(round(silence * fs)), _syllable(round(duration * fs), fs, vowels, pitch)]
    sound = np.concatenate([*parts, np.zeros(round(0.15 * fs))])
    return 0.5 * sound / np.abs(sound).max()


def _syllable(samples: int, fs: int, vowels: str, pitch: tuple[int, ...]) -> NDArray:
    f0 = _glide(np.array(pitch, dtype=float), samples)
    formants = [
        _glide(np.array(track, dtype=float), samples) for track in zip(*(_FORMANTS[v] for v in vowels), strict=True)
    ]
    formants += [np.full(samples, float(hertz)) for hertz in _HIGH_FORMANTS]
    phase = 2 * np.pi * np.cumsum(f0) / fs
    sound = np.zeros(samples)
    for harmonic in range(1, int(0.5 * fs / f0.min()) + 1):
        f = harmonic * f0
        # The source of a pressed voice, with the radiation from the mouth, falls by some 4 dB per octave.
        amplitude = np.where(f < 0.5 * fs, harmonic**-0.7, 0.0).astype(complex)
        for centre, bandwidth in zip(formants, _FORMANT_BANDWIDTHS, strict=True):
            amplitude *= centre**2 / (centre**2 - f**2 + 1j * bandwidth * f)
        sound += (amplitude * np.exp(1j * harmonic * phase)).real
    rise, fall = round(0.04 * fs), round(0.09 * fs)
    envelope = np.ones(samples)
    envelope[:rise] = 0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / rise)
    envelope[-fall:] = 0.5 + 0.5 * np.cos(np.pi * np.arange(fall) / fall)
    return envelope * sound


def _glide(values: NDArray, samples: int) -> NDArray:
    """Pass through the values at equal times, at rest at each of them."""
    position = np.linspace(0, len(values) - 1, samples)
    index = np.minimum(position.astype(int), len(values) - 2)
    share = 0.5 - 0.5 * np.cos(np.pi * (position - index))
    return values[index] * (1 - share) + values[index + 1] * share
