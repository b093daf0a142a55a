import csv
import io
import subprocess
import sys

import numpy as np
import pytest
import torch

from tamt import Glasberg2002Loudness, Moore2016Loudness, cli, sone2phon
from tamt.cli import loudness as cli_loudness
from tamt.spl import calibrate, full_scale_pascal

# `make gpu` uses a Python that may lack the extras.
soundfile = pytest.importorskip("soundfile")
soxr = pytest.importorskip("soxr")
pytest.importorskip("matplotlib")

LOUDNESS_FS = 32000
MODELS = {"moore2016": Moore2016Loudness, "glasberg2002": Glasberg2002Loudness}


def run(capsys, *arguments):
    try:
        status = cli.main(["loudness", *map(str, arguments)])
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def sounds(channels=1, seconds=0.1, fs=LOUDNESS_FS, seed=0):
    """Noise (T, C), fainter in every further channel."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * fs), channels))
    return (samples / (1 + np.arange(channels))).astype(np.float32)


def tone(amplitude, fs=48000, seconds=0.5):
    return amplitude * np.sin(2 * np.pi * 1000 * np.arange(round(seconds * fs)) / fs)


def write(path, samples, fs=LOUDNESS_FS):
    soundfile.write(path, samples, fs, subtype="FLOAT")
    return path


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def calibrator(tmp_path):
    return write(tmp_path / "calibrator.wav", tone(0.02), 48000)


def assert_near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "channels", "options"),
    [
        ("moore2016", 1, ["--hop", "0.004", "--no-plot"]),
        ("moore2016", 2, ["--hop", "0.007", "--field", "eardrum"]),
        ("moore2016", 3, ["--hop", "0.064", "--channel", "3", "--field", "diffuse", "--no-plot"]),
        ("glasberg2002", 1, ["--hop", "0.004"]),
        ("glasberg2002", 2, ["--hop", "0.016", "--channel", "2", "--no-plot"]),
    ],
)
def test_results_are_those_of_the_model(capsys, tmp_path, out, monkeypatch, model, channels, options):
    samples = sounds(channels)
    path = write(tmp_path / "x.wav", samples)
    # Pieces that are no whole frames, of which the longest columns hold several.
    monkeypatch.setattr(cli_loudness, "_BLOCK", 777)
    monkeypatch.setattr(cli_loudness, "_COLUMNS", 8)
    status, printed, errors = run(capsys, path, "--full-scale-db", 90, "--model", model, "--out", out, *options)
    assert (status, errors) == (0, "")
    kinds = ["csv", "npz"] if "--no-plot" in options else ["csv", "npz", "png"]
    assert files_in(out) == [f"x.{kind}" for kind in kinds]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.glob("*.png"))

    given = dict(zip(options[::2], options[1::2], strict=False))
    field, hop = given.get("--field", "free"), round(1000 * float(given["--hop"]))
    heard = samples[:, [int(given["--channel"]) - 1]] if "--channel" in given else samples
    meter = MODELS[model](field=field, hop=hop)
    sound = full_scale_pascal(90) * torch.from_numpy(heard.T.copy())
    with torch.no_grad():
        expected = meter(sound if model == "moore2016" else sound[0])
    result = np.load(out / "x.npz")
    for name, values in expected._asdict().items():
        if name.startswith(("short", "long", "peak")):
            assert_near(result[name], values)
    frames = expected.long_term.shape[-1]
    np.testing.assert_array_equal(result["times"], meter.times(frames))
    long_term = expected.long_term.numpy()
    assert_near([result["n5"], result["mean"]], [np.quantile(long_term, 0.95), long_term.mean()])
    told = {
        "hop": 32 * hop,
        "fs": 32000,
        "source_fs": 32000,
        "source": str(path),
        "source_path": str(path),
        "model": model,
        "field": field,
    }
    assert {name: result[name].tolist() for name in told} == told
    np.testing.assert_allclose(result["full_scale_pascal"], [full_scale_pascal(90)] * len(sound))
    np.testing.assert_allclose(result["fc"], meter.specific.fc, rtol=1e-6)

    # Columns are means of as many frames each, the last of what is left.
    specific = expected.specific.reshape(len(sound), frames, 150).numpy()
    joined = -(-frames // 16)
    joined = 1 << (joined - 1).bit_length()
    parts = [slice(start, start + joined) for start in range(0, frames, joined)]
    assert_near(result["specific"], np.stack([specific[:, part].mean(1) for part in parts], 1))
    np.testing.assert_allclose(result["specific_times"], [result["times"][part].mean() for part in parts])

    with (out / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == frames
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    np.testing.assert_allclose(columns["time_s"], result["times"], atol=1e-9)
    for name in ("short_term", "long_term"):
        sone = torch.from_numpy(result[name])
        np.testing.assert_allclose(columns[f"{name}_sone"], sone, rtol=1e-5)
        np.testing.assert_allclose(columns[f"{name}_phon"], sone2phon(sone, model), atol=0.006)

    line, heading, units, row = printed.splitlines()
    results = ", ".join(str(out / f"x.{kind}") for kind in kinds)
    assert line.startswith(f"{path}: 0.10 s of sound in ")
    assert line.endswith(f" s: {results}")
    assert (heading.split(), units.split()) == (["long-term", "loudness", "peak", "N5", "mean"], ["sone", "phon"] * 3)
    name, *cells = row.split()
    values = [[result[name].item(), sone2phon(result[name].item(), model)] for name in ("peak", "n5", "mean")]
    assert name == str(path)
    np.testing.assert_allclose([float(cell) for cell in cells], np.ravel(values), rtol=1e-3)


def test_a_calibrator_says_how_loud_files_were(capsys, tmp_path, out, calibrator):
    """A tone 40 dB fainter than one of 114 dB SPL has 74 dB SPL, whatever its rate."""
    path = write(tmp_path / "tone.wav", tone(0.0002, 44100), 44100)
    options = ["--calibration", calibrator, "--calibration-db", 114, "--hop", "0.01", "--no-plot"]
    status, printed, errors = run(capsys, path, "--out", out, *options)
    assert (status, errors) == (0, "")
    said, line, *_ = printed.splitlines()
    assert said == "calibration: a full-scale sine is 148.0 dB SPL"  # 114 and 34 dB
    assert ", resampled from 44100 to 32000 Hz: " in line
    result = np.load(out / "tone.npz")
    assert result["source_fs"] == 44100
    level = sone2phon(result["short_term"][30].item())
    assert level == pytest.approx(74, abs=0.2)
    assert files_in(out) == ["tone.csv", "tone.npz"]
    # 94 dB SPL is what a calibrator has that nothing is said of.
    run(capsys, path, "--out", out, *options[:2], *options[4:])
    quieter = np.load(out / "tone.npz")
    assert quieter["full_scale_pascal"] == pytest.approx(result["full_scale_pascal"] / 10)


def test_channels_are_calibrated_by_their_own_recordings(capsys, tmp_path, out):
    recordings = np.stack((tone(0.02), tone(0.5)), 1)
    calibrator = write(tmp_path / "calibrator.wav", recordings, 48000)
    factors = calibrate(recordings.T, 94)[:, 0].numpy()
    options = ["--calibration", calibrator, "--hop", "0.064", "--no-plot", "--out", out]
    stereo, mono = write(tmp_path / "stereo.wav", sounds(2)), write(tmp_path / "mono.wav", sounds())
    status, printed, errors = run(capsys, stereo, mono, *options)
    assert status == 1
    assert f"{mono}: has 1 channel, but the recording of --calibration has 2; one is for all files" in errors
    np.testing.assert_allclose(np.load(out / "stereo.npz")["full_scale_pascal"], factors, rtol=1e-6)
    assert len(printed.splitlines()) == 6  # the table has what could be had
    assert printed.splitlines()[:2] == [
        "calibration: a full-scale sine is 128.0 dB SPL in channel 1",
        "calibration: a full-scale sine is 100.0 dB SPL in channel 2",
    ]
    run(capsys, stereo, "--channel", 2, *options)
    np.testing.assert_allclose(np.load(out / "stereo.npz")["full_scale_pascal"], factors[1:], rtol=1e-6)


def test_the_calibrator_among_the_files_is_left_out(capsys, tmp_path, out, calibrator):
    write(tmp_path / "x.wav", sounds())
    options = ["--calibration", calibrator, "--hop", "0.064", "--no-plot", "--out", out]
    status, _, errors = run(capsys, tmp_path, *options)
    assert (status, errors) == (0, f"tamt: {calibrator}: left out, as it is the recording of --calibration\n")
    assert files_in(out) == ["x.csv", "x.npz"]
    # Alone it is what was asked for.
    status, _, errors = run(capsys, calibrator, *options)
    assert (status, errors) == (0, "")
    assert (out / "calibrator.csv").exists()


def test_a_recording_that_is_no_steady_tone_is_doubted(capsys, tmp_path, out):
    recording = np.concatenate((np.zeros(12000), tone(0.02)))
    calibrator = write(tmp_path / "calibrator.wav", recording, 48000)
    options = ["--calibration", calibrator, "--hop", "0.064", "--no-plot"]
    status, printed, errors = run(capsys, write(tmp_path / "x.wav", sounds()), "--out", out, *options)
    doubt = "recording is not a calibrator's steady tone alone: a part is silent; what it calibrates may be wrong"
    assert status == 0
    assert errors == f"tamt: {calibrator} (--calibration): {doubt}\n"
    assert printed.startswith("calibration: a full-scale sine is 12")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--calibration-db", "94"], "--calibration-db does nothing without --calibration, the recording of a"),
        (["--hop", "0.0015"], "--hop is 0.0015 s, but has to be a whole number of milliseconds for tamt l"),
    ],
)
def test_options_that_do_not_go_together(capsys, out, options, problem):
    status, printed, errors = run(capsys, "x.wav", "--out", out, "--full-scale-db", 100, *options)
    assert (status, printed) == (2, "")
    assert errors.splitlines()[1].startswith(f"tamt loudness: error: {problem}")
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing.wav", "there is no such file"),
        ("text.wav", "cannot be read as sound: Format not recognised"),
        ("empty.wav", "holds no samples"),
        ("silent.wav", "recording is silent in channel 2 of 2: all of its samples are 0"),
        ("nan.wav", "sample 1 of channel 2 is nan; samples have to be finite"),
    ],
)
def test_recordings_that_cannot_calibrate(capsys, tmp_path, out, name, problem):
    (tmp_path / "text.wav").write_text("this is no sound")
    recording = np.full((100, 2), 0.1)
    write(tmp_path / "empty.wav", recording[:0])
    write(tmp_path / "silent.wav", recording * [1, 0])
    recording[1, 1] = np.nan
    write(tmp_path / "nan.wav", recording)
    status, _, errors = run(capsys, "x.wav", "--out", out, "--calibration", tmp_path / name)
    assert status == 2
    assert errors.splitlines()[1].startswith(f"tamt loudness: error: {tmp_path / name} (--calibration): {problem}")
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "one of the arguments --full-scale-db --calibration is required"),
        (["--full-scale-db", "100", "--calibration", "y.wav"], "not allowed with argument"),
        *((["--hop", hop], f"'{hop}' has to be at most 0.064 seconds") for hop in ("0.065", "10")),
        (["--full-scale-db", "201"], "'201' has to be a level from 0 to 200 dB SPL"),
        (["--calibration", ""], "a name must not be empty"),
        (["--full-scale-db", "100", "--model", "zwicker"], "invalid choice: 'zwicker' (choose from"),
        (["--full-scale-db", "100", "--field", "none"], "invalid choice: 'none' (choose from"),
        (["--full-scale-db", "100", "--channel", "0"], "'0' has to be a whole number from 1 to 10000"),
    ],
)
def test_wrong_arguments(capsys, options, problem):
    with pytest.raises(SystemExit) as raised:
        cli.main(["loudness", "x.wav", "--out", "y", *options])
    assert raised.value.code == 2
    assert problem in capsys.readouterr().err


def test_files_that_cannot_be_heard_are_named_and_the_others_go_on(capsys, tmp_path, out):
    (tmp_path / "text.wav").write_text("this is no sound")
    write(tmp_path / "empty.wav", np.zeros((0, 1)))
    write(tmp_path / "huge.wav", np.full(1000, 1e30))
    write(tmp_path / "three.wav", sounds(3))
    nan = sounds(2)
    nan[700, 1] = np.nan
    write(tmp_path / "nan.wav", nan)
    reasons = {
        "text.wav": "cannot be read as sound",
        "missing.wav": "there is no such file",
        "empty.wav": "holds 0 samples, which makes 0 at 32000 Hz",
        "huge.wav": "has a peak of 2.83e+30 Pa, too large for single precision",
        "three.wav": "has 3 channels, but moore2016 is for one or two, of two ears; --channel chooses one",
        "nan.wav": "sample 700 of channel 2 is nan; samples have to be finite",
    }
    good = [write(tmp_path / name, sounds()) for name in ("first.wav", "last.wav")]
    given = [good[0], *(tmp_path / name for name in reasons), good[1]]
    common = ["--full-scale-db", 100, "--out", out, "--no-plot", "--hop", "0.064"]
    status, printed, errors = run(capsys, *given, *common)
    assert status == 1
    assert files_in(out) == ["first.csv", "first.npz", "last.csv", "last.npz"]
    assert [line.split()[0] for line in printed.splitlines()[-2:]] == list(map(str, good))
    lines = errors.splitlines()
    assert len(lines) == len(reasons) + 1
    for line, (name, reason) in zip(lines, reasons.items(), strict=False):
        assert line.startswith(f"tamt: {tmp_path / name}: {reason}")
    assert lines[-1] == "tamt: 6 of 8 inputs could not be analysed"

    stereo = write(tmp_path / "stereo.wav", sounds(2))
    for options, problem in (
        (["--model", "glasberg2002"], "has 2 channels, but glasberg2002 is for one, which both ears hear; moore2016"),
        (["--channel", 3], "has no channel 3 (--channel), but 2"),
    ):
        status, printed, errors = run(capsys, stereo, *common, *options)
        assert (status, printed) == (1, "")
        assert errors.startswith(f"tamt: {stereo}: {problem}")


@pytest.mark.filterwarnings("error")
def test_a_peak_that_no_sound_has_is_said(capsys, tmp_path, out, calibrator):
    path = write(tmp_path / "x.wav", np.array([0.1, -0.5, 0.2]))
    common = [path, "--out", out, "--no-plot"]
    calibration = ["--calibration", calibrator, "--calibration-db", 114]
    for options, problem in (
        (["--full-scale-db", 150], "447 Pa, a peak level of 147 dB SPL, by --full-scale-db"),
        (calibration, "354 Pa, a peak level of 145 dB SPL, by --calibration"),
        (["--full-scale-db", 140], None),
    ):
        status, printed, errors = run(capsys, *common, *options)
        assert status == 0
        assert errors == (f"tamt: {path}: has a peak of {problem}, which is more than sound has\n" if problem else "")
        assert len(printed.splitlines()) == 4 + ("--calibration" in options)


def test_bars_at_a_terminal_show_files_and_seconds(tmp_path, out, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    path = write(tmp_path / "x.wav", sounds(seconds=3.0))
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    given = ["--full-scale-db", "100", "--out", str(out), "--no-plot", "--hop", "0.064"]
    assert cli.main(["loudness", str(path), *given]) == 0
    shown = sys.stderr.getvalue()
    assert "/3 [" in shown  # seconds
    assert "1/1 [" in shown  # files


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="what a process took at most has the memory of its parent elsewhere"
)
def test_memory_is_that_of_loudness_over_time(tmp_path, out):
    """Ten times the sound takes no more memory but for its loudness."""
    code = (
        "import sys; from pathlib import Path; from tamt import cli; status = cli.main(sys.argv[1:]); "
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]); sys.exit(status)"
    )
    peaks = []
    for seconds in (30, 300):
        path = write(tmp_path / f"{seconds}.wav", sounds(2, seconds))
        options = ["--full-scale-db", "90", "--hop", "0.064", "--out", out, "--no-plot"]
        command = [sys.executable, "-c", code, "loudness", path, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(1024 * int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 24e6
