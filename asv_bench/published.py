"""Figures of the page on conformance: tamt beside published values, and what is a model's convention and not a fact.

``python -m asv_bench.published --out results/published.json``
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tamt
from asv_bench import environment
from asv_bench.benchmarks.common import golden
from tamt.design.drnl import ir_length_for
from tamt.filterbanks.drnl import MODELS
from tamt.filterbanks.fast_drnl import IR_LENGTH
from tamt.spl import STAPES_LEVEL, full_scale_pascal, pascal2spl, spl2pascal

FS = 32000  # Hz, of the loudness models
FLOAT64 = torch.float64
# ISO 532-3, loudness in sone of a tone of 1 kHz, heard with both ears in a free field, by its level in dB SPL.
ISO_532_3 = {
    10: 0.025, 20: 0.138, 30: 0.422, 40: 1.00, 50: 2.09, 60: 4.11, 70: 7.92, 80: 15.4, 90: 31.1, 100: 64.8, 120: 306.0,
}  # fmt: skip
# Moore et al. (2016), ANSI S3.4-2007: outer ear in a free field and middle ear, in dB.
EAR = {
    125: (0.1, -11.0),
    500: (1.7, -3.8),
    1000: (2.6, -2.6),
    2000: (12.0, -8.5),
    4000: (14.2, -6.6),
    8000: (1.8, -12.2),
}
GLASBERG_1990 = "Glasberg and Moore (1990)"
MOORE_2016 = "Moore et al. (2016)"


@dataclass
class Published:
    """A published value beside tamt's."""

    group: str
    module: str
    quantity: str
    source: str
    published: float
    tamt: float
    unit: str


@dataclass
class Convention:
    """A figure of what a module does by its model's own rule; ``of`` and ``quantity`` are row and column of a table."""

    group: str
    of: str
    quantity: str
    value: float
    unit: str


def published() -> Iterator[Published]:
    yield from scales()
    yield from gammatone()
    yield from drnl()
    yield from ear()
    yield from roex()
    yield from loudness()


def scales() -> Iterator[Published]:
    for hertz, width in ((100, 35.5), (1000, 132.6), (4000, 456.5)):
        yield Published("scales", "f2erb", f"ERB at {hertz} Hz", GLASBERG_1990, width, tamt.f2erb(float(hertz)), "Hz")
    yield Published("scales", "f2erbrate", "ERB-number of 1 kHz", GLASBERG_1990, 15.6, tamt.f2erbrate(1000.0), "Cam")


def gammatone() -> Iterator[Published]:
    betamul = tamt.GammatoneFilterbank([1000.0], 16000).betamul
    yield Published(
        "gammatone", "GammatoneFilterbank", "bandwidth parameter over ERB, order 4", "Patterson et al. (1987)", 1.019,
        betamul, "",
    )  # fmt: skip
    for hertz in (500.0, 1000.0, 4000.0):
        bank = tamt.GammatoneFilterbank([hertz], 44100, dtype=FLOAT64)
        frequencies = torch.arange(0.0, 22050, 0.5, dtype=FLOAT64)
        power = bank.frequency_response(frequencies)[0].abs().square()
        width = (power.sum() * 0.5 / power.max()).item()
        wanted = 24.7 * (4.37 * hertz / 1000 + 1)
        yield Published(
            "gammatone", "GammatoneFilterbank", f"ERB of the filter at {hertz:g} Hz", GLASBERG_1990, wanted, width, "Hz"
        )


def drnl() -> Iterator[Published]:
    bank = tamt.DRNLFilterbank([500.0, 1000.0, 4000.0], 44100)
    bank.g.zero_()
    slopes = bank.io_function([-90.0, -60.0])
    for hertz, slope in zip((500, 1000, 4000), (slopes[:, 1] - slopes[:, 0]) / 30, strict=True):
        yield Published(
            "drnl", "DRNLFilterbank", f"exponent of compression, nonlinear path at {hertz} Hz",
            "Lopez-Poveda and Meddis (2001)", 0.25, slope.item(), "dB/dB",
        )  # fmt: skip


