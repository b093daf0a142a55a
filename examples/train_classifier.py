"""Train a classifier of sounds whose ears learn with it: a cochleagram in front of a small convolutional network.

The sounds are made on the fly: chirps that rise or fall, harmonic complexes and bands of noise, each somewhere in
background noise. One process, or several that average their gradients (DistributedDataParallel)::

    python examples/train_classifier.py
    torchrun --nproc-per-node 2 examples/train_classifier.py --device cpu

``--out`` gets ``checkpoint.pt``, from which ``--resume`` goes on as if there had been no interruption (on the CPU to
the last bit), and in the end ``metrics.json``. To train on sounds of your own, replace :func:`make_sounds`. The
progress bar is tqdm, which ``pip install 'tamt[audio]'`` brings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import tamt

FS = 16000
CLASSES = "rising chirp", "falling chirp", "harmonic complex", "noise band"
LEARNABLE: dict[str, Any] = {"fixed": False, "true": True, "relative": "relative"}
HARMONICS = 20  # of 200 Hz below 4 kHz, the lowest and highest that :func:`make_sounds` knows
VALIDATION = 2**40  # index of the first sound of the validation set; no training gets there
HIGHEST = 7900.0  # Hz: closer to half the sampling rate a filter meets its mirror image
MAX_NORM = 1.0  # of the gradients
CHECKPOINT, METRICS = "checkpoint.pt", "metrics.json"
STATEFUL = "model", "optimizer", "scheduler"  # whose state a checkpoint holds


@dataclass(frozen=True)
class Settings:
    """What a training run is told: the options of the command line, and their defaults.

    Attributes
    ----------
    steps : int
        Steps of the optimiser. A run that goes on from a checkpoint may do more than the one before.
    batch : int
        Sounds per step and process.
    seconds : float
        Length of a sound.
    channels, low, high : int, float, float
        Number of filters, and the centre frequencies of the lowest and the highest in Hz.
    learnable : {'fixed', 'true', 'relative'}
        The argument ``learnable`` of the filters: ``False``, ``True`` or ``'relative'``.
    bandwidth : float
        Bandwidth of the filters at the start in units of normal ears'.
    lr : float
        Highest learning rate.
    filter_lr : float, optional
        That of the filters, by default ``lr`` for relative parameters and ``lr / 30`` for poles.
    seed : int
        Of sounds and weights.
    validation : int
        Sounds of the validation set.
    report_every : int
        Steps from one report and checkpoint to the next.
    device : {'auto', 'cpu', 'cuda'}
        ``'auto'`` is CUDA where there is any.
    compile : bool
        Whether to compile the model.
    bf16 : bool
        Whether the network computes in bfloat16 as far as autocast lets it; the cochlea never does.
    out : Path, optional
        Folder of the checkpoint and the metrics.
    resume : bool
        Whether to go on from the checkpoint in ``out``.
    """

    steps: int = 400
    batch: int = 16
    seconds: float = 1.0
    channels: int = 32
    low: float = 80.0
    high: float = 7500.0
    learnable: str = "relative"
    bandwidth: float = 1.0
    lr: float = 5e-3
    filter_lr: float | None = None
    seed: int = 0
    validation: int = 256
    report_every: int = 50
    device: str = "auto"
    compile: bool = False
    bf16: bool = False
    out: Path | None = None
    resume: bool = False

    def numbers(self, world: int) -> dict[str, Any]:
        """What the numbers of a run follow from. How many processes share a batch is not among it."""
        of_all = asdict(self) | {"batch": self.batch * world}
        return {name: value for name, value in of_all.items() if name not in ("compile", "device", "out", "resume")}


@dataclass(frozen=True)
class Process:
    """One of the processes that train together: the one that runs."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether it is the one that prints and writes."""
        return self.rank == 0

    @property
    def at_a_terminal(self) -> bool:
        """Whether somebody looks at what it prints."""
        return self.first and sys.stderr.isatty()

    def total(self, values: Tensor) -> list[float]:
        """Sums of ``values`` (N,) over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values.tolist()


class SettingsError(Exception):
    """Something that another command line puts right; the message says what."""


@contextmanager
def process(device: str) -> Iterator[Process]:
    """Be one of the processes of ``torchrun``, or the only one.

    Parameters
    ----------
    device : {'auto', 'cpu', 'cuda'}
        ``'auto'`` is CUDA where there is any.

    Raises
    ------
    SettingsError
        CUDA where there is none, or fewer devices than processes.
    """
    told = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
    rank, world, local = (int(os.environ.get(name, alone)) for name, alone in told.items())
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cuda":
        if local >= torch.cuda.device_count():
            raise SettingsError(
                f"--device cuda needs a CUDA device per process of a machine, got process {local + 1} and "
                f"{torch.cuda.device_count()} devices; --device cpu needs none"
            )
        torch.cuda.set_device(local)
    together = "RANK" in os.environ
    if together:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Process(rank, world, torch.device(kind, local) if kind == "cuda" else torch.device(kind))
    finally:
        if together:
            dist.destroy_process_group()


def chirp(time: Tensor, start: Tensor, duration: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Tones that glide from ``first`` to ``last`` Hz, by equal ratios in equal times; all (B, 1), time (T,): (B, T)."""
    rate = (last / first).log() / duration
    return torch.sin(2 * math.pi * first / rate * torch.expm1(rate * (time - start)))


