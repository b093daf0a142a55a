"""What ``tamt analyze`` can do, the options of each analysis, and what its help says of the results."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from tamt.filterbanks.drnl import DRNLFilterbank
from tamt.filterbanks.fast_drnl import FastDRNLFilterbank
from tamt.filterbanks.gammatone import GammatoneFilterbank

from .console import CommandError

SPECTRA = ("multires", "moore2016")
EXCITATIONS = ("glasberg2002", "moore2016")
# What --field can name, in a picture's words: the fields of tamt.OuterMiddleEar, and no ear at all.
HEARD = {"free": "free field", "diffuse": "diffuse field", "eardrum": "at the eardrum", "none": "no ear"}

_NPZ_CONTENTS = """\
A folder stands for the sound files in it and in all folders below it, by the endings of their names (.wav, .flac,
.mp3 and whatever else soundfile reads), in sorted order and without what is hidden by a dot. A file given twice is
analysed once. Sampling rates have to be in the range of --fs. Each sound file NAME.EXT gives NAME.npz and NAME.png.
Where several are called NAME, it is NAME.EXT.npz and so on, and where several are called NAME.EXT,
FOLDER-NAME.EXT.npz with as many folders as tell them apart. The .npz file of a filterbank holds, for C sound
channels, F filters and M frames:
  fc         (F,)       centre frequencies in Hz
  times      (M,)       middle of each frame in seconds
  frames     (C, F, M)  the cochleagram: per frame the mean of what --detector says, by --compression; of a DRNL from
                        outputs in m/s, else re full scale
  detector, compression as the options gave them
  floor      ()         least mean that the compression knows
  hop        ()         samples from one frame to the next
  frame_length ()       samples of a frame
  full_scale ()         what full scale was to the filters: of a DRNL a stapes velocity in m/s, else 1
  fs         ()         sampling rate of the analysis in Hz
  source_fs  ()         sampling rate of the file in Hz
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
  field                          of --excitation: the name that --field gave
"""

_FRAME_NOTE = """\
The frames of a filterbank are those of tamt.Cochleagram: frame m begins m hops after the first sample, and holds the
mean P of
  envelope   half the squared envelope of the output: of a steady tone its mean square; gammatone only
  power      the squared output; the square root of the frames is the root mean square
  halfwave   the positive half of the output
and by --compression
  none       P
  db         10 log10 max(P, floor), of halfwave 20 log10
  log        ln max(P, floor)
  NUMBER     (P + floor) ** NUMBER
A hop is the nearest whole number of samples, and a frame as many of these hops as --frame has of --hop. Frames are
whole ones: samples after the last are left out, and a sound shorter than one frame is an error. Frames stay in memory
until they are written: an hour of one channel, 64 filters and hops of 10 ms take 92 MB.
"""

_SPECTRUM_NOTE = """\
--spectrum and --excitation take the place of the filterbank. They work at 32 kHz, to which files of other rates are
resampled as by --fs, and on sound pressure: --full-scale-db says how loud a file was. multires and glasberg2002
(MultiResolutionFFT, ERBIntegration, ExcitationPattern) give a frame every 32 ms; moore2016 (Moore2016Spectrum,
Moore2016ExcitationPattern) gives one per --hop, in whole milliseconds (the model itself takes 0.001). moore2016 has
two ears, and a mono file goes to both; as they are then alike, C is 1. The sound is analysed piece by piece, but its
results are in memory until they are written: a minute of one channel takes 9 MB with multires, and with moore2016 and
hops of 10 ms up to 46 MB where it is full of components, as noise is.
Frames of moore2016 are whole ones of 64 ms: the middle of the first is 0.032 s after the start of the file, and the
last ends before the file does. Those of multires and glasberg2002 have their middles from 0 s on, and see outside of
the file its reflection.
--excitation moore2016 is the excitation pattern of the model of Moore et al. (2016), by the defaults of
tamt.Moore2016ExcitationPattern: components count up to 4 octaves away (spreading_limit_octaves=4), where the loudness
models, AMT and tamt loudness have them count everywhere (10). The two differ far above loud low sounds: of 100 Hz at
110 dB the channel at 1643 Hz has -120 dB in place of 78.
--excitation glasberg2002 is not that of Glasberg and Moore (2002), but tamt.ExcitationPattern: slopes in dB per ERB
that spread loud sound far towards lower frequencies and little towards higher ones, in reverse to moore2016 and to
masking data.
Levels are those that each model works with, and are not to be compared: of a tone of 1 kHz and 60 dB SPL the excitation
reaches 62 dB with glasberg2002, where overlapping bands add up, and 58 dB with moore2016.
--excitation is that of the sound after the outer and the middle ear (tamt.OuterMiddleEar), whose delay is taken off:
  --field free     the file is sound where the head would be, in front of its source
  --field diffuse  sound where the head would be, from everywhere
  --field eardrum  sound at the eardrum, or of earphones that are flat there
  --field none     what has been through an ear already, or is to go without