def ear() -> Iterator[Published]:
    frequencies = torch.tensor([float(hertz) for hertz in EAR], dtype=FLOAT64)
    response = tamt.OuterMiddleEar(FS, "free", dtype=FLOAT64).frequency_response(frequencies)
    gains = 20 * response.abs().log10()
    for (hertz, parts), gain in zip(EAR.items(), gains.tolist(), strict=True):
        yield Published(
            "ear", "OuterMiddleEar", f"gain at {hertz} Hz, free field", "ANSI S3.4-2007, table", sum(parts), gain, "dB"
        )


def roex() -> Iterator[Published]:
    """Width of a channel's filter at the level for which its sides are alike, 51 dB."""
    pattern = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=10, dtype=FLOAT64)
    for nearest in (500.0, 1000.0, 4000.0):
        channel = int((pattern.fc_channels - nearest).abs().argmin())
        hertz = pattern.fc_channels[channel].item()
        step = hertz / 1000
        tones = torch.arange(step, 2 * hertz, step, dtype=FLOAT64)[:, None]
        heard = 10 ** (pattern(tones, torch.full_like(tones, 51.0))[:, channel] / 10)
        width = (heard.sum() * step / heard.max()).item()
        yield Published(
            "moore2016", "Moore2016ExcitationPattern", f"ERB of the filter at {hertz:.0f} Hz, tones of 51 dB",
            GLASBERG_1990, 24.7 * (4.37 * hertz / 1000 + 1), width, "Hz",
        )  # fmt: skip


def tone(hertz: float, level: float, seconds: float = 0.7) -> Tensor:
    time = torch.arange(int(seconds * FS), dtype=FLOAT64) / FS
    return full_scale_pascal(level) * torch.sin(2 * math.pi * hertz * time)


def steady(model: tamt.Moore2016Loudness, sound: Tensor) -> float:
    """Short-term loudness half a second after the start, where it has settled."""
    return model(sound).short_term[int(0.5 * model.frame_rate)].item()


def loudness() -> Iterator[Published]:
    model = tamt.Moore2016Loudness(dtype=FLOAT64, hop=10)
    for level, sone in ISO_532_3.items():
        yield Published(
            "loudness", "Moore2016Loudness", f"1 kHz, {level} dB SPL, steady", "ISO 532-3, table", sone,
            steady(model, tone(1000, level)), "sone",
        )  # fmt: skip
    both = tone(1000, 60)
    one = torch.stack((both, torch.zeros_like(both)))
    yield Published(
        "loudness", "Moore2016Loudness", "1 kHz, 60 dB SPL, both ears over one", MOORE_2016, 1.5,
        steady(model, both) / steady(model, one), "",
    )  # fmt: skip
    yield Published(
        "loudness", "Glasberg2002Loudness", "1 kHz, 40 dB SPL, steady", "definition of the sone", 1.0,
        tamt.Glasberg2002Loudness(dtype=FLOAT64, hop=10)(tone(1000, 40)).short_term[50].item(), "sone",
    )  # fmt: skip
    yield Published(
        "loudness", "sone2phon", "loudness level of 1 sone", "definition of the phon", 40.0, tamt.sone2phon(1.0), "phon"
    )
    yield Published(
        "loudness",
        "Moore2016Loudness",
        "1 kHz, 40 dB SPL, 0.1 s, peak",
        "the authors' Python port, stored value",
        0.55137685,
        tamt.Moore2016Loudness(dtype=FLOAT64)(tone(1000, 40, 0.1)).peak.item(),
        "sone",
    )
    with golden("moore2016_loudness") as data:
        full_scale = full_scale_pascal(float(data["db_max"]))
        for case, what, value in (
            ("tone40", "1 kHz, 40 dB SPL, 0.4 s, peak", 0.9704),
            ("twotone", "400 Hz, 55 dB, and 2.5 kHz, 65 dB, peak", 9.978),
        ):
            sound = full_scale * torch.from_numpy(data[f"{case}_x"]).to(FLOAT64)
            yield Published(
                "loudness", "Moore2016Loudness", what, "ISO 532-3 by phonometry 3.3.0", value,
                tamt.Moore2016Loudness(dtype=FLOAT64)(sound).peak.item(), "sone",
            )  # fmt: skip


def conventions() -> Iterator[Convention]:
    yield from gain_at_the_centre()
    yield from expanded_form()
    yield from falling_curves()
    yield from truncation()
    yield from sums_of_spectra()
    yield from flat_spectrum()
    yield from spreading_of_levels()
    yield from spreading_limit()
    yield from documents_front_end()


