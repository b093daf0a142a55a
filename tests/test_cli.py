import io
import itertools
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import tamt
from tamt import (
    Cochleagram,
    DRNLFilterbank,
    ERBIntegration,
    ExcitationPattern,
    FastDRNLFilterbank,
    GammatoneFilterbank,
    Moore2016ExcitationPattern,
    Moore2016Spectrum,
    MultiResolutionFFT,
    OuterMiddleEar,
    cli,
    fc2erb,
    plot,
)
from tamt.cli import analysis as cli_analysis
from tamt.cli import analyze, files
from tamt.cli import loudness as cli_loudness
from tamt.cli import sound as cli_sound
from tamt.ear.outer_middle_ear import FIELDS
from tamt.filterbanks.cochleagram import FLOORS
from tamt.filterbanks.drnl import MODELS, SUBJECTS
from tamt.spl import full_scale_pascal, pascal2spl, stapes_velocity
from tamt_command import options

# `make gpu` uses a Python that may lack the extras.
soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")
pytest.importorskip("matplotlib")
from matplotlib.figure import Figure  # noqa: E402

DRNL = {"drnl": DRNLFilterbank, "fast-drnl": FastDRNLFilterbank}
MULTIRES, MOORE = ["--spectrum", "multires"], ["--spectrum", "moore2016"]
GLASBERG_EXCITATION, MOORE_EXCITATION = EXCITATIONS = ["--excitation", "glasberg2002"], ["--excitation", "moore2016"]
SPECTRA = [MULTIRES, MOORE, GLASBERG_EXCITATION, MOORE_EXCITATION]


def run(capsys, *arguments):
    try:
        status = cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refusal(capsys, *arguments):
    """What is said of arguments that are wrong whatever the files hold, below one line of usage."""
    status, printed, errors = run(capsys, *arguments)
    usage, problem = errors.splitlines()
    assert (status, printed) == (2, "")
    assert usage.startswith(f"usage: tamt {arguments[0]} ")
    return problem.removeprefix(f"tamt {arguments[0]}: error: ")


def noise(seconds, fs, channels=1, seed=0):
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * fs), channels))
    return samples.astype(np.float32)


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def expected_frames(samples, fs, result, kind=GammatoneFilterbank, full_scale=1.0, **bank):
    """Take the cochleagram of all of a sound (T, C) at once, as the result says it was taken."""
    compression = str(result["compression"])
    if compression not in ("db", "log"):
        compression = None if compression == "none" else float(compression)
    cochleagram = Cochleagram(
        kind(torch.from_numpy(result["fc"]), fs, **bank),
        int(result["hop"]),
        int(result["frame_length"]),
        str(result["detector"]),
        compression,
        float(result["floor"]),
    )
    x = full_scale * torch.from_numpy(samples.T.copy()).to(cochleagram.bank.dtype)
    frames = cochleagram(x)
    return frames.numpy(), cochleagram.times(frames.shape[-1]).numpy()


def test_demo(capsys, out):
    status, printed, _ = run(capsys, "demo", "--out", out)
    assert status == 0
    pictures = ["cochleagram.png", "drnl_cochleagram.png", "drnl_io.png", "filters.png"]
    assert files_in(out) == [*pictures, "vowels.wav"]
    for name in pictures:
        assert is_picture(out / name)
    sound = soundfile.info(out / "vowels.wav")
    assert (sound.samplerate, sound.channels, sound.subtype) == (16000, 1, "PCM_16")
    assert 3 < sound.duration < 5
    for name in files_in(out):
        assert str(out / name) in printed
    for kind in ("gammatone", "DRNL"):
        speed = rf"speed +3\.62 s of sound through 96 {kind} filters in [\d.]+ ms: [\d.]+ times faster than real time"
        assert re.search(speed, printed)


def test_demo_replaces_what_is_its_own_alone(capsys, tmp_path):
    (tmp_path / "filters.png").write_text("somebody's")
    status, _, errors = run(capsys, "demo", "--out", tmp_path)
    assert (status, files_in(tmp_path)) == (1, ["filters.png"])
    assert errors.startswith(
        f"tamt: {tmp_path / 'filters.png'} is there already, and not of this demonstration; --over"
    )
    assert (tmp_path / "filters.png").read_text() == "somebody's"


@pytest.mark.parametrize(
    ("fs", "channels", "subtype", "extension"),
    [
        (16000, 1, "PCM_16", "wav"),
        (44100, 2, "FLOAT", "wav"),
        (8000, 1, "PCM_U8", "wav"),
        (22050, 3, "PCM_24", "flac"),
    ],
)
def test_analyze_formats(capsys, tmp_path, out, fs, channels, subtype, extension):
    path = tmp_path / f"sound.{extension}"
    soundfile.write(path, noise(0.505, fs, channels), fs, subtype=subtype)
    status, printed, errors = run(capsys, "analyze", path, "--out", out, "--channels", 8, "--no-plot")
    assert (status, errors) == (0, "")
    assert str(out / "sound.npz") in printed
    assert files_in(out) == ["sound.npz"]

    result = np.load(out / "sound.npz")
    hop = round(0.01 * fs)
    fhigh = min(8000, 0.45 * fs)
    scale = {"detector", "compression", "floor", "hop", "frame_length", "full_scale"}
    source = {"source", "source_path", "cut_off", "results"}
    assert set(result) == {"fc", "times", "frames", *scale, "fs", "source_fs", *source, "filterbank"}
    assert [result[name].tolist() for name in ("detector", "compression", "floor")] == ["envelope", "none", 1e-10]
    assert result["full_scale"] == 1
    assert [result[name].tolist() for name in ("fs", "source_fs", "hop", "frame_length")] == [fs, fs, hop, hop]
    assert (result["source"], result["source_path"], result["filterbank"]) == (str(path), str(path), "gammatone")
    np.testing.assert_allclose(fc2erb(torch.from_numpy(result["fc"])), np.linspace(fc2erb(80), fc2erb(fhigh), 8))
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    expected, times = expected_frames(samples, fs, result)
    assert result["frames"].dtype == np.float32
    assert result["frames"].shape == (channels, 8, len(samples) // hop)
    np.testing.assert_allclose(result["frames"], expected, rtol=1e-4, atol=1e-6 * expected.max())
    np.testing.assert_array_equal(result["times"], times)


@pytest.mark.parametrize(
    ("options", "detector", "compression", "floor", "hop", "frame_length"),
    [
        (["--frame", "0.03", "--detector", "power"], "power", "none", 1e-10, 160, 480),
        (["--hop", "0.001", "--detector", "halfwave", "--compression", "db"], "halfwave", "db", 1e-10, 16, 16),
        (["--hop", "0.0125", "--frame", "0.025", "--compression", "db"], "envelope", "db", 1e-10, 200, 400),
        (["--compression", "log", "--floor", "1e-3"], "envelope", "log", 1e-3, 160, 160),
        (["--compression", "0.3", "--hop", "0.005", "--frame", "0.035"], "envelope", "0.3", 1e-10, 80, 560),
        (["--compression", "none", "--hop", "0.0001"], "envelope", "none", 1e-10, 2, 2),
    ],
)
def test_analyze_gives_frames_as_the_options_say(
    capsys, tmp_path, out, monkeypatch, options, detector, compression, floor, hop, frame_length
):
    drawn = []
    monkeypatch.setattr(plot, "cochleagram", lambda *given, **named: drawn.append(named) or Figure())
    monkeypatch.setattr(cli_analysis, "_BLOCK_ELEMENTS", 4 * 2 * 1000)
    samples = noise(0.31, 16000, 2)
    soundfile.write(tmp_path / "x.wav", samples, 16000, subtype="FLOAT")
    status, _, errors = run(capsys, "analyze", tmp_path / "x.wav", "--out", out, "--channels", 4, *options)
    assert (status, errors) == (0, "")
    result = np.load(out / "x.npz")
    scale = {"detector": detector, "compression": compression, "floor": floor}
    given = scale | {"hop": hop, "frame_length": frame_length}
    assert {name: result[name].tolist() for name in given} == given
    expected, times = expected_frames(samples, 16000, result)
    assert expected.shape == (2, 4, 1 + (len(samples) - frame_length) // hop)
    np.testing.assert_allclose(result["frames"], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(result["times"], times)
    # The picture is of the same, and of the samples that each frame covers.
    (named,) = drawn
    assert {name: named[name] for name in ("detector", "floor")} == {"detector": detector, "floor": floor}
    assert str(named["compression"]).lower() == compression
    covered = np.lib.stride_tricks.sliding_window_view(samples, frame_length, axis=0)[::hop]
    for edge, extreme in zip(named["waveform"], (covered.min(-1), covered.max(-1)), strict=True):
        np.testing.assert_array_equal(edge, extreme.T)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--frame", "0.025"], "--frame is 0.025 s, but has to be a multiple of --hop, 0.01 s"),
        (["--frame", "0.005"], "--frame is 0.005 s, but has to be a multiple of --hop, 0.01 s"),
        (["--hop", "0.02", "--frame", "0.01"], "--frame is 0.01 s, but has to be a multiple of --hop, 0.02 s"),
        (["--fs", "1000", "--hop", "0.0001"], "hops of 0.0001 s (--hop) are shorter than a sample at 1000 Hz"),
        (["--fhigh", "70"], "--fhigh is 70 Hz, but has to be greater than --flow, 80 Hz by default"),
        (["--flow", "500", "--fhigh", "400"], "--fhigh is 400 Hz, but has to be greater than --flow, 500 Hz"),
        (["--flow", "8000"], "--flow is 8000 Hz, but the highest centre is 8000 Hz by default"),
        (["--flow", "7500", "--fs", "16000"], "--flow is 7500 Hz, but the highest centre is 7200 Hz by default at a"),
        (["--fhigh", "9000", "--fs", "16000"], "--fhigh is 9000 Hz, but has to be at most 8000 Hz, half of a"),
        (["--filterbank", "drnl", "--fs", "16000", "--fhigh", "8000"], "fc must keep the paths' centre frequencies"),
        (["--floor", "1e-6"], "--floor does nothing without a --compression of db, log or a number"),
        (["--floor", "1e-6", "--compression", "none"], "--floor does nothing without a --compression of db, log"),
        *(
            (["--filterbank", name, "--detector", "envelope"], f"--detector envelope is not for {name}, whose filters")
            for name in DRNL
        ),
    ],
)
def test_options_of_frames_that_do_not_go_together(capsys, tmp_path, out, options, problem):
    assert refusal(capsys, "analyze", tmp_path / "x.wav", "--out", out, *options).startswith(problem)
    assert not out.exists()


def test_analyze_refuses_hops_of_less_than_a_sample(capsys, tmp_path, out):
    for name, fs in (("slow", 1000), ("fast", 16000)):
        soundfile.write(tmp_path / f"{name}.wav", noise(0.1, fs), fs)
    given = [tmp_path / f"{name}.wav" for name in ("slow", "fast")]
    options = ["--hop", "0.0001", "--channels", 1, "--no-plot"]
    status, _, errors = run(capsys, "analyze", *given, "--out", out, *options)
    assert status == 1
    assert f"{given[0]}: hops of 0.0001 s (--hop) are shorter than a sample at 1000 Hz" in errors
    assert files_in(out) == ["fast.npz"]


@pytest.mark.slow
def test_memory_of_analyze_is_that_of_its_frames(tmp_path, out):
    """Ten times the sound takes no more memory but for its frames: their buffer, their array and a copy of it."""
    peaks, sizes = [], []
    for seconds in (20, 200):
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, noise(seconds, 16000), 16000)
        code = (
            "import resource, sys; from tamt import cli; status = cli.main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
        )
        command = [sys.executable, "-c", code, "analyze", path, "--out", out, "--no-plot"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024))
        sizes.append(np.load(out / f"{seconds}.npz")["frames"].nbytes)
    assert sizes == [4 * 64 * 100 * seconds for seconds in (20, 200)]
    assert peaks[1] - peaks[0] < 3 * sizes[1] + 24e6


