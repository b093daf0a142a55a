"""
Learn a cochlea with a classifier
=================================

A small network tells six kinds of sounds in noise apart: rising and falling chirps, harmonic complexes and bands of
noise, low and high. It hears them through a cochlea of eight filters that are twenty times as wide as those of an ear,
and let the noise in. Learnt together with the network, the filters become what the task needs.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import nn

import tamt

fs, length = 8000, 1600  # sounds of 0.2 s
kinds = "rising chirp", "falling chirp", "low complex", "high complex", "low noise band", "high noise band"

# %%
# Sounds
# ------
#
# All are 8 dB below the white noise that is added.


def make_sounds(count, random):
    """Sounds (count, length) and the numbers of their kinds (count,)."""
    n, t = count // len(kinds), torch.arange(length) / fs

    def between(low, high):
        return low + (high - low) * torch.rand(n, 1, generator=random)

    def chirp(start, end):
        return torch.sin(2 * math.pi * (start * t + (end - start) * t**2 / (2 * t[-1]) + between(0, 1)))

    def harmonics(f0):
        phase = torch.rand(n, 9, 1, generator=random)
        return torch.sin(2 * math.pi * (f0[:, None] * torch.arange(4, 13)[:, None] * t + phase)).sum(1)

    def noise_band(centre):
        spectrum = torch.fft.rfft(torch.randn(n, length, generator=random))
        inside = (torch.fft.rfftfreq(length, 1 / fs) - centre).abs() < 100
        return torch.fft.irfft(spectrum * inside, length)

    sounds = [
        chirp(between(700, 900), between(1600, 2000)),
        chirp(between(1600, 2000), between(700, 900)),
        harmonics(between(140, 160)),
        harmonics(between(210, 240)),
        noise_band(between(1000, 1100)),
        noise_band(between(1400, 1500)),
    ]
    sounds = torch.cat(sounds)
    sounds = sounds / sounds.square().mean(-1, keepdim=True).sqrt() * 10 ** (-8 / 20)
    return sounds + torch.randn(len(sounds), length, generator=random), torch.arange(len(kinds)).repeat_interleave(n)


# %%
# Training
# --------
#
# The cochlea is a layer like the others: :class:`tamt.Cochleagram` makes levels in dB of frames of 20 ms of what its
# filters give. Where these are learnt, their parameters are among those of the network, and have the same optimiser and
# learning rate.


def train(bank, seed=0, steps=100, batch=24):
    """Accuracy in every step, and accuracy for new sounds, of a network that hears through a bank."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    (sounds, labels), (new_sounds, new_labels) = make_sounds(720, random), make_sounds(600, random)
    network = nn.Sequential(
        tamt.Cochleagram(bank, hop_length=80, frame_length=160, compression="db"),
        nn.BatchNorm1d(bank.num_channels),
        nn.Conv1d(bank.num_channels, 16, 5),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(16, len(kinds)),
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    course = []
    for _ in range(steps):
        chosen = torch.randint(len(sounds), (batch,), generator=random)
        scores = network(sounds[chosen])
        optimiser.zero_grad()
        nn.functional.cross_entropy(scores, labels[chosen]).backward()
        optimiser.step()
        schedule.step()
        course.append((scores.argmax(1) == labels[chosen]).float().mean().item())
    network.eval()
    with torch.no_grad():
        accuracy = (network(new_sounds).argmax(1) == new_labels).float().mean().item()
    return torch.tensor(course), accuracy


# %%
# The same network behind each of three cochleae. The third has filters as wide as an ear's, which stay as they are.

ear = tamt.GammatoneFilterbank((300, 3000), fs, n_channels=8)
fc = ear.fc
wide = tamt.GammatoneFilterbank(fc, fs, betamul=20 * ear.betamul)
cochleae = {"too wide, learnt": wide.with_learnable("relative"), "too wide, frozen": wide, "as an ear, frozen": ear}

courses, accuracies = {}, {}
for name, cochlea in cochleae.items():
    courses[name], accuracies[name] = train(cochlea)
    print(f"{name}: {100 * accuracies[name]:.0f} % of new sounds right")
learnt = cochleae["too wide, learnt"]

# %%
# What was learnt
# ---------------
#
# Curves are coloured by the order of the filters, from low to high. At least half of them have moved to between 700 and
# 2000 Hz, shaded, where chirps and noise bands are, and as many are less than half as wide as before. Filters as wide
# as an ear's, spread from 300 to 3000 Hz, begin better and end worse: more of them are where the task has nothing.

hertz = torch.logspace(2, math.log10(fs / 2), 600)
fig = plt.figure(figsize=(10, 5.4), layout="constrained")
grid = fig.add_gridspec(2, 2, width_ratios=(3, 2))
colours = plt.colormaps["plasma"](torch.linspace(0, 0.85, len(fc)).numpy())
for row, (title, shown) in enumerate({"Before: twenty times too wide": wide, "Learnt": learnt}.items()):
    gain = shown.frequency_response(hertz).detach().abs()
    axes = fig.add_subplot(grid[row, 0])
    axes.set_prop_cycle(color=colours)
    axes.axvspan(700, 2000, color="0.93", linewidth=0)
    axes.plot(hertz, 20 * (gain / gain.amax(1, keepdim=True)).log10().T)
    axes.set(xscale="log", xlim=(100, fs / 2), ylim=(-20, 1), title=title, ylabel="Gain re maximum (dB)")
    axes.set_xticks([125, 250, 500, 1000, 2000, 4000], ["125", "250", "500", "1k", "2k", "4k"], minor=False)
    axes.grid(alpha=0.3)
axes.set_xlabel("Frequency (Hz)")

axes = fig.add_subplot(grid[:, 1])
for name, course in courses.items():
    smooth = course.unfold(0, 15, 1).mean(1)
    label = f"{name}: {100 * accuracies[name]:.0f} % of new sounds"
    axes.plot(torch.arange(len(smooth)) + 8, 100 * smooth, label=label)
axes.axhline(100 / len(kinds), color="0.6", linestyle=":")
axes.annotate("chance", (2, 100 / len(kinds)), (0, 3), textcoords="offset points")
axes.set(xlabel="Step", ylabel="Accuracy (%)", title="Sounds recognised", ylim=(0, 100), xlim=(0, len(course)))
axes.grid(alpha=0.3)
axes.legend(loc="lower right", fontsize=9)
fig.set_label(
    "Responses of eight filters before and after learning, and the accuracy of three networks while they train."
)
plt.show()

# %%
# Next: :doc:`/guide/training` is on the forms of parameters, optimisers and memory, :doc:`/coming_from/mel` on what
# changes where a mel spectrogram was.

# sphinx_gallery_start_ignore
# What the text above says. Measured: 0.94, 0.60 and 0.84.
assert accuracies["too wide, learnt"] > accuracies["too wide, frozen"] + 0.15
assert accuracies["too wide, learnt"] > accuracies["as an ear, frozen"]
assert accuracies["too wide, frozen"] > 1.5 / 6
assert ((learnt.design()["fc"] > 700) & (learnt.design()["fc"] < 2000)).sum() >= len(fc) / 2  # measured: 5 of 8
assert (learnt.design()["erb"] / wide.design()["erb"]).sort().values[3] < 0.5  # measured: 0.35
early = {name: course[:30].mean() for name, course in courses.items()}
assert early["as an ear, frozen"] > early["too wide, learnt"] + 0.1
# sphinx_gallery_end_ignore