def gain_at_the_centre() -> Iterator[Convention]:
    for fs in (16000, 44100):
        centres = {f"{hertz:g} Hz": hertz for hertz in (20.0, 31.5, 50.0, 100.0)}
        centres |= {f"{part:g} fs": part * fs for part in (0.1, 0.25, 0.4, 0.45, 0.475, 0.48, 0.49, 0.495, 0.5)}
        frequencies = torch.tensor(list(centres.values()), dtype=FLOAT64)
        bank = tamt.GammatoneFilterbank(frequencies, fs, dtype=FLOAT64)
        gains = 20 * bank.frequency_response(frequencies).diagonal().abs().log10()
        for name, gain in zip(centres, gains.tolist(), strict=True):
            yield Convention("gain", f"{fs / 1000:g} kHz", name, gain, "dB")


def expanded_form() -> Iterator[Convention]:
    """Where the limit of the poles begins, and what it does to the filters below."""
    for fs in (16000, 44100):
        rate = f"{fs / 1000:g} kHz"
        frequencies = torch.arange(1.0, fs / 2, 1.0, dtype=FLOAT64)
        bank = tamt.GammatoneFilterbank(frequencies[9:], fs, dtype=FLOAT64)
        inside = bank.poles.abs() > 0.9
        yield Convention("poly", rate, "limited up to", bank.fc[inside].max().item(), "Hz")
        centres = [250.0, 500.0, 1000.0, 2000.0]
        powers = [
            tamt.GammatoneFilterbank(centres, fs, implementation=form, dtype=FLOAT64)
            .frequency_response(frequencies).abs().square()
            for form in ("sos", "poly")
        ]  # fmt: skip
        widths = [power.sum(-1) / power.amax(-1) for power in powers]
        for k, hertz in enumerate(centres):
            level = 10 * (powers[1][k].max() / powers[0][k].max()).log10().item()
            yield Convention("poly", rate, f"{hertz:g} Hz, gain", level, "dB")
            yield Convention("poly", rate, f"{hertz:g} Hz, width", (widths[1][k] / widths[0][k]).item(), "times")


def falling_curves() -> Iterator[Convention]:
    """Of tones from 0 to 110 dB SPL in steps of 0.5 dB, at 44.1 kHz; slopes over both steps around a level."""
    step, to_spl = 0.5, STAPES_LEVEL
    levels = torch.arange(0.0, 110.1, step, dtype=FLOAT64)
    centres = [1000.0, 2000.0, 4000.0, 5700.0, 8000.0]
    for model in MODELS:
        bank = tamt.DRNLFilterbank(centres, 44100, model=model)
        output = bank.io_function(levels + to_spl)
        for hertz, slopes in zip(centres, (output[:, 2:] - output[:, :-2]) / (2 * step), strict=True):
            least = int(slopes.argmin())
            yield Convention("io", model, f"{hertz:g} Hz, least slope", slopes[least].item(), "dB/dB")
            yield Convention("io", model, f"{hertz:g} Hz, at a level of", levels[1 + least].item(), "dB SPL")


def truncation() -> Iterator[Convention]:
    """Samples that FastDRNLFilterbank's rule wants, and the error of the default where that is less."""
    generator = torch.Generator().manual_seed(0)
    for fs in (16000, 44100, 96000, 192000):
        for hertz in (50.0, 100.0, 250.0, 1000.0):
            for model, (order, *_) in MODELS.items():
                of, quantity = f"{fs / 1000:g} kHz", f"{hertz:g} Hz, {model}"
                exact = tamt.DRNLFilterbank([hertz], fs, model=model)
                needed = ir_length_for(min(exact.BW_lin.item(), exact.BW_nlin.item()), fs, order)
                yield Convention("truncation", of, quantity, needed, "samples")
                if needed <= IR_LENGTH:
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    fast = tamt.FastDRNLFilterbank([hertz], fs, model=model)
                sound = 1e-4 * torch.randn(3 * needed, generator=generator, dtype=FLOAT64)
                output = exact(sound)
                error = (fast(sound) - output).abs().max() / output.abs().max()
                yield Convention("cut", of, quantity, 100 * error.item(), "% of the peak")