@pytest.mark.parametrize("filterbank", sorted(analyze.FILTERBANKS))
def test_analyze_cuts_long_files_into_blocks(capsys, tmp_path, out, monkeypatch, filterbank):
    path = tmp_path / "long.wav"
    soundfile.write(path, noise(1.234, 16000, 2), 16000)
    options = ["--filterbank", filterbank, "--channels", 4, "--no-plot"]
    run(capsys, "analyze", path, "--out", out / "whole", *options)
    monkeypatch.setattr(cli_analysis, "_BLOCK_ELEMENTS", 4 * 2 * 1000)
    status, _, _ = run(capsys, "analyze", path, "--out", out / "blocks", *options)
    assert status == 0
    whole, blocks = np.load(out / "whole" / "long.npz"), np.load(out / "blocks" / "long.npz")
    assert whole["times"].tolist() == blocks["times"].tolist()
    np.testing.assert_allclose(whole["frames"], blocks["frames"], rtol=1e-4, atol=1e-5 * whole["frames"].max())


@pytest.mark.parametrize("filterbank", DRNL)
@pytest.mark.parametrize(
    ("options", "subject", "model", "full_scale"),
    [
        ([], "NH", "paulick2024", 1.2e-3),
        (["--subject", "HIx", "--model", "jepsen2008", "--full-scale-db", "60"], "HIx", "jepsen2008", 1.2e-5),
    ],
)
def test_analyze_drnl(capsys, tmp_path, out, filterbank, options, subject, model, full_scale):
    fs, path = 22050, tmp_path / "sound.wav"
    samples = noise(0.1, fs, 2)
    soundfile.write(path, samples, fs, subtype="FLOAT")
    status, _, errors = run(capsys, "analyze", path, "--out", out, "--filterbank", filterbank, *options, "--no-plot")
    assert (status, errors) == (0, "")

    result = dict(np.load(out / "sound.npz"))  # all of it, for which no pickles are needed
    assert (result["filterbank"], result["subject"], result["model"]) == (filterbank, subject, model)
    assert result["full_scale"] == pytest.approx(full_scale)
    np.testing.assert_allclose(fc2erb(torch.from_numpy(result["fc"])), np.linspace(fc2erb(250), fc2erb(8000), 50))
    assert (result["detector"], result["compression"]) == ("power", "none")
    own = {"subject": subject, "model": model}
    expected, _ = expected_frames(samples, fs, result, DRNL[filterbank], full_scale, **own)
    np.testing.assert_allclose(result["frames"], expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_analyze_fast_drnl_takes_as_many_samples_as_low_filters_need(capsys, tmp_path, out):
    path, results = tmp_path / "low.wav", []
    soundfile.write(path, noise(0.3, 96000), 96000, subtype="FLOAT")
    for filterbank in ("drnl", "fast-drnl"):
        given = ["--filterbank", filterbank, "--flow", 50, "--fhigh", 100, "--channels", 2, "--no-plot"]
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            status, _, _ = run(capsys, "analyze", path, "--out", out / filterbank, *given)
        assert status == 0
        results.append(np.load(out / filterbank / "low.npz")["frames"])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-3, atol=1e-3 * results[0].max())


