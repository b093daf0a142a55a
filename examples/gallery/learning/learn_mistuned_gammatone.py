"""
Tune a cochlea by gradient descent
==================================

A gammatone filterbank with filters from a textbook finds those of another cochlea, whose centre frequencies and
bandwidths are off by 10 % and whose gains are off by up to 6 dB. All it is given is what the other cochlea makes of
noise. The optimiser is an ordinary one, AdamW with a learning rate of 0.01, and 150 steps are enough.
"""

import math

import matplotlib.pyplot as plt
import torch

import tamt

torch.manual_seed(0)
fs = 16000

# %%
# The cochlea to be found
# -----------------------
#
# With ``learnable='relative'`` the parameters of a bank are 0 by design, and say by how much its filters differ from
# that. A ``log_frequency`` of ``log(1.1)``, for one, is a frequency 10 % above the textbook's. Steps of one size then
# suit all parameters of all channels, which is what ordinary optimisers expect.

target = tamt.GammatoneFilterbank((200, 6000), fs, learnable="relative", n_channels=12)
fc = target.fc  # by design
with torch.no_grad():
    for parameter in target.log_frequency, target.log_bandwidth:
        parameter.copy_(torch.randn(len(fc)).sign() * math.log(1.1))
    target.log_gain.copy_((2 * torch.rand(len(fc)) - 1) * 3 / 20 * math.log(10))
goal = target.design()


# %%
# Learning
# --------
#
# Every channel counts by its relative error, the root of a ratio of mean squares, whose gradient does not fade while
# the channel gets better. Two errors are added. That of the output gives the last digits, the phase among them. On its
# own it may drive a filter away, as 10 % off its centre the phase of a filter has turned by 80 to 150 degrees. That of
# the envelope, which has no phase, leads every filter home.
#
# As gradients of this loss keep their size, the learning rate has to fall, here along a cosine. The weight decay of
# AdamW pulls towards the textbook's filters: by its default of 0.01 each step takes no more than a ten thousandth off
# the parameters, which the gradient makes up for.


def relative_error(y, goal):
    """Root mean square of the error over that of the goal, averaged over channels."""
    ratio = (y - goal).square().mean(-1) / goal.square().mean(-1)
    return (ratio + 1e-12).sqrt().mean()  # the root has no slope at 0


def worst_channel(bank):
    """Largest errors of any channel: of frequency and bandwidth in percent, of gain in dB."""
    now = bank.design()
    ratio = {name: (now[name] / goal[name]).log().abs().max().item() for name in ("fc", "bandwidth", "gain")}
    return 100 * math.expm1(ratio["fc"]), 100 * math.expm1(ratio["bandwidth"]), 20 / math.log(10) * ratio["gain"]


def learn(bank, steps=150):
    """Fit the bank to the target, and return the errors after every step."""
    optimiser = torch.optim.AdamW(bank.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    errors = [worst_channel(bank)]
    for _ in range(steps):
        noise = torch.randn(1024)
        with torch.no_grad():
            wanted = target.analytic(noise)
        z = bank.analytic(noise)  # its real part is the output, its magnitude the envelope
        loss = relative_error(z.real, wanted.real) + relative_error(z.abs(), wanted.abs())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        errors.append(worst_channel(bank))
    return errors


textbook = tamt.GammatoneFilterbank(fc, fs)
bank = textbook.with_learnable("relative")
errors = learn(bank)
for when, (frequency, bandwidth, gain) in ("before", errors[0]), ("after", errors[-1]):
    print(f"{when}: frequencies within {frequency:.4f} %, bandwidths {bandwidth:.4f} %, gains {gain:.4f} dB")

# %%
# With ``learnable=True`` the poles and gains themselves are the parameters. One step of 0.01 is then a small part of
# one gain and many times another, and the same recipe leads away from the goal: after 40 steps frequencies are off by
# more than they were at first.

direct = textbook.with_learnable(True)
errors_direct = learn(direct, 40)
print("learnable=True: frequencies within {:.0f} %, bandwidths {:.0f} %, gains {:.0f} dB".format(*errors_direct[-1]))

# %%
# What was learnt
# ---------------
#
# The wide grey lines are the filters to be found; those of the bank lie on them in the end.

hertz = torch.logspace(2, math.log10(8000), 600)


def level(bank):
    """Gains of all channels in dB."""
    return 20 * bank.frequency_response(hertz).detach().abs().log10().T


fig = plt.figure(figsize=(10, 5.4), layout="constrained")
grid = fig.add_gridspec(2, 2, width_ratios=(3, 2))
colours = plt.colormaps["plasma"](torch.linspace(0, 0.85, len(fc)).numpy())
for row, (title, shown) in enumerate({"Before: the textbook's filters": textbook, "After 150 steps": bank}.items()):
    axes = fig.add_subplot(grid[row, 0])
    axes.plot(hertz, level(target), color="0.82", linewidth=6)
    axes.set_prop_cycle(color=colours)
    axes.plot(hertz, level(shown), linewidth=1.4)
    axes.set(xscale="log", xlim=(100, 8000), ylim=(-25, 12), title=title, ylabel="Gain (dB)")
    axes.set_xticks([125, 250, 500, 1000, 2000, 4000, 8000], ["125", "250", "500", "1k", "2k", "4k", "8k"], minor=False)
    axes.grid(alpha=0.3)
axes.set_xlabel("Frequency (Hz)")

axes = fig.add_subplot(grid[:, 1])
for label, curve in zip(("frequency (%)", "bandwidth (%)", "gain (dB)"), zip(*errors, strict=True), strict=True):
    axes.semilogy(curve, label=label)
axes.semilogy([frequency for frequency, _, _ in errors_direct], "C0:", label="frequency (%), learnable=True")
axes.set(xlabel="Step", title="Error of the worst channel", xlim=(0, 150))
axes.grid(alpha=0.3)
axes.legend(loc="lower left")
fig.set_label("Responses of twelve filters before and after 150 steps over those to be found, and the errors falling.")
plt.show()

# %%
# Next: :doc:`/guide/training` says which form of the parameters goes with which optimiser.
# :doc:`/gallery/learning/recover_hearing_loss` does the same with a compressive cochlea.

# sphinx_gallery_start_ignore
# What the text above says.
assert abs(errors[0][0] - 10) < 0.01
assert abs(errors[0][1] - 10) < 0.01
assert 3 < errors[0][2] < 6
assert len(errors) == 151
frequency, bandwidth, gain = errors[-1]  # measured: 0.01 %, 1.3 %, 0.02 dB
assert frequency < 0.1
assert bandwidth < 5
assert gain < 0.2
assert (bank.design()["phase"] - goal["phase"]).abs().max() < 0.02
assert len(errors_direct) == 41
for factor in 1.1, 1 / 1.1:
    shifted = tamt.GammatoneFilterbank(factor * fc, fs).frequency_response(fc).diagonal()
    turn = torch.rad2deg((shifted / textbook.frequency_response(fc).diagonal()).angle().abs())
    assert turn.min() > 80  # measured: 87 to 148
    assert turn.max() < 150
assert errors_direct[-1][0] > 2 * errors_direct[0][0]
# sphinx_gallery_end_ignore
