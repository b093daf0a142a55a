"""
Find out what an ear has lost
=============================

A DRNL filterbank with normal hearing learns the hearing loss of an ear from what the ear makes of noise at four levels:
how much less single channels amplify soft sounds, where their compression begins, and how far their tuning has shifted.
"""

import math

import matplotlib.pyplot as plt
import torch

import tamt

torch.manual_seed(0)
fs = 16000
fc = [1000.0, 2000.0, 3000.0, 4000.0]
normal = tamt.DRNLFilterbank(fc, fs)

# %%
# The ear
# -------
#
# The nonlinear path of a channel multiplies soft sounds by ``a`` and compresses others to ``b |v|^c``, both tuned to
# ``CF_nlin``. Of the four channels the first is healthy, the second tuned 5 % too high and compresses later, the third
# amplifies soft sounds by 10 dB less, and the fourth, by 20 dB less, has lost 6 dB of ``b`` and is tuned 5 % too low.
# The parameters of a bank with ``learnable='relative'`` are logarithms of such changes.

db = math.log(10) / 20
ear = normal.with_learnable("relative")
with torch.no_grad():
    ear.log_a.copy_(torch.tensor([0, 0, -10 * db, -20 * db]))
    ear.log_b.copy_(torch.tensor([0, 3 * db, 0, -6 * db]))
    ear.log_CF_nlin.copy_(torch.tensor([1, 1.05, 1, 0.95]).log())
goal = ear.design()


# %%
# Learning
# --------
#
# Soft sounds tell about ``a``, those above the knee of the compression about ``b``: noise is heard at levels from 20 to
# 80 dB SPL. As outputs for soft sounds are hundreds of times smaller than others, each level and channel counts by its
# relative error. A loss of 20 dB, a logarithm of 2.3, is a long way, and a shift of 5 % a short one: the two have
# learning rates of their own, which fall to 0.

sound_levels = torch.tensor([[20.0], [40.0], [60.0], [80.0]])  # dB SPL


def worst_channel(bank):
    """Largest relative error of any channel in percent: of a, of b and of CF_nlin."""
    now = bank.design()
    return [100 * (now[name] / goal[name] - 1).abs().max().item() for name in ("a", "b", "CF_nlin")]


def learn(bank, steps=120):
    """Fit the bank to the ear, and return the errors after every step."""
    groups = [{"params": [bank.log_a, bank.log_b], "lr": 1e-1}, {"params": [bank.log_CF_nlin], "lr": 1e-2}]
    optimiser = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    errors = [worst_channel(bank)]
    for _ in range(steps):
        pressure = tamt.spl.spl2pascal(sound_levels) * torch.randn(len(sound_levels), 512)
        velocity = tamt.spl.STAPES_GAIN * pressure
        with torch.no_grad():
            wanted = ear(velocity)
        error = (bank(velocity) - wanted).square().mean(-1) / wanted.square().mean(-1)
        optimiser.zero_grad()
        (error + 1e-12).sqrt().mean().backward()  # the root has no slope at 0, where the healthy channel begins
        optimiser.step()
        schedule.step()
        errors.append(worst_channel(bank))
    return errors


bank = normal.with_learnable("relative")
errors = learn(bank)
for when, worst in ("before", errors[0]), ("after", errors[-1]):
    print("{}: a within {:.3f} %, b {:.3f} %, CF_nlin {:.4f} %".format(when, *worst))
for name, changes in (("log_a", bank.log_a), ("log_b", bank.log_b)):
    print(name, "in dB:", [round(change / db, 2) for change in changes.tolist()])

# %%
# What was learnt
# ---------------
#
# Input and output levels of tones at the channels' frequencies. The learnt curves lie on those of the ear.

levels = torch.arange(0.0, 101.0, 4)  # dB SPL
curves = {
    "the ear": (ear, {"color": "0.82", "linewidth": 7}),
    "normal hearing": (normal, {"color": "C0", "linestyle": "--"}),
    "learnt": (bank, {"color": "C3"}),
}
output = {name: shown.io_function(levels + tamt.spl.STAPES_LEVEL).detach() for name, (shown, _) in curves.items()}

fig = plt.figure(figsize=(10, 5.8), layout="constrained")
grid = fig.add_gridspec(2, 3, width_ratios=(1, 1, 1.2))
losses = "healthy", "5 % too high, b +3 dB", "a -10 dB", "a -20 dB, b -6 dB, 5 % too low"
for channel, loss in enumerate(losses):
    row, column = divmod(channel, 2)
    axes = fig.add_subplot(grid[row, column])
    for name, (_, style) in curves.items():
        axes.plot(levels, output[name][channel], label=name, **style)
    axes.set_title(f"{fc[channel] / 1000:g} kHz: {loss}", fontsize=9)
    axes.set(xlim=(0, 100), ylim=(-110, -15))
    axes.grid(alpha=0.3)
    if row:
        axes.set_xlabel("Input (dB SPL)")
    if not column:
        axes.set_ylabel("Output (dB re 1 m/s)")
    if not channel:
        axes.legend(loc="lower right")

axes = fig.add_subplot(grid[:, 2])
for label, curve in zip(("a", "b", "CF_nlin"), zip(*errors, strict=True), strict=True):
    axes.semilogy(curve, label=label)
axes.set(xlabel="Step", ylabel="Error (%)", title="Error of the worst channel", xlim=(0, 120))
axes.grid(alpha=0.3)
axes.legend(loc="lower left")
fig.set_label(
    "Input and output of four channels: the learnt curves lie on those of the ear. Beside them the errors falling."
)
plt.show()

# %%
# Next: :doc:`/gallery/filters/normal_and_impaired` shows what such losses take from speech; :doc:`/guide/training` is
# on the forms of the parameters, :doc:`/guide/levels` on dB SPL and the velocity of the stapes.

# sphinx_gallery_start_ignore
# What the text above says.
assert errors[0][0] > 500
assert errors[0][1] > 50
assert errors[0][2] > 4
a, b, centre = errors[-1]  # measured: 0.05 %, 0.5 %, 0.001 %
assert a < 1
assert b < 5
assert centre < 0.1
assert max(abs(change / db - dB) for change, dB in zip(bank.log_a.tolist(), (0, 0, -10, -20), strict=True)) < 0.1
assert (output["normal hearing"] - output["the ear"]).abs().max() > 15
assert (output["learnt"] - output["the ear"]).abs().max() < 0.5
# sphinx_gallery_end_ignore