def sums_of_spectra() -> Iterator[Convention]:
    """Power by the spectrum over that of the sound."""
    spectrum = tamt.MultiResolutionFFT(FS, dtype=FLOAT64)

    def power(sound: Tensor) -> Tensor:
        psd, freqs = spectrum(sound)
        return psd.sum(-1) * freqs[1]

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 8 * FS, generator=generator, dtype=FLOAT64)
    middle = power(noise)[:, 2:-2].mean() / noise.square().mean()
    yield Convention("spectrum", "power", "white noise, 32 s, mean", middle.item(), "times")
    time = torch.arange(6 * 1024, dtype=FLOAT64) / FS
    limits = [float(limit) for limit in spectrum.freq_thresholds]
    away = [f for f in range(100, 15000, 50) if all(abs(f / limit - 1) > 0.25 for limit in limits)]
    near = sorted({limit * (1 + k / 200) for limit in limits for k in range(-40, 41)})
    for what, hertz in (("tones more than 25 % from a limit of the bands", away), ("tones up to 20 % from one", near)):
        tones = torch.sin(2 * math.pi * torch.tensor(hertz, dtype=FLOAT64)[:, None] * time)
        found = power(tones)[:, 2:4] / 0.5
        yield Convention("spectrum", "power", f"{what}, least", found.min().item(), "times")
        yield Convention("spectrum", "power", f"{what}, most", found.max().item(), "times")
    yield Convention(
        "spectrum", "power", "tone of 1 kHz", power(torch.sin(2 * math.pi * 1000 * time))[0, 3].item() / 0.5, "times"
    )
    clicks = torch.zeros(128, 8 * 1024, dtype=FLOAT64)
    clicks[torch.arange(128), 3584 + 8 * torch.arange(128)] = 1.0
    energy = power(clicks).sum(-1) * 1024  # a frame stands for a hop
    yield Convention("spectrum", "power", "clicks, by their place in a hop, least", energy.min().item(), "times")
    yield Convention("spectrum", "power", "clicks, by their place in a hop, most", energy.max().item(), "times")


def flat_spectrum() -> Iterator[Convention]:
    """A density of 1 Pa^2/Hz in bands, over what the nominal bandwidths would hold."""
    bands = tamt.ERBIntegration(FS, dtype=FLOAT64)
    freqs = torch.arange(1025, dtype=FLOAT64) * FS / 2048
    levels = bands(torch.ones(1, 1, 1025, dtype=FLOAT64), freqs)[0, 0]
    centres = bands.fc_erb.to(FLOAT64)
    nominal = 20 * torch.log10(torch.sqrt(24.673 * (4.368e-3 * centres + 1)) / spl2pascal(0.0))
    error = levels - nominal
    for low, high in ((0, 500), (500, 2000), (2000, 16000)):
        chosen = error[(centres >= low) & (centres < high)]
        where = f"below {high} Hz" if low == 0 else f"{low} to {high} Hz" if high < 16000 else f"above {low} Hz"
        yield Convention("bands", "error", f"{where}, least", chosen.min().item(), "dB")
        yield Convention("bands", "error", f"{where}, most", chosen.max().item(), "dB")