def harmonic_complex(time: Tensor, f0: Tensor, low: Tensor, high: Tensor, phases: Tensor) -> Tensor:
    """Harmonics of ``f0`` (B, 1) from ``low`` to ``high`` Hz, equally strong, at phases (B, K) in cycles: (B, T)."""
    harmonics = f0 * torch.arange(1, phases.shape[1] + 1, device=time.device)
    inside = (harmonics >= low) & (harmonics <= high)
    weights = torch.polar(inside.to(phases.dtype), 2 * math.pi * phases)
    turns = 2 * math.pi * f0 * time
    fundamental = torch.polar(torch.ones_like(turns), turns)
    total = torch.zeros_like(fundamental)
    for weight in reversed(weights.unbind(1)):  # Horner: powers of the fundamental are its harmonics
        total = (total + weight[:, None]) * fundamental
    return total.real


def noise_band(noise: Tensor, low: Tensor, high: Tensor, fs: float = FS) -> Tensor:
    """What lies from ``low`` to ``high`` Hz (B, 1) in ``noise`` (B, T): (B, T)."""
    f = torch.fft.rfftfreq(noise.shape[1], 1 / fs, device=noise.device)
    return torch.fft.irfft(torch.fft.rfft(noise) * ((f >= low) & (f <= high)), noise.shape[1])


