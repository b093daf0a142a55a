"""The training script: its sounds, several processes, going on from a checkpoint, wrong command lines."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_within, by_torchrun, torchrun
from torch import Tensor

pytest.importorskip("tqdm")  # `make gpu` uses a Python that may lack the extras.
SCRIPT = Path(__file__).parents[1] / "examples" / "train_classifier.py"
spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
assert spec is not None
assert spec.loader is not None
script = sys.modules[SCRIPT.stem] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

SMALL = ["--device=cpu", "--seconds=0.25", "--channels=8", "--validation=16", "--report-every=4", "--lr=0.005"]


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def parameters(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    assert script.main([*SMALL, f"--out={folder}", *arguments]) == 0
    return metrics(folder)


def test_sounds_follow_from_their_index_and_the_seed() -> None:
    sounds, labels = script.make_sounds(range(12), 0.25, seed=3)
    assert sounds.shape == (12, 4000)
    assert labels.tolist() == [0, 1, 2, 3] * 3
    some, _ = script.make_sounds([7, 2], 0.25, seed=3)
    assert_within(some, sounds[[7, 2]], 1e-6)
    others = torch.cat((script.make_sounds(range(12), 0.25, seed=4)[0], script.make_sounds(range(12, 24), 0.25, 3)[0]))
    distances = (sounds[:, None] - others).square().mean(2)
    assert distances.min() > 1e-6
    level = 10 * sounds.square().mean(1).log10()
    assert ((level > -45) & (level < -4)).all()


TIME = torch.arange(16000) / 16000  # bins of its spectra are 1 Hz apart
HERTZ = torch.arange(8001)


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers)[:, None]


def test_chirps_glide_by_equal_ratios() -> None:
    first, last, start, duration = column(400, 900), column(1600, 500), column(0, 0.25), column(1, 0.5)
    hertz = first.double() * (last / first).double() ** ((TIME - start) / duration)
    cycles = torch.nn.functional.pad(torch.cumulative_trapezoid(hertz) / 16000, (1, 0))
    cycles[1] -= cycles[1, 4000].clone()
    chirps = script.chirp(TIME, start, duration, first, last)
    assert_within(chirps, torch.sin(2 * math.pi * cycles), 1e-2)


def test_complexes_have_the_harmonics_of_their_band_alone() -> None:
    f0, low, high = column(150, 240), column(290, 700), column(1400, 2500)
    phases = torch.rand(2, script.HARMONICS)
    complexes = script.harmonic_complex(TIME, f0, low, high, phases)
    inside = (HERTZ % f0 == 0) & (low <= HERTZ) & (high >= HERTZ)
    assert inside.sum(1).tolist() == [8, 8]
    assert_within(torch.fft.rfft(complexes).abs() / 8000, inside.float(), 2e-3)
    number = torch.arange(2, 10, dtype=torch.float64)[:, None]
    expected = torch.cos(2 * math.pi * (150 * number * TIME + phases[0, 1:9, None])).sum(0)
    assert_within(complexes[0], expected, 1e-2)


def test_bands_of_noise_have_nothing_outside() -> None:
    noise, low, high = torch.randn(2, 16000), column(290, 700), column(1400, 2500)
    spectra = torch.fft.rfft(noise), torch.fft.rfft(script.noise_band(noise, low, high))
    before, after = (torch.view_as_real(spectrum) for spectrum in spectra)
    inside = (low <= HERTZ) & (high >= HERTZ)
    assert_within(after, torch.where(inside[..., None], before, 0), 1e-2)


@by_torchrun
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Each with half of a batch: the same parameters on both, and those of one process with all of it."""
    arguments = [*SMALL, "--steps=20", "--batch=4", f"--out={tmp_path / 'two'}"]
    done = torchrun(SCRIPT, *arguments)
    *reports, last = done.stdout.splitlines()
    assert [line.split(":")[0] for line in reports] == [f"step {step}" for step in range(4, 24, 4)]
    assert last.endswith(f"checkpoint.pt and metrics.json are in {tmp_path / 'two'}")
    assert "it/s" not in done.stderr  # a bar is for terminals
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["checkpoint.pt", "metrics.json"]
    two, one = metrics(tmp_path / "two"), run(tmp_path / "one", "--steps=20", "--batch=8")
    assert (two["world_size"], one["world_size"]) == (2, 1)
    first, second = two["checksums"]
    assert first == second
    assert two["settings"] == one["settings"]
    for a, b in zip(two["history"], one["history"], strict=True):
        for name, value in a.items():
            assert abs(value - b[name]) <= 1e-5 * value, name
    assert two["history"][-1]["loss"] < 0.95 * two["history"][0]["loss"]
    expected = parameters(tmp_path / "one")
    for name, value in parameters(tmp_path / "two").items():
        assert_within(value, expected[name], 1e-5)


