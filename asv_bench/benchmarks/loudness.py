"""Loudness models: forward, training step, memory, error; their stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tamt import (
    BinauralInhibition,
    Glasberg2002Loudness,
    Glasberg2002SpecificLoudness,
    Moore2016Loudness,
    Moore2016SpecificLoudness,
)
from tamt.spl import full_scale_pascal

from .common import DTYPES, Agreement, Load, cases, golden, over, peak_memory, require, timing, tracked
from .moore2016_spectrum import noise

CPU_LOADS = {"stereo 1 s": (1, 1), "stereo 60 s": (1, 60)}
GPU_LOADS = {"16 x stereo 10 s": (16, 10)}
LIMITS = {"float64": 1e-12, "float32": 2e-4}  # of the peak of long-term loudness
MODELS: dict[str, Any] = {
    "moore2016": Moore2016Loudness,
    "glasberg2002": Glasberg2002Loudness,
    "documents": lambda hop, **options: Glasberg2002Loudness("documents", **options),
}
STAGES: dict[str, Any] = {"specific loudness": Moore2016SpecificLoudness, "inhibition": BinauralInhibition}


def conformance(dtype: str) -> Iterator[Agreement]:
    data = golden("moore2016_loudness")
    scale = full_scale_pascal(float(data["db_max"]))
    asked = 1e-9 if dtype == "float64" else 2e-4
    yield from stages(data, golden("glasberg2002_loudness"), dtype, asked)
    for case, name in (
        ("tone40", "tone"),
        ("harm", "harmonics, two ears"),
        ("am", "modulated tone"),
        ("loud", "108 dB"),
    ):
        x = scale * torch.from_numpy(data[f"{case}_x"]).double()
        loudness = Moore2016Loudness(dtype=DTYPES[dtype])(x)
        for what, found in (("STL", loudness.short_term_ears), ("LTL", loudness.long_term_ears)):
            expected = np.stack([data[f"{case}_{what}_{ear}"] for ear in "LR" if f"{case}_{what}_{ear}" in data])
            error = np.abs(found.double().numpy() - expected).max() / expected.max()
            term = {"STL": "short-term", "LTL": "long-term"}[what]
            yield Agreement("Moore2016Loudness", f"AMT, {name}, {term}", error, "of the maximum", asked)
    data, signals = golden("glasberg2002_loudness"), data
    for case, name in (("tone60", "tone"), ("am", "modulated tone")):
        x = scale * torch.from_numpy(signals[f"{case}_x"][0]).double()
        found = Glasberg2002Loudness(dtype=DTYPES[dtype])(x).long_term.double().numpy()
        expected = data[f"{case}_LTL"]
        error = np.abs(found - expected).max() / expected.max()
        yield Agreement("Glasberg2002Loudness", f"numpy program, {name}, long-term", error, "of the maximum", asked)


def stages(moore: Any, glasberg: Any, dtype: str, asked: float) -> Iterator[Agreement]:
    """Stages by themselves, above -20 dB: AMT subtracts powers that hardly differ below."""
    for kind, level, fc, wanted, scale in (
        (Moore2016SpecificLoudness, moore["stage_spec_E_dB"], moore["stage_fc"], moore["stage_spec_N"], None),
        (Glasberg2002SpecificLoudness, glasberg["spec_E_dB"], glasberg["fc"], glasberg["spec_N_ansi"], "C_ansi"),
    ):
        stage = kind(torch.from_numpy(fc), dtype=DTYPES[dtype])
        chosen = (level > -20) & (level != 100)  # the step between two laws, by up to 3 %, is on either side of it
        excitation = 10 ** (torch.from_numpy(level[chosen])[:, None].expand(-1, len(fc)) / 10)
        found = stage(excitation).double().numpy() * (float(glasberg[scale]) / stage.C.item() if scale else 1)
        error = np.abs(found - wanted[chosen]).max() / wanted[chosen].max()
        yield Agreement(kind.__name__, "AMT, excitation of -15 to 130 dB", error, "of the maximum", asked)
    both = torch.stack([torch.from_numpy(moore[f"stage_inh_in_{ear}"]) for ear in "LR"])
    left, right = 0.25 * BinauralInhibition(dtype=DTYPES[dtype])(both).sum(-1).double()
    wanted = moore["stage_inh_out"]
    error = np.abs(torch.stack((left + right, left, right), -1).numpy() - wanted).max() / wanted.max()
    yield Agreement("BinauralInhibition", "AMT, six pairs of ears", error, "of the maximum", asked)


class _Load(Load):
    """Sound of 60 dB SPL in an ear, falling by 12 dB per octave above 1 kHz; one ear for the model that takes one."""

    timeout = 600

    def prepare(self, case: tuple[str, str], dtype: str, model: str, hop: int, **options: Any) -> None:
        self.device, load = case
        batch, duration = {**CPU_LOADS, **GPU_LOADS}[load]
        self.seconds = batch * duration
        x = noise(batch, duration, dtype, self.device)
        self.x = (x if model == "moore2016" else x[:, 0]).clone().requires_grad_()
        self.make = lambda dtype, device: MODELS[model](hop=hop, dtype=dtype, device=device, **options)
        self.model: nn.Module = self.make(DTYPES[dtype], self.device)
        require(self.error(), LIMITS[dtype], f"loudness, {model}, {load}, {dtype}")

    def error(self) -> float:
        """Of long-term loudness in a quarter of a second, relative to its maximum, from float64."""
        part = self.x.detach()[:1, ..., :8000]
        expected = self.make(torch.float64, "cpu")(part.double().cpu()).long_term
        with torch.no_grad():
            found = self.model(part).long_term.double().cpu()
        return ((found - expected.detach()).abs().max() / expected.max()).item()

    def result(self) -> Any:
        return self.model(self.x)

    def smooth(self) -> list[Tensor]:
        return [self.result().long_term]

    def beside_the_results(self) -> float:
        """Peak memory of the forward pass beyond what it returns, in MiB."""
        results = sum(part.nbytes for part in self.forward())
        return (peak_memory(self.forward, self.device) - results) / 2**20


class Loudness(_Load):
    params = (cases(["stereo 1 s"], GPU_LOADS), list(DTYPES), list(MODELS), [1, 10])
    param_names = ("load", "dtype", "model", "hop")

    def setup(self, case: tuple[str, str], dtype: str, model: str, hop: int) -> None:
        if model == "documents" and hop > 1:
            raise NotImplementedError("the documents' front end has a hop of its own")
        self.prepare(case, dtype, model, hop)
        self.ready(self.x)

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_time_over_real_time = tracked("real_time", "x")
    track_training_over_forward = over("forward", "training_step")
    track_error = tracked("error", "of the maximum")


class LearnableLoudness(_Load):
    """A training step with gradients of every number, over a forward pass of the fixed model."""

    params = (cases(["stereo 1 s"], GPU_LOADS), ["float32"], ["moore2016"], [1, 10])
    param_names = ("load", "dtype", "model", "hop")

    def setup(self, case: tuple[str, str], dtype: str, model: str, hop: int) -> None:
        self.prepare(case, dtype, model, hop, learnable="relative")
        self.ready(self.x, *self.model.parameters())

    track_training_over_forward = over("forward", "training_step")


class LoudnessMemory(_Load):
    params = (cases(["stereo 60 s"], []), ["float32"], ["moore2016"], [1])
    param_names = ("load", "dtype", "model", "hop")

    def setup(self, case: tuple[str, str], dtype: str, model: str, hop: int) -> None:
        self.prepare(case, dtype, model, hop)

    track_peak_memory = tracked("beside_the_results", "MiB")


class Stage(Load):
    """A stage of its own, on 1000 frames of two ears."""

    params = (cases(["2 x 1000"], ["320 x 1000"]), list(DTYPES), list(STAGES))
    param_names = ("load", "dtype", "stage")

    def setup(self, case: tuple[str, str], dtype: str, stage: str) -> None:
        self.device, load = case
        rows = int(load.split()[0])
        generator = torch.Generator().manual_seed(0)
        x = 10 ** (4 * torch.rand(rows // 2, 2, 1000, 150, generator=generator, dtype=torch.float64))
        self.x = x.to(self.device, DTYPES[dtype]).requires_grad_()
        self.stage = STAGES[stage](dtype=DTYPES[dtype], device=self.device)
        self.exact = STAGES[stage](dtype=torch.float64)
        require(self.error(), {"float64": 1e-12, "float32": 1e-5}[dtype], f"{stage}, {dtype}")
        self.ready(self.x)

    def error(self) -> float:
        part = self.x.detach()[:1]
        expected = self.exact(part.double().cpu())
        return ((self.stage(part).double().cpu() - expected).abs() / expected.max()).max().item()

    def result(self) -> Tensor:
        return self.stage(self.x)

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_error = tracked("error", "of the maximum")