def documents_levels(sound: Tensor) -> Tensor:
    """Levels in dB SPL of the bands, and of the excitation, in the middle of sounds (B, T)."""
    spectrum, bands = tamt.MultiResolutionFFT(FS, dtype=FLOAT64), tamt.ERBIntegration(FS, dtype=FLOAT64)
    psd, freqs = spectrum(sound)
    levels = bands(psd, freqs)
    return levels[:, levels.shape[1] // 2]


def spreading_of_levels() -> Iterator[Convention]:
    """Levels of patterns of 1 kHz re their peak, by distance from 1 kHz in ERB: of a tone by both models' spectra, and
    of a component alone, to which no window adds a skirt.
    """
    documents = tamt.ExcitationPattern(FS, dtype=FLOAT64)
    moore = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=10, dtype=FLOAT64)
    spectrum = tamt.Moore2016Spectrum(FS, 50, pascal2spl(1 / math.sqrt(2)), dtype=FLOAT64)
    for level in (40.0, 60.0, 80.0, 100.0):
        sound = tone(1000, level, 0.5)
        freqs, levels, _ = spectrum.dense(sound.expand(1, 2, -1))
        component = torch.tensor([1000.0], dtype=FLOAT64), torch.tensor([level], dtype=FLOAT64)
        for name, excitation, centres in (
            ("`ExcitationPattern`, tone", documents(documents_levels(sound[None]))[0], documents.fc_erb),
            ("`Moore2016ExcitationPattern`, tone", moore(freqs, levels[0, 4]), moore.fc_channels),
            ("`Moore2016ExcitationPattern`, component alone", moore(*component), moore.fc_channels),
        ):
            middle = int((centres - 1000).abs().argmin())
            for distance in (-4, -2, 2, 4):
                value = (excitation[middle + 4 * distance] - excitation.max()).item()
                yield Convention("skirts", f"{name}, {level:g} dB", f"{distance:+d} ERB", value, "dB")
    frequencies = torch.logspace(math.log10(60), math.log10(12000), 40, dtype=FLOAT64)
    time = torch.arange(int(0.3 * FS), dtype=FLOAT64) / FS
    tones = torch.sin(2 * math.pi * frequencies[:, None] * time)
    above = torch.stack(
        [
            documents(documents_levels(full_scale_pascal(level) * tones)).amax(-1) - level
            for level in (20.0, 40.0, 60.0, 80.0, 100.0)
        ]
    )
    yield Convention("peak", "peak", "least", above.min().item(), "dB")
    yield Convention("peak", "peak", "most", above.max().item(), "dB")


def spreading_limit() -> Iterator[Convention]:
    """What the default of 4 octaves does to a component of 100 Hz and 110 dB, and to such a tone in a free field."""
    freqs, levels = torch.tensor([100.0], dtype=FLOAT64), torch.tensor([110.0], dtype=FLOAT64)
    specific = tamt.Moore2016SpecificLoudness(dtype=FLOAT64)
    model = tamt.Moore2016Loudness(dtype=FLOAT64, hop=10)
    found = {}
    for limit in (4.0, 10.0):
        of = f"{limit:g} octaves"
        pattern = model.front.pattern = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=limit, dtype=FLOAT64)
        excitation = pattern(freqs, levels)
        channel = int((pattern.fc_channels - 1643).abs().argmin())
        found[of] = {
            "component at the cochlea": specific(10 ** (excitation / 10)).sum().item(),
            "tone in a free field": steady(model, tone(100, 110)),
        }
        yield Convention("limit", of, "excitation at 1643 Hz", excitation[channel].item(), "dB")
        for what, value in found[of].items():
            yield Convention("limit", of, f"loudness, {what}", value, "sone")
    for what, value in found["10 octaves"].items():
        lost = 100 * (1 - found["4 octaves"][what] / value)
        yield Convention("limit", "4 octaves, lost", f"loudness, {what}", lost, "%")


def documents_front_end() -> Iterator[Convention]:
    """Loudness by the front end of the documents over that of the published model."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2 * FS, generator=generator, dtype=FLOAT64)
    noise = noise / noise.square().mean().sqrt()
    own = tamt.Glasberg2002Loudness(dtype=FLOAT64, hop=10)
    documents = tamt.Glasberg2002Loudness(dtype=FLOAT64, front_end="documents")
    for what, sound in (
        ("1 kHz, 40 dB", tone(1000, 40, 2.0)),
        ("1 kHz, 60 dB", tone(1000, 60, 2.0)),
        ("1 kHz, 80 dB", tone(1000, 80, 2.0)),
        *((f"white noise, {level} dB", spl2pascal(float(level)) * noise) for level in (40, 60, 80)),
    ):
        means = [
            instantaneous[len(instantaneous) // 4 : -len(instantaneous) // 4].mean().item()
            for instantaneous in (model(sound).instantaneous for model in (own, documents))
        ]
        yield Convention("front", "documents", what, means[1] / means[0], "times")


def found() -> dict[str, Any]:
    with torch.no_grad():
        return {
            "published": [vars(row) for row in published()],
            "conventions": [vars(row) for row in conventions()],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    arguments = parser.parse_args()
    environment.write(environment.describe("cpu") | found(), arguments.out)


if __name__ == "__main__":
    main()