@pytest.mark.parametrize("learnable", script.LEARNABLE)
def test_an_interrupted_run_goes_on_to_the_same_numbers(
    learnable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--steps=10", "--batch=4", f"--learnable={learnable}"]
    whole = run(tmp_path / "whole", *arguments)
    make_sounds = script.make_sounds

    def until_the_seventh_step(indices: range, *rest: Any) -> tuple[Tensor, Tensor]:
        if indices[0] == 6 * 4:
            raise KeyboardInterrupt
        return make_sounds(indices, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(script, "make_sounds", until_the_seventh_step)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", *arguments)
    assert not (tmp_path / "parts" / "metrics.json").exists()
    parts = run(tmp_path / "parts", *arguments, "--resume")
    again = run(tmp_path / "parts", *arguments, "--resume")  # there is nothing left to do
    for name in ("loss", "validation_loss", "accuracy", "history", "checksums", "filters"):
        assert parts[name] == whole[name] == again[name], name
    assert [report["step"] for report in whole["history"]] == [4, 8, 10]
    before, after = whole["filters"]["before"], whole["filters"]["after"]
    assert (before == after) == (learnable == "fixed")


def test_the_checkpoint_is_the_classifier_that_was_measured(tmp_path: Path) -> None:
    told = run(tmp_path, "--steps=6", "--batch=5")
    model = script.classifier(script.Settings(channels=8))
    model.load_state_dict(parameters(tmp_path))
    sounds, labels = script.make_sounds(range(script.VALIDATION, script.VALIDATION + 16), 0.25)
    logits = model(sounds)
    assert told["accuracy"] == (logits.argmax(1) == labels).float().mean()
    assert_within(torch.nn.functional.cross_entropy(logits, labels), torch.tensor(told["validation_loss"]), 1e-5)


@pytest.mark.parametrize("flags", [["--bf16"], pytest.param(["--bf16", "--compile"], marks=pytest.mark.slow)])
def test_variants(flags: list[str], tmp_path: Path) -> None:
    """A network in bfloat16 has the same ears, and compiled it learns the same."""
    plain = run(tmp_path / "plain", "--steps=8", "--batch=4")
    other = run(tmp_path / "other", "--steps=8", "--batch=4", *flags)
    assert other["loss"] != plain["loss"]
    assert abs(other["loss"] - plain["loss"]) < 0.1
    assert other["settings"]["bf16"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--steps=0"], "--steps: must be a whole number of at least 1, got '0'"),
        (["--batch=2.5"], "--batch: must be a whole number of at least 1, got '2.5'"),
        (["--seconds=0.05"], "--seconds: must be a number from 0.1 to 60, got '0.05'"),
        (["--channels=nan"], "--channels: must be a whole number from 1 to 1024, got 'nan'"),
        (["--low=9000"], "--low: must be a number from 20 to 7900, got '9000'"),
        (["--low=7900", "--high=100"], "--low must be below --high, got 7900 and 100"),
        (["--lr=inf"], "--lr: must be a number from 0 to 1, got 'inf'"),
        (["--bandwidth=nan"], "--bandwidth: must be a number from 0.1 to 10, got 'nan'"),
        (["--learnable=True"], "--learnable: invalid choice: 'True' (choose from"),
        (["--device=tpu"], "--device: invalid choice: 'tpu' (choose from"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out=nowhere"], f"--resume cannot read {Path('nowhere', 'checkpoint.pt')} (No such file"),
        (["--out=file"], "--out must be a folder, or where one can be made, got file"),
        (["--out=file/folder"], "--out must be a folder, or where one can be made, got file"),
    ],
)
def test_wrong_command_lines(
    given: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(SystemExit) as done:
        script.main([*SMALL, "--steps=1", *given])
    assert done.value.code == 2
    assert said in capsys.readouterr().err


def test_a_loss_that_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint is the last one that had numbers."""
    make_sounds = script.make_sounds

    def louder_and_louder(indices: range, *rest: Any) -> tuple[Tensor, Tensor]:
        sounds, labels = make_sounds(indices, *rest)
        return sounds * (math.inf if 4 * 4 < indices[0] < script.VALIDATION else 1), labels

    monkeypatch.setattr(script, "make_sounds", louder_and_louder)
    with pytest.raises(SystemExit) as done:
        run(tmp_path, "--steps=8", "--batch=4")
    assert done.value.code == 2
    assert "--lr 0.005: the loss is nan by step 8" in capsys.readouterr().err
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4


def test_cuda_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(script.SettingsError, match=r"--device cuda needs .* process 2 .* 1 device"):
        script.train(script.Settings(device="cuda"))


def test_a_checkpoint_of_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--steps=1", "--batch=4")
    for given, said in (
        (["--batch=6"], "batch 4, here 6"),
        (["--batch=4", "--learnable=fixed"], "learnable relative, here fixed"),
        (["--batch=4", "--channels=9", "--seed=1"], "channels 8, here 9, seed 0, here 1"),
    ):
        with pytest.raises(SystemExit) as done:
            run(tmp_path, "--steps=1", *given, "--resume")
        assert done.value.code == 2
        assert said in capsys.readouterr().err
    assert run(tmp_path, "--steps=2", "--batch=4", "--resume")["step"] == 2
    torch.save({"model": {}}, tmp_path / "another.pt")
    for content in (b"", b"no checkpoint", (tmp_path / "another.pt").read_bytes()):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(SystemExit):
            run(tmp_path, "--steps=1", "--batch=4", "--resume")
        assert "checkpoint.pt (it is no checkpoint of this script)" in capsys.readouterr().err