def make_sounds(
    indices: Sequence[int], seconds: float, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Make sounds in background noise.

    A sound follows from its index and ``seed`` alone. So the data of a step are the same however many processes share
    them, and a run that goes on from a checkpoint needs to know no more than its step.

    Parameters
    ----------
    indices : sequence of int (B,)
        Which sounds; the class is ``index % 4``.
    seconds : float
        How long. The sound itself has 0.4 to 1 of that, and lies in a band of 1 to 2 octaves around 0.5 to 2 kHz.
    seed : int
        Of all random numbers. They differ between devices.
    device : torch.device or str
        Where the sounds are made.

    Returns
    -------
    sounds : Tensor (B, T)
        At 16 kHz. Levels are -40 to -10 dB re full scale, ratios of signal to noise -5 to 20 dB.
    labels : Tensor (B,)
        Indices into ``CLASSES``.
    """
    samples = round(seconds * FS)
    drawn, noises = [], []
    generator = torch.Generator(device)
    for index in indices:
        numbers = np.random.default_rng((seed, index))
        noises.append(
            torch.randn(2, samples, generator=generator.manual_seed(int(numbers.integers(2**32))), device=device)
        )
        drawn.append(numbers.random(7 + HARMONICS))
    uniform = torch.as_tensor(np.stack(drawn), dtype=torch.float32, device=device)
    noise, background = torch.stack(noises, 1)
    (length, place, middle, width, pitch, loud, ratio), phases = uniform[:, :7].T[..., None], uniform[:, 7:]

    time = torch.arange(samples, device=device) / FS
    duration = seconds * (0.4 + 0.6 * length)
    start = place * (seconds - duration)
    centre, octaves, f0 = 500 * 4**middle, 1 + width, 200 * 2.5**pitch
    low, high = centre / 2 ** (octaves / 2), centre * 2 ** (octaves / 2)
    level, noise_level = -40 + 30 * loud, -20 + 25 * ratio

    sources: tuple[Callable[[list[int]], Tensor], ...] = (
        lambda own: chirp(time, start[own], duration[own], low[own], high[own]),
        lambda own: chirp(time, start[own], duration[own], high[own], low[own]),
        lambda own: harmonic_complex(time, f0[own], low[own], high[own], phases[own]),
        lambda own: noise_band(noise[own], low[own], high[own]),
    )
    source = torch.empty_like(background)
    labels = [index % len(CLASSES) for index in indices]
    for label, make in enumerate(sources):
        own = [i for i, of in enumerate(labels) if of == label]
        if own:
            source[own] = make(own)
    source = source / source.square().mean(1, keepdim=True).sqrt()
    ramp = ((time - start) / 0.01).clamp(0, 1) * ((start + duration - time) / 0.01).clamp(0, 1)
    sounds = 10 ** (level / 20) * (torch.sin(math.pi / 2 * ramp) ** 2 * source + 10 ** (noise_level / 20) * background)
    return sounds, torch.tensor(labels, device=device)


class Classifier(nn.Module):
    """Logits of the classes from sounds (B, T): (B, 4).

    Normalisation is over each sound by itself, so that a batch shared by several processes is still the same batch.

    Parameters
    ----------
    cochleagram : tamt.Cochleagram
        The ears, of F channels.
    width : int
        Feature maps of the first convolution, a multiple of 4.
    """

    def __init__(self, cochleagram: tamt.Cochleagram, width: int = 16) -> None:
        super().__init__()
        self.cochleagram = cochleagram
        layers: list[nn.Module] = [nn.Unflatten(1, (1, -1)), nn.GroupNorm(1, 1)]
        for inputs, outputs in ((1, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()]
        self.network = nn.Sequential(*layers)
        self.output = nn.Linear(4 * width, len(CLASSES))

    def forward(self, sounds: Tensor) -> Tensor:
        """Logits (B, 4) of ``sounds`` (B, T)."""
        maps = self.network(self.cochleagram(sounds))
        return self.output(torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), 1))


def classifier(settings: Settings, device: torch.device | str = "cpu") -> Classifier:
    """Make a classifier with a bank of gammatone filters, equally spaced on the ERB scale."""
    torch.manual_seed(settings.seed)
    ear = tamt.GammatoneFilterbank((settings.low, settings.high), FS, n_channels=settings.channels)
    betamul = settings.bandwidth * ear.betamul
    bank = tamt.GammatoneFilterbank(ear.fc, FS, betamul=betamul, learnable=LEARNABLE[settings.learnable])
    return Classifier(tamt.Cochleagram(bank, hop_length=160, frame_length=320, compression="db")).to(device)


def optimiser(model: Classifier, settings: Settings) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW, and a learning rate that rises for a tenth of the steps and falls to 0 as a cosine.

    The relative parameters are parameters like any others. Poles, the parameters of ``learnable=True``, are close to
    the unit circle and want a small rate and no decay; gains then stay what they are.
    """
    bank = model.cochleagram.bank
    filter_lr = settings.lr / (30 if settings.learnable == "true" else 1)
    if settings.filter_lr is not None:
        filter_lr = settings.filter_lr
    groups: list[dict[str, Any]] = [{"params": [*model.network.parameters(), *model.output.parameters()]}]
    if settings.learnable == "relative":
        groups.append({"params": bank.parameters(), "lr": filter_lr})
    elif settings.learnable == "true":
        bank.gains.requires_grad_(False)
        groups.append({"params": [bank.poles], "lr": filter_lr, "weight_decay": 0.0})
    rise = math.ceil(settings.steps / 10)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / rise) * (1 + math.cos(math.pi * step / settings.steps)) / 2

    optimizer = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def filters(model: Classifier) -> dict[str, list[float]]:
    """The filters as they are now: the real ones of the quantities of ``bank.design()``."""
    return {name: value.tolist() for name, value in model.cochleagram.bank.design().items() if not value.is_complex()}


