"""The training script: its sounds, several processes, going on from a checkpoint, wrong command lines."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_within
from torch import Tensor

pytest.importorskip("tqdm")  # `make gpu` uses a Python that may lack the extras.
from examples import train_classifier as script

SCRIPT = Path(script.__file__)
SMALL = ["--device=cpu", "--seconds=0.25", "--channels=8", "--validation=16", "--report-every=4", "--lr=0.01"]
COUNT = len(script.CLASSES)


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


def test_sources() -> None:
    """Chirps go where they should, complexes have harmonics inside their band alone, bands of noise nothing outside."""
    time = torch.arange(16000) / 16000
    one, two = torch.tensor([[400.0], [500.0]]), torch.tensor([[1600.0], [900.0]])
    start, duration = torch.tensor([[0.0], [0.125]]), torch.tensor([[1.0], [0.8]])
    for first, last in ((one, two), (two, one)):
        hertz = first.double() * (last / first).double() ** ((time - start) / duration)
        cycles = torch.cumulative_trapezoid(torch.nn.functional.pad(hertz, (1, 0), "replicate"), dim=1) / 16000
        cycles = (
            cycles
            - torch.stack([row[round(16000 * at)] for row, at in zip(cycles, start[:, 0].tolist(), strict=True)])[
                :, None
            ]
        )
        assert_within(script.chirp(time, start, duration, first, last), torch.sin(2 * math.pi * cycles), 1e-2)
    phases = torch.rand(2, script.HARMONICS)
    f0, low, high = (
        torch.tensor([[150.0], [240.0]]),
        torch.tensor([[290.0], [700.0]]),
        torch.tensor([[1400.0], [2500.0]]),
    )
    wave = script.harmonic_complex(time, f0, low, high, phases)
    amplitude = torch.fft.rfft(wave).abs() / 8000
    hertz = torch.arange(8001.0)
    inside = (hertz % f0 == 0) & (hertz >= low) & (hertz <= high)
    assert inside.sum(1).tolist() == [8, 8]
    assert_within(amplitude, inside.float(), 2e-3)
    k = torch.arange(2, 10, dtype=torch.float64)
    turns = 150 * k[:, None] * time.double() + phases[0, 1:9, None]
    assert_within(wave[0], torch.cos(2 * math.pi * turns).sum(0), 5e-3)
    noise = torch.randn(2, 16000)
    inside = (hertz >= low) & (hertz <= high)
    spectra = torch.fft.rfft(noise), torch.fft.rfft(script.noise_band(noise, low, high))
    before, after = (torch.view_as_real(spectrum) for spectrum in spectra)
    assert_within(after, torch.where(inside[..., None], before, 0), 1e-2)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Each with half of a batch: the same parameters on both, and those of one process with all of it."""
    arguments = [*SMALL, "--steps=20", "--batch=4", f"--out={tmp_path / 'two'}"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [f"step {step}" for step in range(4, 24, 4)]
    assert "it/s" not in done.stderr  # a bar is for terminals
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["checkpoint.pt", "metrics.json"]
    two, one = metrics(tmp_path / "two"), run(tmp_path / "one", "--steps=20", "--batch=8")
    assert (two["world_size"], one["world_size"]) == (2, 1)
    first, second = two["checksums"]
    assert first == second
    assert two["settings"] == one["settings"]
    for a, b in zip(two["history"], one["history"], strict=True):
        for name, value in a.items():
            assert abs(value - b[name]) <= 1e-4 * value, name
    assert two["history"][-1]["loss"] < 0.9 * two["history"][0]["loss"]
    expected = parameters(tmp_path / "one")
    for name, value in parameters(tmp_path / "two").items():
        assert_within(value, expected[name], 1e-4)


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
        (["--low=9000"], "--low: must be a number from 20 to 8000, got '9000'"),
        (["--lr=inf"], "--lr: must be a number from 0 to 1, got 'inf'"),
        (["--bandwidth=nan"], "--bandwidth: must be a number from 0.1 to 10, got 'nan'"),
        (["--learnable=True"], "--learnable: invalid choice: 'True' (choose from"),
        (["--device=tpu"], "--device: invalid choice: 'tpu' (choose from"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out=nowhere"], "checkpoint.pt"),
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
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(SystemExit):
        run(tmp_path, "--steps=1", "--batch=4", "--resume")
    assert "--resume cannot read" in capsys.readouterr().err