def test_analyze_drnl_of_a_tone_gives_its_output_level(capsys, tmp_path, out):
    fs, tone, path = 16000, 1000.0, tmp_path / "tone.wav"
    soundfile.write(path, np.sin(2 * np.pi * tone * np.arange(fs // 2) / fs), fs, subtype="FLOAT")
    found = []
    for sound_level in (60, 80):
        options = ["--filterbank", "drnl", "--flow", tone, "--channels", 1, "--full-scale-db", sound_level]
        options.append("--no-plot")
        run(capsys, "analyze", path, "--out", out, *options)
        found.append(10 * np.log10(np.load(out / "tone.npz")["frames"][0, 0, 30:].mean()))
    # The stapes at 1 kHz and 60 dB SPL: a peak velocity of 1.2e-5 m/s.
    velocity_level = 20 * np.log10(1.2e-5 / np.sqrt(2))
    expected = DRNLFilterbank([tone], fs).io_function([velocity_level, velocity_level + 20], tone)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert found[1] - found[0] < 10


@pytest.mark.parametrize(
    ("filterbank", "reference", "described"),
    [("gammatone", "full scale", "gammatone"), ("drnl", "1 m/s", "drnl (NH, paulick2024), full scale 100 dB SPL")],
)
def test_pictures_say_what_levels_refer_to(capsys, tmp_path, out, monkeypatch, filterbank, reference, described):
    drawn = []
    draw = plot.cochleagram
    monkeypatch.setattr(plot, "cochleagram", lambda *given, **named: drawn.append(named) or draw(*given, **named))
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(0.1, 16000), 16000)
    run(capsys, "analyze", path, "--out", out, "--filterbank", filterbank, "--channels", 4)
    (named,) = drawn
    assert named["reference"] == reference
    assert named["title"] == f"x.wav: {described}, 4 filters, 16000 Hz"


WITH_LEVELS = (
    "drnl, fast-drnl, --spectrum multires, --spectrum moore2016, --excitation glasberg2002 and --excitation moore2016"
)
WITH_HOPS = "drnl, fast-drnl, gammatone, --spectrum moore2016 and --excitation moore2016"
FILTERS = "drnl, fast-drnl and gammatone"


@pytest.mark.parametrize(
    ("analysis", "option", "value", "having"),
    [
        ([], "--subject", "NH", "drnl and fast-drnl"),
        ([], "--model", "paulick2024", "drnl and fast-drnl"),
        ([], "--full-scale-db", "100", WITH_LEVELS),
        ([], "--calibration", "tone.wav", WITH_LEVELS),
        (MULTIRES, "--subject", "NH", "drnl and fast-drnl"),
        (MULTIRES, "--hop", "0.01", WITH_HOPS),
        (GLASBERG_EXCITATION, "--frame", "0.01", FILTERS),
        (MOORE, "--frame", "0.01", FILTERS),
        (MOORE_EXCITATION, "--detector", "power", FILTERS),
        (MULTIRES, "--compression", "none", FILTERS),
        (MULTIRES, "--floor", "1e-6", FILTERS),
        (MULTIRES, "--field", "free", "--excitation glasberg2002 and --excitation moore2016"),
        (MULTIRES, "--fs", "32000", FILTERS),
        (MOORE, "--flow", "100", FILTERS),
        (MOORE, "--fs", "16000", FILTERS),
        (GLASBERG_EXCITATION, "--channels", "30", FILTERS),
        (MOORE_EXCITATION, "--fhigh", "9000", FILTERS),
    ],
)
def test_options_are_refused_where_they_do_nothing(capsys, tmp_path, out, analysis, option, value, having):
    path = tmp_path / "sound.wav"
    soundfile.write(path, noise(0.1, 16000), 16000)
    problem = refusal(capsys, "analyze", path, "--out", out, *analysis, option, value)
    assert problem == f"{option} is for {having}, not for {' '.join(analysis) or 'gammatone'}"
    assert not out.exists()


@pytest.mark.parametrize("filterbank", DRNL)
def test_analyze_drnl_keeps_its_paths_below_nyquist(capsys, tmp_path, out, filterbank):
    path = tmp_path / "sound.wav"
    soundfile.write(path, noise(0.1, 16000), 16000)
    options = ["--filterbank", filterbank, "--fhigh", "8000"]
    status, _, errors = run(capsys, "analyze", path, "--out", out, *options)
    assert status == 1
    assert f"{path}: fc must keep the paths' centre frequencies below fs/2 = 8000 Hz" in errors
    assert "--fhigh" in errors
    assert files_in(out) == []


def chord(seconds, fs, channels):
    """Tones: few components, as an excitation pattern takes time proportional to the square of their number."""
    t, hertz = np.arange(round(seconds * fs)), np.array([[300.0, 700, 3000], [400, 900, 5000]])[:channels]
    return 0.2 * np.sin(2 * np.pi * hertz * t[:, None, None] / fs).sum(-1)


def one_shot(analysis, samples, full_scale_db, milliseconds=10, field=None):
    """What the modules give for `samples` (T, C) of full scale 1 at 32 kHz, through an ear in a `field` if there is."""
    x = torch.from_numpy(samples.T.astype(np.float32))
    if field:
        ear = OuterMiddleEar(field=field)
        x = ear(torch.nn.functional.pad(x, (0, ear.delay)))[:, ear.delay :]
    given = modules(analysis, x, full_scale_db, milliseconds)
    return {name: values.numpy() for name, values in given.items()}


def modules(analysis, x, full_scale_db, milliseconds):
    if "moore2016" in analysis:
        ears = Moore2016Spectrum(segment_duration=milliseconds, db_max=full_scale_db)(x.expand(2, -1)[None])
        freqs, levels = (torch.cat(pair)[: len(x)] for pair in (ears[::2], ears[1::2]))
        if analysis == MOORE:
            return {"freqs": freqs, "levels": levels}
        pattern = Moore2016ExcitationPattern()
        return {"levels": pattern(freqs, levels), "fc": pattern.fc_channels}
    psd, freqs = MultiResolutionFFT()(full_scale_pascal(full_scale_db) * x)
    bands = ERBIntegration()
    if analysis == MULTIRES:
        return {"psd": psd, "freqs": freqs, "levels": bands(psd, freqs), "fc": bands.fc_erb}
    return {"levels": ExcitationPattern()(bands(psd, freqs)), "fc": bands.fc_erb}


def field_of(analysis):
    """That of `--field` by default."""
    return "free" if analysis[0] == "--excitation" else None


@pytest.mark.parametrize("analysis", SPECTRA)
@pytest.mark.parametrize("channels", [1, 2])
def test_spectra_are_those_of_the_modules(capsys, tmp_path, out, analysis, channels):
    fs, path = 32000, tmp_path / "sound.wav"
    samples = (chord if analysis == MOORE_EXCITATION else noise)(0.1, fs, channels) * [1, 0.1][:channels]
    soundfile.write(path, samples, fs, subtype="FLOAT")
    moore = "moore2016" in analysis
    options = ["--hop", "0.002"] if moore else []
    # The pictures of one channel are enough.
    pictures = ["sound.png"] if channels == 1 else []
    options += [] if pictures else ["--no-plot"]
    status, printed, errors = run(capsys, "analyze", path, "--out", out, *analysis, "--full-scale-db", 80, *options)
    assert (status, errors) == (0, "")
    assert re.search(r"0\.10 s of sound in [\d.]+ s, full scale 80 dB SPL: ", printed)
    assert files_in(out) == ["sound.npz", *pictures]
    assert all(is_picture(out / picture) for picture in pictures)

    result = np.load(out / "sound.npz")
    field = field_of(analysis)
    expected = one_shot(analysis, samples, 80.0, milliseconds=2, field=field)
    common = {"times", "hop", "full_scale_db", "fs", "source_fs", "source", "source_path", "cut_off", "results"}
    common |= {"field"} if field else set()
    assert not field or result["field"] == field
    assert set(result) == {*expected, *common, analysis[0].removeprefix("--")}
    for name, values in expected.items():
        assert result[name].dtype == np.float32
        atol = 1e-3 if field else 1e-30  # dB far below the sound, where rounding of the ear's filter is what is heard
        np.testing.assert_allclose(result[name], values, rtol=1e-5, atol=atol, err_msg=name)
    assert (result["fs"], result["source_fs"], result["full_scale_db"]) == (fs, fs, 80)
    assert (result["source"], result[analysis[0].removeprefix("--")]) == (str(path), analysis[1])
    frames = result["levels"].shape[1]
    hop, first = (64, 1024) if moore else (1024, 0)
    assert result["hop"] == hop
    np.testing.assert_allclose(result["times"], (first + hop * np.arange(frames)) / fs)


@pytest.mark.parametrize(
    ("analysis", "samples"),
    [
        *((analysis, 16001) for analysis in SPECTRA),
        # The sound ends with a piece, or one sample after it.
        *((MULTIRES, samples) for samples in (12 * 1024, 12 * 1024 + 1)),
        # Nothing is left for another frame, or one sample less than it takes.
        *((MOORE, samples) for samples in (30 * 320 + 2048, 31 * 320 + 2047)),
    ],
)
def test_spectra_have_no_seams(capsys, tmp_path, out, monkeypatch, analysis, samples):
    fs, path = 32000, tmp_path / "long.wav"
    # Its level rises: frames that saw other samples than they should stand out, and lists of components get longer.
    x = (chord if analysis == MOORE_EXCITATION else noise)(1, fs, 2)[:samples]
    x = x * 10 ** np.linspace(-3, 0, samples)[:, None]
    soundfile.write(path, x, fs, subtype="FLOAT")
    monkeypatch.setattr(
        cli_analysis, "_BLOCK_ELEMENTS", 2 * 12 * 1024 * 2 if "moore2016" not in analysis else 8 * 2 * 960 * 3
    )
    cut, pieces = cli_sound.overlapping, []
    monkeypatch.setattr(cli_analysis, "overlapping", lambda *given: (pieces.append(p) or p for p in cut(*given)))
    status, _, errors = run(capsys, "analyze", path, "--out", out, *analysis, "--no-plot")
    assert (status, errors) == (0, "")
    assert len(pieces) > 3
    result = np.load(out / "long.npz")
    for name, values in one_shot(analysis, x, 100.0, field=field_of(analysis)).items():
        np.testing.assert_allclose(result[name], values, rtol=1e-4, atol=1e-4 * np.abs(values).max(), err_msg=name)


@pytest.mark.parametrize("analysis", EXCITATIONS)
@pytest.mark.parametrize("field", ["free", "diffuse", "eardrum", "none"])
def test_excitation_through_an_ear(capsys, tmp_path, out, analysis, field):
    """Of a tone its level changes by what the ear does to it at its frequency; without an ear by nothing."""
    fs, path = 32000, tmp_path / "tone.wav"
    t = np.arange(fs // 2) / fs
    # A short tone at 0.3 s, which stays where it is in time: the filter is late by 64 ms.
    soundfile.write(path, np.where(abs(t - 0.3) < 0.07, 0.1 * np.sin(2 * np.pi * 3000 * t), 0), fs, subtype="FLOAT")
    options = [*analysis, "--full-scale-db", 80, "--no-plot"]
    found = {}
    for name in ("none", field):
        assert run(capsys, "analyze", path, "--out", out, *options, "--field", name)[0] == 0
        found[name] = np.load(out / "tone.npz")
        assert found[name]["field"] == name
    channel = np.abs(found["none"]["fc"] - 3000).argmin()
    before, after = (10 ** (result["levels"][0, :, channel] / 10) for result in (found["none"], found[field]))
    gain = {"free": 8.0, "diffuse": 7.2, "eardrum": -7.3, "none": 0.0}[field]  # Moore et al. (2016)
    # What overlapping bands add up to, Glasberg and Moore's excitation grows by a little less than the level.
    assert 10 * np.log10(after.max() / before.max()) == pytest.approx(gain, abs=0.5)
    for power in (before, after):
        middle = (power * found["none"]["times"]).sum() / power.sum()
        assert middle == pytest.approx(0.3, abs=0.004)  # of frames every 10 or 32 ms


@pytest.mark.parametrize("analysis", EXCITATIONS)
def test_sound_shorter_than_the_delay_of_the_ear(capsys, tmp_path, out, analysis, monkeypatch):
    """And in pieces of a few samples, which come out where they were."""
    path, x = tmp_path / "short.wav", noise(0.1, 32000)[:2400]
    soundfile.write(path, x, 32000, subtype="FLOAT")
    cut, options = cli_sound.resampled, [*analysis, "--no-plot"]
    monkeypatch.setattr(cli_sound, "resampled", lambda sound, fs, length: cut(sound, fs, 500))
    assert run(capsys, "analyze", path, "--out", out, *options)[0] == 0
    for name, values in one_shot(analysis, x, 100.0, field="free").items():
        np.testing.assert_allclose(np.load(out / "short.npz")[name], values, rtol=1e-4, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("fs", [32000, 44100])
def test_spectra_read_the_level_of_a_tone(capsys, tmp_path, out, fs):
    # Away from 1 kHz, where two windows meet; 60 dB below a full scale of 120 dB SPL.
    tone, path = 1500.0, tmp_path / "tone.wav"
    soundfile.write(path, 1e-3 * np.sin(2 * np.pi * tone * np.arange(fs // 4) / fs), fs, subtype="FLOAT")
    results = []
    for analysis in SPECTRA:
        status, _, _ = run(capsys, "analyze", path, "--out", out, *analysis, "--full-scale-db", 120, "--no-plot")
        assert status == 0
        results.append(dict(np.load(out / "tone.npz")))
        assert (results[-1]["fs"], results[-1]["source_fs"]) == (32000, fs)
    multires, sparse, *patterns = results

    power = multires["psd"][0, 4].sum() * multires["freqs"][1]
    assert pascal2spl(np.sqrt(power)) == pytest.approx(60, abs=0.1)
    # AMT's factor for the Hann window, 3.32 dB, is less than the 3/8 that the window takes.
    levels = sparse["levels"][0, 10][sparse["freqs"][0, 10] > 0]
    assert 10 * np.log10((10 ** (levels / 10)).sum()) == pytest.approx(60 + 3.32 + 10 * np.log10(3 / 8), abs=0.1)
    assert abs(sparse["freqs"][0, 10, levels.argmax()] - tone) < 16
    # Spreading adds up what neighbouring bands have, which overlap.
    for result, frame, most in ((multires, 4, 60.0), (patterns[0], 4, 64.0), (patterns[1], 10, 60.0)):
        levels = result["levels"][0, frame]
        assert most - 3 < levels.max() <= most
        assert abs(fc2erb(float(result["fc"][levels.argmax()])) - fc2erb(tone)) < 0.6


@pytest.mark.parametrize("analysis", SPECTRA)
def test_spectra_of_silence(capsys, tmp_path, out, analysis):
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(16000), 32000)
    status, _, errors = run(capsys, "analyze", path, "--out", out, *analysis)
    assert (status, errors) == (0, "")
    assert np.isfinite(np.load(out / "silence.npz")["levels"]).all()
    assert is_picture(out / "silence.png")


@pytest.mark.parametrize(
    ("analysis", "fs", "samples", "reason"),
    [
        (MULTIRES, 32000, 1024, "holds 1024 samples, which makes 1024 at 32000 Hz; --spectrum multires needs 1025"),
        (GLASBERG_EXCITATION, 16000, 500, "which makes 1000 at 32000 Hz; --excitation glasberg2002 needs 1025"),
        (MOORE, 32000, 2367, "--spectrum moore2016 needs 2368 or more"),
        (MOORE_EXCITATION, 32000, 0, "--excitation moore2016 needs 2368 or more"),
    ],
)
def test_spectra_need_some_samples(capsys, tmp_path, out, analysis, fs, samples, reason):
    enough = int(re.search(r"needs (\d+)", reason)[1])
    soundfile.write(tmp_path / "short.wav", noise(1, fs)[:samples], fs)
    soundfile.write(tmp_path / "enough.wav", noise(1, 32000)[:enough], 32000)
    status, _, errors = run(capsys, "analyze", tmp_path / "short.wav", tmp_path / "enough.wav", "--out", out, *analysis)
    assert status == 1
    assert reason in errors
    assert files_in(out) == ["enough.npz", "enough.png"]


@pytest.mark.parametrize("analysis", SPECTRA)
def test_spectra_of_many_channels(capsys, tmp_path, out, analysis):
    path = tmp_path / "many.wav"
    soundfile.write(path, noise(0.1, 32000, 5), 32000)
    status, _, errors = run(capsys, "analyze", path, "--out", out, *analysis)
    if "moore2016" in analysis:
        assert status == 1
        assert f"has 5 channels, but {' '.join(analysis)} is for one or two: it has two ears" in errors
        assert files_in(out) == []
    else:
        assert status == 0
        assert len(np.load(out / "many.npz")["levels"]) == 5


@pytest.mark.parametrize("analysis", SPECTRA)
def test_spectra_refuse_samples_beyond_single_precision(capsys, tmp_path, out, analysis):
    path = tmp_path / "huge.wav"
    soundfile.write(path, 1e30 * noise(0.1, 32000), 32000, subtype="FLOAT")
    status, _, errors = run(capsys, "analyze", path, "--out", out, *analysis)
    assert status == 1
    assert re.search(r"has samples as large as 4\.9\d*e\+29, too large for single precision", errors)
    assert files_in(out) == []


@pytest.mark.parametrize("hop", ["0.0015", "0.0001"])
def test_moore2016_takes_whole_milliseconds(capsys, out, hop):
    problem = refusal(capsys, "analyze", "x.wav", "--out", out, *MOORE, "--hop", hop)
    assert problem.startswith(
        f"--hop is {hop} s, but has to be a whole number of milliseconds for --spectrum moore2016"
    )
    assert not out.exists()


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 0), (319, 0), (320, 1), (479, 1), (480, 2), (481, 2)])
def test_analyze_very_short_files(capsys, tmp_path, out, samples, frames):
    path = tmp_path / "short.wav"
    soundfile.write(path, noise(1, 16000)[:samples], 16000)
    status, _, errors = run(capsys, "analyze", path, "--out", out, "--channels", 1, "--frame", "0.02")
    if frames:
        assert (status, errors) == (0, "")
        assert np.load(out / "short.npz")["frames"].shape == (1, 1, frames)
        assert is_picture(out / "short.png")
    else:
        assert status == 1
        assert f"holds {samples} samples, which makes {samples} at 16000 Hz; a frame takes 320" in errors
        assert files_in(out) == []


def test_analyze_resamples(capsys, tmp_path, out):
    fs, tone = 44100, 1000.0
    path = tmp_path / "tone.wav"
    t = np.arange(fs // 2) / fs
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * tone * t), fs, subtype="FLOAT")
    status, printed, _ = run(
        capsys, "analyze", path, "--out", out, "--fs", 16000, "--flow", 100, "--fhigh", 7000, "--no-plot"
    )
    assert status == 0
    assert " s, resampled from 44100 to 16000 Hz: " in printed
    result = np.load(out / "tone.npz")
    assert (result["fs"], result["source_fs"], result["hop"]) == (16000, 44100, 160)
    assert result["frames"].shape == (1, 64, 50)
    steady = np.sqrt(result["frames"][0, :, 20:45].mean(-1))
    loudest = result["fc"][steady.argmax()]
    assert abs(fc2erb(float(loudest)) - fc2erb(tone)) < 0.5
    assert steady.max() == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_analyze_draws_no_more_channels_than_fit(capsys, tmp_path, out):
    path = tmp_path / "many.wav"
    soundfile.write(path, noise(0.1, 8000, 6), 8000)
    status, _, _ = run(capsys, "analyze", path, "--out", out, "--channels", 3)
    assert status == 0
    assert np.load(out / "many.npz")["frames"].shape == (6, 3, 10)


def write_bad_files(folder):
    for name in ("text.wav", "notes.txt", "nameless"):
        (folder / name).write_text("this is no sound")
    (folder / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(100))
    for name, fs in (("slow.wav", 1), ("fast.wav", 2_000_000)):
        soundfile.write(folder / name, noise(0.1, 16000), fs)
    (folder / "headerless.raw").write_bytes(bytes(100))
    (folder / "folder.wav").mkdir()
    soundfile.write(folder / "empty.wav", np.zeros((0, 1)), 16000)
    (folder / "zero.wav").touch()
    nan = noise(0.1, 16000, 2)
    nan[700, 1] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16000, subtype="FLOAT")
    soundfile.write(folder / "infinite.wav", np.full(10, np.inf), 16000, subtype="FLOAT")
    soundfile.write(folder / "huge.wav", np.full(1000, 1e30), 16000, subtype="FLOAT")
    return {
        "text.wav": "cannot be read as sound: Format not recognised; if",
        "nameless": "cannot be read as sound: Format not recognised; if",
        "notes.txt": "cannot be read as sound: Format not recognised",
        "phone.m4a": "ffmpeg -i IN.m4a OUT.wav makes it WAV",
        "headerless.raw": "cannot be read as sound: raw samples without a header",
        "slow.wav": "has a sampling rate of 1 Hz; it has to be from 1000 to 1000000 Hz",
        "fast.wav": "has a sampling rate of 2000000 Hz",
        "folder.wav": "there is no sound file in this folder",
        "missing.wav": "there is no such file",
        "empty.wav": "holds 0 samples",
        "zero.wav": "is empty: a file of 0 bytes",
        "nan.wav": "sample 700 of channel 2 is nan",
        "infinite.wav": "sample 0 of channel 1 is inf",
        "huge.wav": "as large as 1e+30",
    }


def test_analyze_reports_bad_files_and_goes_on(capsys, tmp_path, out):
    reasons = write_bad_files(tmp_path)
    soundfile.write(tmp_path / "first.wav", noise(0.1, 16000), 16000)
    soundfile.write(tmp_path / "last.wav", noise(0.1, 16000), 16000)
    given = [tmp_path / name for name in ("first.wav", *reasons, "last.wav")]
    status, printed, errors = run(capsys, "analyze", *given, "--out", out, "--channels", 4)
    assert status == 1
    assert files_in(out) == ["first.npz", "first.png", "last.npz", "last.png"]
    assert len(printed.splitlines()) == 2
    lines = errors.splitlines()
    assert len(lines) == len(reasons) + 1
    for name, reason in reasons.items():
        assert any(line.startswith(f"tamt: {tmp_path / name}: ") and reason in line for line in lines)
    assert f"tamt: {tmp_path / 'notes.txt'}: {reasons['notes.txt']}" in lines
    assert lines[-1] == f"tamt: {len(reasons)} of {len(reasons) + 2} inputs could not be analysed"


def test_analyze_leaves_nothing_half_written(capsys, tmp_path, out, monkeypatch):
    path = tmp_path / "sound.wav"
    soundfile.write(path, noise(0.1, 16000), 16000)

    def no_space(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", no_space)
    status, _, errors = run(capsys, "analyze", path, "--out", out)
    assert status == 1
    assert "No space left on device" in errors
    assert files_in(out) == []


def test_analyze_keeps_results_of_equal_names_apart(capsys, tmp_path, out):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "x.wav", noise(0.1, 16000, seed=ord(folder)), 16000)
    for extension in ("wav", "flac"):
        soundfile.write(tmp_path / f"y.{extension}", noise(0.1, 16000), 16000)
    # What a file system is like that does not tell case apart: two names, one file.
    os.link(tmp_path / "y.wav", tmp_path / "Y.WAV")
    again = ("a/x.wav", "b/../b/x.wav", "Y.WAV")
    given = [tmp_path / name for name in ("a/x.wav", "b/x.wav", "y.wav", "y.flac", *again)]
    status, printed, _ = run(capsys, "analyze", *given, "--out", out, "--channels", 4, "--no-plot")
    assert status == 0
    names = ["a-x.wav", "b-x.wav", "y.wav", "y.flac"]
    for line, path, name in zip(printed.splitlines(), given, names, strict=False):
        assert line.startswith(f"{path}: ")
        assert line.endswith(str(out / f"{name}.npz"))
    assert files_in(out) == sorted(f"{name}.npz" for name in names)
    assert not np.array_equal(np.load(out / "a-x.wav.npz")["frames"], np.load(out / "b-x.wav.npz")["frames"])


@pytest.mark.parametrize(
    ("names", "results"),
    [
        (["/r/s1.wav", "/r/s1.flac", "/r/s2.wav"], ["s1.wav", "s1.flac", "s2"]),
        # What a stem clashes with keeps its own name.
        (["/r/s1.wav", "/r/s1.flac", "/r/s1.wav.mp3"], ["s1.wav", "s1.flac", "s1.wav.mp3"]),
        (["/r/A/x.wav", "/r/B/X.wav", "/r/x-2.wav"], ["A-x.wav", "B-X.wav", "x-2"]),
        (["/p/a/x.wav", "/q/a/x.wav", "/q/b/x.wav"], ["p-a-x.wav", "q-a-x.wav", "b-x.wav"]),
        (["/a/caf\u00e9.wav", "/b/cafe\u0301.wav"], ["a-caf\u00e9.wav", "b-cafe\u0301.wav"]),
        (["/x.wav", "/a/x.wav"], [r"x\.wav-[0-9a-f]{16}", "a-x.wav"]),
        (["/a/b-x.wav", "/a-b/x.wav", "/a/b/x.wav"], ["b-x", "a-b-x.wav", "b-x.wav"]),
        (["/b/x.wav", "/a-b/x.wav", "/a/b/x.wav"], [r"x\.wav-[0-9a-f]{16}"] * 2 + ["a-b-x.wav"]),
    ],
)
def test_result_names_do_not_depend_on_the_order(names, results):
    if os.name != "posix":
        names = [f"C:{name}" for name in names]
    expected = dict(zip(names, results, strict=True))
    for order in itertools.permutations(names):
        found = files.result_names([Path(name) for name in order])
        for name, result in zip(order, found, strict=True):
            assert result == expected[name] or re.fullmatch(expected[name], result)


def test_result_names_fit_the_file_system():
    short, long, longer = (Path("/", stem + ".au") for stem in ("x" * 251, "x" * 252, "\u00e9" * 200))
    names = files.result_names([short, long, longer])
    assert names[0] == short.stem
    assert all(len(os.fsencode(f"{name}.npz")) <= 255 for name in names)
    assert re.fullmatch(r"x{234}-[0-9a-f]{16}", names[1])
    assert re.fullmatch(r"\u00e9{117}-[0-9a-f]{16}", names[2])


def test_folders_mean_the_sound_files_in_and_below_them(capsys, tmp_path, out):
    folder = tmp_path / "corpus"
    for name in ("b.wav", "a/z.FLAC", "a/deep/y.ogg", ".hidden.wav", ".cache/x.wav", "link.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            soundfile.write(file, noise(0.1, 16000), 16000, format=name[-4:].lstrip(".").upper())
    for name in ("notes.txt", "a/phone.m4a", "broken.wav"):
        (folder / name).write_text("no sound")
    (tmp_path / "same").symlink_to(folder)
    (tmp_path / "empty").mkdir()
    given = [tmp_path / name for name in ("corpus", "corpus/b.wav", "same", "empty")]
    status, printed, errors = run(capsys, "analyze", *given, "--out", out, "--channels", 1, "--no-plot")
    assert status == 1
    assert [line.partition(": ")[0] for line in printed.splitlines()] == [
        str(folder / name) for name in ("a/deep/y.ogg", "a/z.FLAC", "b.wav", "link.wav")
    ]
    assert files_in(out) == ["b.npz", "link.npz", "y.npz", "z.npz"]
    notes = errors.splitlines()
    assert len(notes) == 5
    assert notes[0].startswith(f"tamt: {tmp_path / 'empty'}: there is no sound file in this folder; their names end in")
    left_out = "left out 1 file of .m4a (soundfile does not read it; ffmpeg -i IN.m4a OUT.wav makes it WAV)"
    assert notes[1:3] == [f"tamt: {tmp_path / name}: {left_out}" for name in ("corpus", "same")]
    assert notes[3].startswith(f"tamt: {folder / 'broken.wav'}: cannot be read as sound")
    assert notes[4] == "tamt: 2 of 6 inputs could not be analysed"


def test_formats_of_soundfile_have_extensions():
    known = {*files._EXTENSIONS, "MAT4", "MAT5", "RAW", "WAVEX"}
    assert known >= set(soundfile.available_formats())


def test_whatever_goes_wrong_with_a_file_is_said_for_it(capsys, tmp_path, out, monkeypatch):
    problems = {
        "memory.wav": (MemoryError(), "there is not enough memory"),
        "array.wav": (MemoryError("Unable to allocate 8 GiB"), "there is not enough memory: Unable to allocate 8 GiB"),
        "torch.wav": (RuntimeError("first\n  second"), "RuntimeError: first second"),
        "long.wav": (ValueError("x " * 1000), f"ValueError: {'x ' * 148}..."),
        "output.wav": (BrokenPipeError(32, "Broken pipe"), "[Errno 32] Broken pipe"),
    }
    analysis_of = analyze.analysis_of

    def fail(path, *rest):
        if path.name in problems:
            raise problems[path.name][0]
        return analysis_of(path, *rest)

    monkeypatch.setattr(analyze, "analysis_of", fail)
    soundfile.write(tmp_path / "last.wav", noise(0.1, 16000), 16000)
    given = [tmp_path / name for name in (*problems, "last.wav")]
    status, _, errors = run(capsys, "analyze", *given, "--out", out, "--channels", 1, "--no-plot")
    assert status == 1
    assert files_in(out) == ["last.npz"]
    said = [f"tamt: {tmp_path / name}: {reason}" for name, (_, reason) in problems.items()]
    assert errors.splitlines() == [*said, "tamt: 5 of 6 inputs could not be analysed"]


@pytest.mark.skipif(os.name != "posix", reason="other systems do not allow such names")
def test_any_name_is_analysed_and_shown(tmp_path, out):
    names = {
        r"$$ $\foo$.wav": rb"$$ $\foo$.wav",
        "new\nline.wav": rb"new\nline.wav",
        "\u65e5.wav": rb"\u65e5.wav",
        "x" * 240 + ".wav": b"x" * 240 + b".wav",
        os.fsdecode(b"\xff.wav"): rb"\xff.wav",
    }
    for name in names:
        with (tmp_path / name).open("wb") as file:
            soundfile.write(file, noise(0.1, 16000), 16000, format="WAV")
    command = [sys.executable, "-W", "error:Glyph", "-m", "tamt", "analyze", *names, "--out", out, "--channels", "1"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.splitlines()
    for line, shown in zip(lines, names.values(), strict=True):
        assert line.startswith(shown + b": ")
    stems = [name.removesuffix(".wav") for name in names]
    assert files_in(out) == sorted(f"{stem}.{kind}" for stem in stems for kind in ("npz", "png"))
    assert {str(np.load(out / f"{stem}.npz")["source"]) for stem in stems} == set(names)


def test_output_that_nobody_reads_ends_the_command(capfd, tmp_path, out, monkeypatch):
    soundfile.write(tmp_path / "x.wav", noise(0.1, 16000), 16000)
    # Without pictures it has to do without matplotlib, too.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    reader, writer = os.pipe()
    os.close(reader)
    # Nothing is left to be written when the stream is closed, as Python does in the end.
    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        status = cli.main(["analyze", str(tmp_path / "x.wav"), "--out", str(out), "--channels", "1", "--no-plot"])
    assert (status, capfd.readouterr().err) == (141, "")
    assert files_in(out) == ["x.npz"]


def test_output_that_cannot_be_written_is_said(capsys, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert cli.main(["info"]) == 1
    monkeypatch.undo()
    assert capsys.readouterr().err == "tamt: the output cannot be written: No space left on device\n"


def test_a_process_without_output_has_nothing_to_say(tmp_path, out, monkeypatch):
    soundfile.write(tmp_path / "x.wav", noise(0.1, 16000), 16000)
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, None)
    given = [tmp_path / name for name in ("x.wav", "missing.wav")]
    assert cli.main(["analyze", *map(str, given), "--out", str(out), "--channels", "1", "--no-plot"]) == 1
    assert files_in(out) == ["x.npz"]


@pytest.mark.skipif(os.name != "posix", reason="other systems end a process at once")
def test_a_signal_ends_the_process_and_leaves_no_drafts(tmp_path, out):
    soundfile.write(tmp_path / "x.wav", noise(0.1, 16000), 16000)
    code = """if True:
        import sys, time, numpy
        from tamt.cli import main
        numpy.savez_compressed = lambda *_, **__: print("writing", flush=True) or time.sleep(300)
        main()
    """
    command = [sys.executable, "-c", code, "analyze", tmp_path / "x.wav", "--out", out, "--no-plot"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        (draft,) = files_in(out)
        assert draft.endswith(".part")
        process.send_signal(signal.SIGTERM)
        assert process.communicate() == ("", "")
    assert process.returncode == -signal.SIGTERM
    assert files_in(out) == []


@pytest.mark.skipif(os.name != "posix", reason="other systems end a process at once")
def test_signals_of_every_kind_take_the_drafts_with_them(capsys, tmp_path, out, monkeypatch):
    soundfile.write(tmp_path / "x.wav", noise(0.1, 16000), 16000)
    arguments = ["analyze", str(tmp_path / "x.wav"), "--out", str(out), "--channels", "1", "--no-plot"]
    monkeypatch.setattr(sys, "argv", ["tamt", *arguments])
    left = []
    monkeypatch.setattr(signal, "raise_signal", lambda number: left.append((number, files_in(out))))
    monkeypatch.setattr("numpy.savez_compressed", lambda *_, **__: os.kill(os.getpid(), number))
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    for number, before in usual.items():
        inherited = signal.signal(number, before)  # nohup, for one, has SIGHUP ignored
        try:
            cli.main()
            assert left.pop() == (number, [])
            assert signal.getsignal(number) is before
        finally:
            signal.signal(number, inherited)
    # To others that call it, and to signals that are ignored, the command leaves what they have.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            cli.main(arguments)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert files_in(out) == []
    number = signal.SIGHUP
    monkeypatch.setattr("numpy.savez_compressed", lambda *_, **__: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.main() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert left == []


def test_results_of_another_file_are_kept(capsys, tmp_path, out, monkeypatch):
    """Of two inputs of one name, in two runs; decided before a file is analysed, and the other files go on."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "x.wav", noise(0.1, 16000, seed=ord(folder)), 16000)
    soundfile.write(tmp_path / "y.wav", noise(0.1, 16000), 16000)
    first, second = (tmp_path / folder / "x.wav" for folder in ("a", "b"))
    options = ["--out", out, "--channels", 1, "--no-plot"]
    assert run(capsys, "analyze", first, *options)[0] == 0
    before = (out / "x.npz").read_bytes()
    analysed, analysis_of = [], analyze.analysis_of
    monkeypatch.setattr(analyze, "analysis_of", lambda path, *rest: analysed.append(path) or analysis_of(path, *rest))
    status, _, errors = run(capsys, "analyze", second, tmp_path / "y.wav", *options)
    refusal = (
        f"{out / 'x.npz'} is a result of another file, {first}; --overwrite replaces it, and another --out keeps both"
    )
    assert errors == f"tamt: {second}: {refusal}\ntamt: 1 of 2 inputs could not be analysed\n"
    assert (status, analysed) == (1, [tmp_path / "y.wav"])
    assert (out / "x.npz").read_bytes() == before
    # From its own folder it has the name of the other's, and is another file all the same.
    monkeypatch.chdir(first.parent)
    assert run(capsys, "analyze", "x.wav", *options)[0] == 0
    assert np.load(out / "x.npz")["source"] == "x.wav"
    monkeypatch.chdir(second.parent)
    assert run(capsys, "analyze", "x.wav", *options)[0] == 1
    assert run(capsys, "analyze", "x.wav", *options, "--overwrite")[0] == 0
    assert np.load(out / "x.npz")["source_path"] == str(second)
    # One that was moved is another.
    second.rename(tmp_path / "x.wav")
    errors = run(capsys, "analyze", tmp_path / "x.wav", *options)[2]
    assert f"is a result of another file, {second}, which is no longer there; --overwrite" in errors
    # And what does not say whose it is, a picture say, is nobody's to replace.
    for name, content in (("z.png", b"a picture"), ("z.npz", b"no archive")):
        (out / "z.npz").unlink(missing_ok=True)
        (out / name).write_bytes(content)
        soundfile.write(tmp_path / "z.wav", noise(0.1, 16000), 16000)
        status, _, errors = run(capsys, "analyze", tmp_path / "z.wav", *options[:-1])
        assert (status, (out / name).read_bytes()) == (1, content)
        assert f"{out / name} is there already, and nothing says that it is a result of this file; --over" in errors
        (out / name).unlink()


def test_what_no_run_has_written_is_kept(capsys, tmp_path, out):
    """Beside a result of the same file; a picture of an earlier run is the file's own, whatever runs came between."""
    soundfile.write(tmp_path / "x.wav", noise(0.1, 16000), 16000)
    options = [tmp_path / "x.wav", "--out", out]
    assert run(capsys, "analyze", *options, "--channels", 1, "--no-plot")[0] == 0
    for name, command in (("x.png", ["analyze", *options]), ("x.csv", ["loudness", *options, "--full-scale-db", 94])):
        (out / name).write_text("mine")
        status, _, errors = run(capsys, *command)
        assert status == 1
        assert f"{out / name} is there already, and not by {out / 'x.npz'}; --overwrite replaces it" in errors
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    for pictures in ([], ["--no-plot"], []):
        assert run(capsys, "analyze", *options, "--channels", 1, *pictures)[0] == 0
        assert np.load(out / "x.npz")["results"].tolist() == ["x.npz", "x.png"]


def test_several_processes_do_what_one_does(capsys, tmp_path, out):
    """The same results, and the same messages in the same order."""
    for number, seconds in enumerate((1.5, 0.2, 0.1)):
        soundfile.write(tmp_path / f"{number}.wav", noise(seconds, 16000, seed=number), 16000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "0.wav").read_bytes()[:20000])
    (tmp_path / "text.wav").write_text("this is no sound")
    given = [tmp_path / f"{name}.wav" for name in ("0", "missing", "1", "text", "cut", "2")]
    said = []
    for jobs in (1, 2):
        folder = out / str(jobs)
        options = ["--out", folder, "--channels", 4, "--no-plot", "--jobs", jobs]
        status, printed, errors = run(capsys, "analyze", *given, *options)
        assert (status, files_in(folder)) == (1, ["0.npz", "1.npz", "2.npz", "cut.npz"])
        said.append((re.sub(r"in [\d.]+ s", "", printed).replace(str(folder), ""), errors))
    assert said[0] == said[1]
    assert (len(said[0][0].splitlines()), len(said[0][1].splitlines())) == (4, 4)
    for name in files_in(out / "1"):
        one, two = (np.load(out / jobs / name) for jobs in ("1", "2"))
        assert all(np.array_equal(one[key], two[key]) for key in one)


prepare = analyze._prepare


def prepare_with_a_fatal_file(arguments):
    """Work that ends its process; the processes import this function."""
    work = prepare(arguments)

    def do(path, *rest):
        if path.name == "fatal.wav":
            os.kill(os.getpid(), signal.SIGKILL)
        return work.do(path, *rest)

    return work._replace(do=do)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals")
def test_a_process_that_dies_takes_its_file_alone(capsys, tmp_path, out, monkeypatch):
    names = ["a", "fatal", "b", "c"]
    for name in names:
        soundfile.write(tmp_path / f"{name}.wav", noise(0.1, 16000), 16000)
    monkeypatch.setattr(analyze, "_prepare", prepare_with_a_fatal_file)
    options = ["--out", out, "--channels", 4, "--no-plot", "--jobs", 2]
    status, _, errors = run(capsys, "analyze", *(tmp_path / f"{name}.wav" for name in names), *options)
    assert (status, files_in(out)) == (1, ["a.npz", "b.npz", "c.npz"])
    assert errors.splitlines()[0] == f"tamt: {tmp_path / 'fatal.wav'}: the process that worked on it ended (SIGKILL)"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="other systems end a process at once")
@pytest.mark.parametrize(
    ("moment", "drafts"),
    [
        # As they import torch, say, before any of their own lines.
        ("if __name__ != '__main__': print(os.getpid(), flush=True); time.sleep(1); os._exit(0)", 0),
        ("numpy.savez_compressed = lambda *_, **__: print(os.getpid(), flush=True) or time.sleep(300)", 2),
    ],
)
def test_an_interrupt_ends_all_processes_and_leaves_no_drafts(tmp_path, out, moment, drafts):
    """Ctrl-C, which every process of the terminal gets."""
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", noise(0.1, 16000), 16000)
    script = tmp_path / "script.py"
    main = "from tamt_command import main\nif __name__ == '__main__': main()\n"
    script.write_text(f"import os, time, numpy\n{moment}\n{main}")
    command = [sys.executable, script, "analyze", tmp_path, "--out", out, "--no-plot", "--channels", "1", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env=environment, start_new_session=True) as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        assert len(files_in(out)) == drafts
        assert len({process.pid, *workers}) == 3
        os.killpg(process.pid, signal.SIGINT)
        # Of the workers too, which have it open.
        assert process.communicate() == ("", "tamt: interrupted, 0 of 3 files done\n")
    assert process.returncode == -signal.SIGINT
    assert files_in(out) == []


@pytest.mark.parametrize(
    ("kind", "subtype", "channels"),
    [("WAV", "PCM_24", 2), ("RF64", "PCM_16", 1), ("AIFF", "PCM_16", 2), ("AU", "FLOAT", 1)],
)
def test_a_file_that_was_cut_off_is_analysed_and_said_to_be(capsys, tmp_path, out, kind, subtype, channels):
    path = tmp_path / f"x.{kind.lower()}"
    soundfile.write(path, noise(0.1, 16000, channels), 16000, format=kind, subtype=subtype)
    whole, size = path.read_bytes(), channels * int({"PCM_24": 3, "PCM_16": 2, "FLOAT": 4}[subtype])
    header = len(whole) - 1600 * size
    options = ["--out", out, "--channels", 1, "--no-plot"]
    assert run(capsys, "analyze", path, *options)[2] == ""
    path.write_bytes(whole[: header + 1000 * size + 1])
    status, _, errors = run(capsys, "analyze", path, *options)
    cut = "was cut off: 1000 of the 1600 samples that its header says are there, and only these are used"
    assert (status, errors) == (0, f"tamt: {path}: {cut}\n")
    result = np.load(out / "x.npz")
    assert (result["frames"].shape[-1], result["cut_off"]) == (6, 1600)


@pytest.mark.parametrize(("kind", "subtype"), [("MP3", "MPEG_LAYER_III"), ("WAV", "IMA_ADPCM")])
def test_of_compressed_sound_that_was_cut_off_the_number_is_rough(capsys, tmp_path, out, kind, subtype):
    path = tmp_path / f"x.{kind.lower()}"
    soundfile.write(path, noise(1, 16000), 16000, format=kind, subtype=subtype)
    path.write_bytes(path.read_bytes()[:4000])
    status, _, errors = run(capsys, "analyze", path, "--out", out, "--channels", 1, "--no-plot")
    said = re.fullmatch(rf"tamt: {path}: was cut off: (\d+) of about (\d+) samples .*\n", errors)
    there, promised = map(int, said.groups())
    assert (status, promised) == (0, pytest.approx(16000, rel=0.1))
    result = np.load(out / "x.npz")
    assert 0 < result["frames"].shape[-1] == there // 160 < 90
    assert result["cut_off"] == promised


@pytest.mark.parametrize("promised", [0xFFFF_FFFF, 0x7FFF_F000, 0x7FFF_F000 // 6 * 6, 0x7FFF_FFFF, 0x8000_0000])
def test_a_stream_that_did_not_know_its_length_is_read_to_the_end(capsys, tmp_path, out, promised):
    """As ffmpeg, sox and arecord write it into a pipe: nothing is missing."""
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(0.1, 16000, 2), 16000, subtype="PCM_24")
    whole = path.read_bytes()
    place = whole.index(b"data") + 4
    path.write_bytes(whole[:place] + struct.pack("<I", promised) + whole[place + 4 :])
    status, _, errors = run(capsys, "analyze", path, "--out", out, "--channels", 1, "--no-plot")
    assert (status, errors) == (0, "")
    assert np.load(out / "x.npz")["frames"].shape[-1] == 10


@pytest.mark.parametrize("riff", [0, 36, 0xFFFF_FFFF])
@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
def test_a_wav_file_that_was_not_closed_is_read_to_the_end(capsys, tmp_path, out, riff, subtype):
    """Its header says that there is no sound; one with other chunks behind no sound says so rightly."""
    options = ["--out", out, "--channels", 1, "--no-plot"]
    samples, frames = noise(0.1, 16000, 2), []
    for name, x in (("whole", samples), ("x", samples), ("silence", 0 * samples), ("none", samples[:0])):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, x, 16000, subtype=subtype)
        content = path.read_bytes()
        if name == "none":
            path.write_bytes(content + b"LIST\4\0\0\0INFO")
        elif name != "whole":
            place = content.index(b"data") + 4
            header = content[:4] + struct.pack("<I", riff) + content[8:place]
            path.write_bytes(header + bytes(4) + content[place + 4 :])
        status, _, errors = run(capsys, "analyze", path, *options)
        if name == "none":
            assert (status, errors.partition(", ")[0]) == (1, f"tamt: {path}: holds 0 samples")
            continue
        frames.append(np.load(out / f"{name}.npz")["frames"])
        said = (
            f"tamt: {path}: was not closed by what wrote it: its header says that it holds no sound, but 1600 samples"
        )
        assert (status, errors.startswith(said), errors == "") == (0, name != "whole", name == "whole")
    np.testing.assert_array_equal(frames[0], frames[1])
    assert not frames[2].any()


def test_of_other_files_that_were_not_closed_the_size_is_said(capsys, tmp_path, out):
    path = tmp_path / "x.au"
    soundfile.write(path, noise(1, 16000), 16000, subtype="PCM_16")
    content = path.read_bytes()
    path.write_bytes(content[:8] + bytes(4) + content[12:])
    status, _, errors = run(capsys, "analyze", path, "--out", out, "--no-plot")
    said = f"tamt: {path}: has {len(content)} bytes, but its header says that there is no sound in them"
    assert (status, errors.splitlines()[0]) == (1, said)
    assert "holds 0 samples" in errors


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names there")
def test_sound_comes_through_pipes(capsys, tmp_path, out):
    """As through those that a shell makes of <(...); a result says nothing of what it was made of."""
    path, pipe = tmp_path / "x.wav", tmp_path / "pipe"
    soundfile.write(path, noise(0.1, 16000), 16000)
    os.mkfifo(pipe)
    options = ["--out", out, "--channels", 1, "--no-plot", "--jobs", 2]
    threading.Thread(target=pipe.write_bytes, args=(path.read_bytes(),), daemon=True).start()
    status, _, errors = run(capsys, "analyze", path, pipe, *options)
    assert (status, errors) == (0, "")
    status, _, errors = run(capsys, "analyze", pipe, *options)  # and nobody has to write to it
    assert status == 1
    assert errors.startswith(f"tamt: {pipe}: {out / 'pipe.npz'} is there already, and nothing says that it is a result")
    np.testing.assert_array_equal(np.load(out / "pipe.npz")["frames"], np.load(out / "x.npz")["frames"])


@pytest.mark.parametrize("analysis", [["--filterbank", "drnl", "--channels", "4"], MULTIRES, MOORE])
def test_analyses_are_calibrated_by_a_recording(capsys, tmp_path, out, analysis):
    """Each channel by its own: as loud as a number says where the recordings have that level."""
    fs = 32000
    tone = np.sin(2 * np.pi * 1000 * np.arange(fs // 2) / fs)
    samples = noise(0.1, fs, 2)
    for name, x in (("tone", tone[:, None] * [0.1, 0.02]), ("x", samples), ("mono", samples[:, :1])):
        soundfile.write(tmp_path / f"{name}.wav", x, fs, subtype="FLOAT")
    options = ["--out", out, *analysis, "--no-plot"]
    calibrated = ["--calibration", tmp_path / "tone.wav", "--calibration-db", 80]
    status, printed, errors = run(capsys, "analyze", tmp_path, *options, *calibrated)
    mono = f"tamt: {tmp_path / 'mono.wav'}: has 1 channel, but the recording of --calibration has 2; one is for all"
    left_out = f"tamt: {tmp_path / 'tone.wav'}: left out, as it is the recording of --calibration"
    assert status == 1
    assert errors.splitlines()[0] == left_out
    assert errors.splitlines()[1].startswith(mono)
    levels = [100.0, 80 + 20 * np.log10(50)]
    for channel, level in enumerate(levels, 1):
        assert f"calibration: a full-scale sine is {level:.1f} dB SPL in channel {channel}\n" in printed
    assert ", full scale 100.0, 114.0 dB SPL: " in printed
    found = dict(np.load(out / "x.npz"))
    values = "frames" if "frames" in found else "levels"
    if values == "frames":
        np.testing.assert_allclose(found["full_scale"], [stapes_velocity(level) for level in levels], rtol=1e-5)
    else:
        np.testing.assert_allclose(found["full_scale_db"], levels, atol=1e-4)
    for channel, level in enumerate(levels):
        assert run(capsys, "analyze", tmp_path / "x.wav", *options, "--full-scale-db", level)[0] == 0
        expected = np.load(out / "x.npz")[values][channel]
        some = found[values][channel][..., : expected.shape[-1]]
        np.testing.assert_allclose(some, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--fhigh", "9000"], "--fhigh is 9000 Hz, but has to be at most 8000 Hz, half of a sampling rate of 16000 Hz"),
        (
            ["--flow", "7500"],
            "--flow is 7500 Hz, but the highest centre is 7200 Hz by default at a sampling rate of 16",
        ),
    ],
)
def test_centre_frequencies_that_the_rate_of_a_file_does_not_allow(capsys, tmp_path, out, options, problem):
    path = tmp_path / "sound.wav"
    soundfile.write(path, noise(0.1, 16000), 16000)
    status, _, errors = run(capsys, "analyze", path, "--out", out, *options)
    assert (status, files_in(out)) == (1, [])
    assert errors.startswith(f"tamt: {path}: {problem}")


def test_out_has_to_be_a_folder_to_write_to(capsys, tmp_path, monkeypatch):
    """Said once, and not of a folder that nothing would be written to."""
    soundfile.write(tmp_path / "x.wav", noise(0.1, 16000), 16000)
    (tmp_path / "file").write_text("in the way")
    for command in (["demo"], ["analyze", tmp_path / "x.wav", tmp_path / "y.wav"]):
        problem = refusal(capsys, *command, "--out", tmp_path / "file")
        assert problem == f"the folder {tmp_path / 'file'} (--out) cannot be made: File exists"
        assert refusal(capsys, *command, "--out", "") == "argument --out: a name must not be empty"
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    assert run(capsys, "analyze", empty, "--out", out)[0] == 1
    assert not out.exists()

    def read_only(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    problem = refusal(capsys, "analyze", tmp_path / "x.wav", "--out", empty)
    assert problem == f"the folder {empty} (--out) cannot be written to: Read-only file system"


def test_devices_that_there_are_not(capsys):
    problem = refusal(capsys, "analyze", "x.wav", "--out", "y", "--device", "tpu")
    assert problem.startswith("argument --device: 'tpu' cannot be used; this machine has cpu")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["analyze", "x.wav"],
        ["analyze", "--out", "y"],
        ["analyze", "x.wav", "--out", "y", "--fs", "0"],
        ["analyze", "x.wav", "--out", "y", "--fs", "nan"],
        ["analyze", "x.wav", "--out", "y", "--fs", "999"],
        ["analyze", "x.wav", "--out", "y", "--fs", "1e9"],
        ["analyze", "", "--out", "y"],
        ["analyze", "x.wav", "--out", "y", "--frame", "2"],
        ["analyze", "x.wav", "--out", "y", "--hop", "0"],
        ["analyze", "x.wav", "--out", "y", "--hop", "1.5"],
        ["analyze", "x.wav", "--out", "y", "--detector", "energy"],
        *(["analyze", "x.wav", "--out", "y", "--compression", given] for given in ("dB", "0", "1", "nan", "")),
        *(["analyze", "x.wav", "--out", "y", "--compression", "db", "--floor", given] for given in ("0", "1e-40")),
        ["analyze", "x.wav", "--out", "y", "--channels", "0"],
        ["analyze", "x.wav", "--out", "y", "--channels", "1.5"],
        ["analyze", "x.wav", "--out", "y", "--channels", "10001"],
        ["analyze", "x.wav", "--out", "y", "--channels", "9" * 5000],
        ["analyze", "x.wav", "--out", "y", "--filterbank", "mel"],
        ["analyze", "x.wav", "--out", "y", "--spectrum", "glasberg2002"],
        ["analyze", "x.wav", "--out", "y", "--excitation", "multires"],
        ["analyze", "x.wav", "--out", "y", "--spectrum", "multires", "--filterbank", "gammatone"],
        ["analyze", "x.wav", "--out", "y", "--spectrum", "multires", "--excitation", "glasberg2002"],
        *(["analyze", "x.wav", "--out", "y", "--jobs", given] for given in ("0", "-1", "1.5", "257")),
        ["analyze", "x.wav", "--out", "y", "--full-scale-db", "100", "--calibration", "x.wav"],
        ["analyze", "x.wav", "--out", "y", "--device", "toaster"],
        ["analyze", "x.wav", "--out", "y", "--device", "meta"],
        ["analyze", "x.wav", "--out", "y", "--device", "hpu"],
        ["analyze", "x.wav", "--out", "y", "--filterbank", "drnl", "--subject", "HI"],
        ["analyze", "x.wav", "--out", "y", "--filterbank", "drnl", "--model", "casp"],
        ["analyze", "x.wav", "--out", "y", "--filterbank", "drnl", "--full-scale-db", "-1"],
        ["analyze", "x.wav", "--out", "y", "--filterbank", "drnl", "--full-scale-db", "nan"],
        ["listen"],
    ],
)
def test_wrong_arguments_exit_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: tamt" in capsys.readouterr().err


def test_help_and_wrong_arguments_come_without_torch():
    """Nor numpy, nor tamt: an interpreter that runs all of these has none of them in the end."""
    wrong = [[], ["listen"], ["analyze", "x", "--out", "y", "--fs", "0"], ["loudness", "x", "--out", "y"]]
    asked = [["--help"], ["--version"], *([command, "--help"] for command in ("demo", "analyze", "loudness", "info"))]
    refused = [["analyze", "x", "--out", "y", "--hop", "0.1", "--frame", "0.15"]]
    code = """if True:
        import json, sys
        from tamt_command import main
        ends = []
        for arguments in json.loads(sys.argv[1]):
            try:
                ends.append(main(arguments))
            except SystemExit as end:
                ends.append(end.code)
        print(ends, {"torch", "numpy", "tamt"} & set(sys.modules))
    """
    command = [sys.executable, "-c", code, json.dumps([*asked, *wrong, *refused])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.splitlines()[-1] == f"{[0] * len(asked) + [2] * len([*wrong, *refused])} set()"
    assert f"tamt {tamt.__version__}\n" in done.stdout
    assert done.stderr.endswith("--frame is 0.15 s, but has to be a multiple of --hop, 0.1 s\n")
    assert done.stderr.count("\n") == 2 * len([*wrong, *refused])


def test_choices_are_those_of_the_library():
    """They are listed apart from it, as it takes torch."""
    assert set(options.FILTERBANKS) == set(analyze.KINDS)
    for name, chosen in options.FILTERBANKS.items():
        assert chosen.detectors == analyze.KINDS[name].DETECTORS
        assert chosen.takes_velocity == issubclass(analyze.KINDS[name], DRNLFilterbank)
    assert (SUBJECTS, tuple(MODELS)) == (options.DRNL_SUBJECTS, options.DRNL_MODELS)
    assert options.FLOORS == FLOORS
    assert set(options.FIELDS) == set(FIELDS)
    assert tuple(cli_loudness.LOUDNESS_MODELS) == options.LOUDNESS_MODELS


def test_missing_extras_are_named(capsys, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    status, _, errors = run(capsys, "demo", "--out", out)
    assert status == 1
    assert "soundfile" in errors
    assert "pip install 'tamt[audio,plot]'" in errors
    assert not out.exists()


def test_info(capsys):
    status, printed, _ = run(capsys, "info")
    assert status == 0
    for word in ("tamt", "python", "torch", "triton", "soundfile", "soxr", "cpu", "reference"):
        assert word in printed
    assert torch.__version__ in printed


def test_centre_frequencies_are_those_of_the_bank(capsys, tmp_path, out):
    soundfile.write(tmp_path / "x.wav", noise(0.1, 16000), 16000)
    for count in (1, 2, 30):
        options = ["--flow", 123.4, "--channels", count, "--no-plot"]
        assert run(capsys, "analyze", tmp_path / "x.wav", "--out", out, *options)[0] == 0
        bank = GammatoneFilterbank((123.4, 7200), 16000, n_channels=count, dtype=torch.float64)
        assert np.load(out / "x.npz")["fc"].tolist() == bank.fc.tolist()