def checksum(model: nn.Module) -> str:
    """The same for the same parameters, bit by bit, and for no others."""
    total = hashlib.sha256()
    for parameter in model.parameters():
        total.update(parameter.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


class Training:
    """A classifier, what trains it, and how far that has come.

    Parameters
    ----------
    settings : Settings
        Of the run.
    here : Process
        This process; with others the network's gradients are means over all of them.

    Attributes
    ----------
    step : int
        Steps done.
    history : list of dict
        For every report ``step``, ``loss`` (mean since the last one), ``validation_loss`` and ``accuracy``.
    """

    def __init__(self, settings: Settings, here: Process) -> None:
        self.settings = settings
        self.here = here
        self.model = classifier(settings, here.device)
        self.optimizer, self.scheduler = optimiser(self.model, settings)
        self.step = 0
        self.history: list[dict[str, float]] = []
        if settings.compile:
            self.model.compile()
        self.network: nn.Module = self.model
        if here.world > 1:
            devices = [here.device] if here.device.type == "cuda" else None
            self.network = DistributedDataParallel(self.model, devices)

    def sounds(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Sounds and labels of these indices."""
        return make_sounds(indices, self.settings.seconds, self.settings.seed, self.here.device)

    def logits(self, network: nn.Module, sounds: Tensor) -> Tensor:
        """Logits in float32, of a network in bfloat16 if that is wanted; the cochleagram keeps float32 by itself."""
        with torch.autocast(self.here.device.type, torch.bfloat16, enabled=self.settings.bf16):
            return network(sounds).float()

    def advance(self, steps: int, bar: tqdm) -> float:
        """Do so many steps; the mean loss over the sounds of all processes.

        Raises
        ------
        SettingsError
            It is not finite.
        """
        batch, total = self.settings.batch, torch.zeros(1, device=self.here.device)
        for _ in range(steps):
            first = (self.step * self.here.world + self.here.rank) * batch
            sounds, labels = self.sounds(range(first, first + batch))
            loss = nn.functional.cross_entropy(self.logits(self.network, sounds), labels)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
            self.optimizer.step()
            self.scheduler.step()
            self.step += 1
            total += loss.detach()
            bar.update()
        mean = self.here.total(total)[0] / (steps * self.here.world)
        if not math.isfinite(mean):
            raise SettingsError(f"--lr {self.settings.lr:g}: the loss is {mean} by step {self.step}; try a lower one")
        return mean

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Mean loss and share of right answers over the validation set, of which every process takes its part."""
        self.model.eval()
        own = range(VALIDATION + self.here.rank, VALIDATION + self.settings.validation, self.here.world)
        total = torch.zeros(2, device=self.here.device)
        for i in range(0, len(own), self.settings.batch):
            sounds, labels = self.sounds(own[i : i + self.settings.batch])
            logits = self.logits(self.model, sounds)
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
            total += torch.stack((loss, (logits.argmax(1) == labels).sum()))
        self.model.train()
        loss_sum, right = self.here.total(total)
        return loss_sum / self.settings.validation, right / self.settings.validation

    def save(self, folder: Path) -> None:
        """Write the checkpoint: all of it, or the one before stays."""
        checkpoint = {"settings": self.settings.numbers(self.here.world), "step": self.step, "history": self.history}
        checkpoint |= {name: getattr(self, name).state_dict() for name in STATEFUL}
        torch.save(checkpoint, folder / f"{CHECKPOINT}.new")
        os.replace(folder / f"{CHECKPOINT}.new", folder / CHECKPOINT)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        SettingsError
            There is none, or it is of a run with other settings.
        """
        try:
            checkpoint = torch.load(path, "cpu", weights_only=True)
            settings = checkpoint["settings"]
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError) as error:
            why = getattr(error, "strerror", None) or "it is no checkpoint of this script"
            raise SettingsError(f"--resume cannot read {path} ({why}); without --resume a run begins anew") from error
        now = self.settings.numbers(self.here.world)
        other = {name: value for name, value in settings.items() if value != now.get(name) and name != "steps"}
        if other:
            said = ", ".join(f"{name} {value}, here {now.get(name)}" for name, value in other.items())
            raise SettingsError(
                f"--resume: {path} is of other settings ({said}); batch is that of all processes together"
            )
        self.step, self.history = checkpoint["step"], checkpoint["history"]
        for name in STATEFUL:
            getattr(self, name).load_state_dict(checkpoint[name])

    def metrics(self) -> dict[str, Any]:
        """How it went up to here, and what was run where."""
        device, checksums = self.here.device, [checksum(self.model)] * self.here.world
        if self.here.world > 1:
            dist.all_gather_object(checksums, checksums[0])
        return {
            **self.history[-1],
            "history": self.history,
            "world_size": self.here.world,
            "checksums": checksums,
            "settings": self.settings.numbers(self.here.world),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "versions": {"tamt": tamt.__version__, "torch": torch.__version__},
        }


def make_folder(path: Path) -> None:
    """Make a folder, if there is none.

    Raises
    ------
    SettingsError
        It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"--out must be a folder, or where one can be made, got {path}: {error.strerror}"
        ) from error


def train(settings: Settings) -> dict[str, Any]:
    """Train a classifier, alone or as one of the processes of ``torchrun``.

    Parameters
    ----------
    settings : Settings
        With a folder ``out`` it gets ``checkpoint.pt`` at every report, and ``metrics.json`` in the end.

    Returns
    -------
    dict
        What ``metrics.json`` holds: ``loss`` (mean since the report before), ``validation_loss`` and ``accuracy`` at
        the end and at every report (``history``); ``hours_of_sound_per_second`` in training, making the sounds
        included, after the first report, as first steps compile and allocate; the ``filters`` before and after; a
        checksum of the parameters of every process; and what was run where.

    Raises
    ------
    SettingsError
        Frequencies that do not rise, a device that is not there, a checkpoint that is not there or of other settings, a
        folder that cannot be made, a loss that is not finite.
    """
    if not settings.low < settings.high:
        raise SettingsError(f"--low must be below --high, got {settings.low:g} and {settings.high:g}")
    with process(settings.device) as here:
        training = Training(settings, here)
        before = filters(training.model)
        if settings.resume:
            if settings.out is None:
                raise SettingsError("--resume needs --out, the folder of the checkpoint")
            training.load(settings.out / CHECKPOINT)
        if settings.out and here.first:
            make_folder(settings.out)
        rates: list[tuple[float, float]] = []
        with tqdm(total=settings.steps, initial=training.step, unit="step", disable=not here.at_a_terminal) as bar:
            while training.step < settings.steps:
                steps = min(
                    settings.report_every - training.step % settings.report_every, settings.steps - training.step
                )
                clock = perf_counter()
                loss = training.advance(steps, bar)
                rates.append((steps * settings.batch * here.world * settings.seconds / 3600, perf_counter() - clock))
                validation_loss, accuracy = training.evaluate()
                report = {"step": training.step, "loss": loss, "validation_loss": validation_loss, "accuracy": accuracy}
                training.history.append(report)
                if here.first:
                    tqdm.write(
                        f"step {training.step}: loss {loss:.4f}, validation loss {validation_loss:.4f}, accuracy "
                        f"{accuracy:.1%}, {rates[-1][0] / rates[-1][1]:.2g} hours of sound per second"
                    )
                    if settings.out:
                        training.save(settings.out)
        metrics = training.metrics()
        hours, took = (sum(part) for part in zip(*(rates[1:] or rates or [(0.0, 0.0)]), strict=True))
        metrics["hours_of_sound_per_second"] = hours / took if took else None
        metrics["filters"] = {"before": before, "after": filters(training.model)}
        if settings.out and here.first:
            (settings.out / METRICS).write_text(json.dumps(metrics, indent=1) + "\n")
            tqdm.write(f"accuracy {metrics['accuracy']:.1%}; {CHECKPOINT} and {METRICS} are in {settings.out}")
    return metrics


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], Any]:
    """What argparse reads a number of a range with."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or value == math.inf:
            what = "a whole number" if kind is int else "a number"
            range_ = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:.10g}"
            raise argparse.ArgumentTypeError(f"must be {what} {range_}, got {text!r}")
        return value

    return read


def arguments(argv: Sequence[str] | None = None) -> tuple[argparse.ArgumentParser, Settings]:
    """The settings of a command line, and what reads it."""
    parser = argparse.ArgumentParser(
        description="Train a classifier of synthetic sounds together with its cochlea.",
        epilog="Several processes: torchrun --nproc-per-node N examples/train_classifier.py ...",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(**asdict(Settings()))
    add = parser.add_argument
    add("--steps", type=number(int, 1), help="steps of the optimiser")
    add("--batch", type=number(int, 1), help="sounds per step and process")
    add("--seconds", type=number(float, 0.1, 60), help="length of a sound")
    add("--channels", type=number(int, 1, 1024), help="number of filters")
    add("--low", type=number(float, 20, HIGHEST), help="centre frequency of the lowest filter in Hz")
    add("--high", type=number(float, 20, HIGHEST), help="of the highest, above --low")
    add("--learnable", choices=LEARNABLE, help="the filters: not learnt, poles, or relative parameters")
    add("--bandwidth", type=number(float, 0.1, 10), help="of the filters at the start, in those of normal ears")
    add("--lr", type=number(float, 0, 1), help="highest learning rate")
    add("--filter-lr", type=number(float, 0, 1), help="that of the filters; None: lr, for poles lr / 30")
    add("--seed", type=number(int, 0, 2**32 - 1), help="of sounds and weights")
    add("--validation", type=number(int, 1), help="sounds of the validation set")
    add("--report-every", type=number(int, 1), help="steps from one report and checkpoint to the next", metavar="STEPS")
    add("--device", choices=("auto", "cpu", "cuda"), help="auto: cuda where there is one")
    add("--compile", action="store_true", help="torch.compile of the model")
    add("--bf16", action="store_true", help="the network, not the cochlea, in bfloat16")
    add(
        "--out",
        type=Path,
        help="folder for checkpoint.pt and metrics.json; without it nothing is written",
        metavar="DIR",
    )
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    return parser, Settings(**vars(parser.parse_args(argv)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or SystemExit with 2 and the reason on standard error."""
    parser, settings = arguments(argv)
    try:
        train(settings)
    except SettingsError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