"""

_DRNL_NOTE = """\
drnl and fast-drnl filter the velocity of the stapes, and they compress: levels matter. A file does not know how loud
it was; --full-scale-db says it. No middle ear is before them: all frequencies get its gain at 1 kHz, where a tone of
100 dB SPL moves the stapes with a peak velocity of 1.2e-3 m/s (Goode et al. 1994, as in AMT). A real one passes less
far from there: 7 dB less at 2 kHz, 15 dB less at 4 kHz.
"""

NOTES = f"{_NPZ_CONTENTS}\n{_FRAME_NOTE}\n{_DRNL_NOTE}\n{_SPECTRUM_NOTE}"


class Filterbank(NamedTuple):
    """What ``--filterbank`` can name."""

    kind: type[GammatoneFilterbank] | type[DRNLFilterbank]
    flow: float  # default of --flow in Hz
    channels: int  # default of --channels
    takes_velocity: bool  # of the stapes in m/s, and has the options of a DRNL; else sound, full scale being 1


FILTERBANKS = {
    "drnl": Filterbank(DRNLFilterbank, 250.0, 50, True),
    "fast-drnl": Filterbank(FastDRNLFilterbank, 250.0, 50, True),
    "gammatone": Filterbank(GammatoneFilterbank, 80.0, 64, False),
}
DETECTORS = GammatoneFilterbank.DETECTORS


def _options() -> dict[str, dict[str, Any]]:
    """What ``tamt analyze`` can do, the options that it has for each, and their defaults."""
    options: dict[str, dict[str, Any]] = {}
    for name, chosen in sorted(FILTERBANKS.items()):
        options[name] = {
            "flow": chosen.flow,
            "fhigh": None,
            "channels": chosen.channels,
            "fs": None,
            "hop": 0.01,
            "frame": None,
            "detector": chosen.kind.DETECTORS[0],
            "compression": "none",
            "floor": 1e-10,
        }
        if chosen.takes_velocity:
            options[name] |= {"subject": "NH", "model": "paulick2024", "full_scale_db": 100.0}
    for kind, names in (("--spectrum", SPECTRA), ("--excitation", EXCITATIONS)):
        for name in names:
            options[f"{kind} {name}"] = {"full_scale_db": 100.0}
            if name == "moore2016":
                options[f"{kind} {name}"]["hop"] = 0.01
            if kind == "--excitation":
                options[f"{kind} {name}"]["field"] = "free"
    return options


_OPTIONS = _options()


def settle(arguments: argparse.Namespace) -> None:
    """Say in ``arguments.analysis`` what to do, put in its defaults, and refuse options that it does not have."""
    if arguments.spectrum:
        arguments.analysis = f"--spectrum {arguments.spectrum}"
    elif arguments.excitation:
        arguments.analysis = f"--excitation {arguments.excitation}"
    else:
        arguments.analysis = arguments.filterbank or "gammatone"
    floor_given = arguments.floor is not None
    own = _OPTIONS[arguments.analysis]
    for name in dict.fromkeys(name for options in _OPTIONS.values() for name in options):
        if getattr(arguments, name) is None:
            setattr(arguments, name, own.get(name))
        elif name not in own:
            *most, last = (analysis for analysis, options in _OPTIONS.items() if name in options)
            raise CommandError(
                f"--{name.replace('_', '-')} is for {', '.join(most)} and {last}, not for {arguments.analysis}"
            )
    if arguments.analysis in FILTERBANKS:
        _settle_filters(arguments)
        if floor_given and arguments.compression == "none":
            raise CommandError("--floor does nothing without a --compression of db, log or a number")
    elif arguments.hop is not None:
        whole_milliseconds(arguments.hop, arguments.analysis)


def whole_milliseconds(hop: float, analysis: str) -> int:
    """Milliseconds of a hop that was given in seconds; a CommandError if they are not whole ones."""
    milliseconds = 1000 * hop
    if round(milliseconds) < 1 or abs(milliseconds - round(milliseconds)) > 1e-6:
        raise CommandError(f"--hop is {milliseconds:g} ms, but has to be whole ones for {analysis}")
    return round(milliseconds)


def _settle_filters(arguments: argparse.Namespace) -> None:
    """Refuse options of a filterbank that do not go together, and put in the length of a frame."""
    if arguments.fhigh is not None and arguments.flow >= arguments.fhigh:
        raise CommandError(
            f"--fhigh is {arguments.fhigh:g} Hz, but has to be greater than --flow, {arguments.flow:g} Hz"
        )
    arguments.frame = arguments.hop if arguments.frame is None else arguments.frame
    hops = arguments.frame / arguments.hop
    if round(hops) < 1 or abs(hops - round(hops)) > 1e-6 * hops:
        raise CommandError(f"--frame is {arguments.frame:g} s, but has to be a multiple of --hop, {arguments.hop:g} s")
    known = FILTERBANKS[arguments.analysis].kind.DETECTORS
    if arguments.detector not in known:
        raise CommandError(
            f"--detector {arguments.detector} is not for {arguments.analysis}, whose filters have no analytic output: "
            f"{' or '.join(known)}"
        )
