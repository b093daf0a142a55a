"""Loudness level: the level of the tone of 1 kHz that is as loud."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tamt._base import DESIGN
from tamt.scales import FloatOrTensor, _operand

# Loudness in sone of a steady tone of 1 kHz at 0, 0.5 ... 120 dB SPL, heard with both ears in a free field: the
# models' own, in float64. tests/test_loudness.py computes them again.
# fmt: off
GROWTH = {
    "moore2016": (
        0.000534679322, 0.000690130511, 0.000887735238, 0.00113773644, 0.00145243472, 0.00184645851, 0.00233947168,
        0.00294727918, 0.00369491335, 0.00460866349, 0.00571807597, 0.00705594265, 0.00865819232, 0.0103514834,
        0.0120803163, 0.0137771522, 0.0157149675, 0.0179237563, 0.0202512146, 0.0225319848, 0.0250606163,
        0.0278622149, 0.0309722713, 0.034404322, 0.0381039206, 0.0417320934, 0.0456588325, 0.0499062947, 0.0544978855,
        0.0594593072, 0.064817131, 0.070516239, 0.0764039804, 0.0824886996, 0.0889615046, 0.0958341425, 0.103135948,
        0.110891055, 0.119128227, 0.127686511, 0.136601832, 0.145790026, 0.155449205, 0.165594517, 0.176261917,
        0.187469151, 0.199252534, 0.211496472, 0.224051927, 0.237058276, 0.250633623, 0.264810997, 0.279612719,
        0.295075666, 0.311238021, 0.327962087, 0.345020169, 0.362749536, 0.381185538, 0.400366004, 0.420327733,
        0.441033994, 0.462332554, 0.484452161, 0.507435092, 0.531079835, 0.555607908, 0.580920877, 0.606995332,
        0.634007598, 0.66200293, 0.691028304, 0.721136968, 0.752100898, 0.783979721, 0.81685631, 0.850880147,
        0.886102778, 0.922418619, 0.959812016, 0.998481719, 1.03848751, 1.07989468, 1.12257346, 1.16634721,
        1.21153793, 1.2582425, 1.30653306, 1.35616476, 1.40738174, 1.4603021, 1.51500741, 1.57139314, 1.62948213,
        1.68926176, 1.75099829, 1.81461973, 1.88011868, 1.94775033, 2.01761583, 2.08957448, 2.16374108, 2.24034428,
        2.31945815, 2.40059921, 2.48435465, 2.57084846, 2.65992622, 2.7517653, 2.84661251, 2.94440449, 3.04519545,
        3.1493106, 3.25661131, 3.36706069, 3.4811416, 3.59863754, 3.71992268, 3.84511396, 3.97414524, 4.10746592,
        4.24485673, 4.38678051, 4.53295594, 4.6838153, 4.8395188, 5.00019232, 5.16607829, 5.33729632, 5.51408173,
        5.69664033, 5.88491565, 6.07938349, 6.28002633, 6.48737031, 6.70150225, 6.92266756, 7.15124523, 7.38740529,
        7.63126138, 7.88323423, 8.14369372, 8.4129169, 8.69121611, 8.97902044, 9.27669574, 9.58463047, 9.90313769,
        10.2325696, 10.5735096, 10.9264416, 11.2918801, 11.6703447, 12.0623553, 12.4686005, 12.8896958, 13.3260174,
        13.7785465, 14.2480475, 14.7352812, 15.2412008, 15.766756, 16.3129721, 16.8809306, 17.4718161, 18.0867252,
        18.7270896, 19.3942121, 20.0891641, 20.8126916, 21.5649744, 22.3459876, 23.1586615, 24.0043534, 24.8838661,
        25.7984375, 26.7491105, 27.736959, 28.7631138, 29.8287818, 30.9352604, 32.0839456, 33.2763369, 34.5139513,
        35.7983971, 37.1316214, 38.5155415, 39.9521818, 41.4436747, 42.9922626, 44.6003, 46.270257, 48.0047221,
        49.8063065, 51.6777677, 53.622197, 55.6426966, 57.7425127, 59.9250407, 62.1938329, 64.5526044, 67.0052413,
        69.5558075, 72.2085223, 74.9670389, 77.835049, 80.8184692, 83.922387, 87.1514851, 90.5121744, 94.0100062,
        97.650989, 101.44108, 105.386893, 109.495896, 113.774942, 118.231603, 122.873794, 127.709322, 132.746909,
        137.995979, 143.465805, 149.166141, 155.107181, 161.299277, 167.753247, 174.481135, 181.49516, 188.807971,
        196.432624, 204.382783, 212.67295, 221.3169, 230.330816, 239.730662, 249.533072, 259.755385, 270.414971,
        281.530285, 293.12042, 305.203963,
    ),
    "glasberg2002": (
        0.000520322613, 0.000671976346, 0.00086490235, 0.00110918398, 0.00141694852, 0.00180264123, 0.00228568155,
        0.00288179094, 0.00361578316, 0.00451379777, 0.00560526572, 0.0069229093, 0.00850264468, 0.0102220067,
        0.012002092, 0.013712225, 0.0156371019, 0.0178314002, 0.0201937643, 0.0225140728, 0.0250356712, 0.0278290142,
        0.030929405, 0.0343506212, 0.0381258769, 0.0417590756, 0.0456833649, 0.0499274147, 0.0545145526, 0.0594704166,
        0.0648215626, 0.0705609399, 0.0764933636, 0.082580313, 0.0890545242, 0.0959277722, 0.103229227, 0.110982995,
        0.119217798, 0.127823079, 0.136787704, 0.145983019, 0.155648577, 0.165799537, 0.176471625, 0.187682664,
        0.199468871, 0.211764167, 0.224376717, 0.237395868, 0.250983368, 0.265172063, 0.279984281, 0.295456813,
        0.311627806, 0.328409701, 0.345533378, 0.363281829, 0.38173629, 0.400934444, 0.420913053, 0.441683307,
        0.463004313, 0.485145795, 0.508149922, 0.53186665, 0.55642038, 0.581808085, 0.607914424, 0.634958183,
        0.662984472, 0.692040211, 0.722178603, 0.753223948, 0.78518822, 0.818106439, 0.852171574, 0.887435137,
        0.923841351, 0.961282637, 1.0, 1.04005311, 1.0815072, 1.1242831, 1.16816206, 1.21341273, 1.26017718,
        1.30852746, 1.35827174, 1.40955638, 1.46254437, 1.51731717, 1.57382066, 1.63198534, 1.69189228, 1.75371055,
        1.81746402, 1.88305368, 1.95077638, 2.02073312, 2.0928348, 2.16710191, 2.24380601, 2.32306639, 2.40437157,
        2.48824398, 2.57485534, 2.66410354, 2.75607056, 2.85104631, 2.94901818, 3.04994827, 3.15420321, 3.26174337,
        3.37234935, 3.48658782, 3.60429672, 3.72575122, 3.85116191, 3.9803745, 4.11387755, 4.25150702, 4.3936256,
        4.54010137, 4.69117422, 4.84714392, 5.00804442, 5.17420989, 5.34566865, 5.52274827, 5.70556172, 5.89419793,
        6.08894098, 6.28991791, 6.49760201, 6.7120376, 6.9335633, 7.16250929, 7.39900226, 7.6432989, 7.89567816,
        8.15655481, 8.4261613, 8.7049034, 8.99316277, 9.29130595, 9.59972201, 9.91877301, 10.2487207, 10.5901917,
        10.9436704, 11.3096717, 11.688744, 12.0813709, 12.4882315, 12.9100067, 13.3470338, 13.800288, 14.2704881,
        14.7584893, 15.2651976, 15.7915634, 16.3386318, 16.9074755, 17.4993289, 18.1151819, 18.7565693, 19.4247291,
        20.1208207, 20.8456104, 21.5992659, 22.381657, 23.1956386, 24.042686, 24.9236089, 25.839649, 26.7918496,
        27.7812867, 28.8090929, 29.8764773, 30.9847394, 32.1352778, 33.3295944, 34.5691773, 35.8556884, 37.191057,
        38.5772037, 40.0161561, 41.5100501, 43.0611319, 44.6717599, 46.3444081, 48.0816694, 49.886131, 51.7606,
        53.7081542, 55.7319009, 57.8350914, 60.0211268, 62.2935649, 64.6561271, 67.1127055, 69.6673708, 72.3243369,
        75.1656637, 78.3027544, 81.6495379, 85.2156943, 89.0712588, 93.1476789, 97.4779824, 102.094299, 107.045145,
        112.351164, 117.967338, 123.945606, 130.326922, 137.135599, 144.443761, 152.272759, 160.620194, 169.534776,
        179.066036, 189.267238, 200.23235, 212.037098, 224.705895, 238.312686, 252.937955, 268.689673, 285.668035,
        303.976163, 323.850529, 345.3656, 368.697753, 394.040494, 421.603453, 451.673468, 484.565038, 520.624776,
        560.374546,
    ),
}
# fmt: on
PER_PHON = 2
CURVES = {model: torch.tensor(loud, dtype=torch.float64, device=DESIGN).log() for model, loud in GROWTH.items()}


def sone2phon(sone: FloatOrTensor, model: str = "moore2016") -> FloatOrTensor:
    """Convert loudness to loudness level, the level of the tone of 1 kHz that is as loud.

    Parameters
    ----------
    sone : Tensor or float
        Loudness of both ears together in sone, of any shape, at least 0.
    model : {'moore2016', 'glasberg2002'}
        The model that the loudness is of.

    Returns
    -------
    Tensor or float
        Loudness level in phon: for a tensor one of the same shape, dtype and device (an integer tensor is computed in
        the default dtype), for a number a float. 0 for what is fainter than the tone at 0 dB SPL, as silence is; above
        120 phon the curve of the logarithm of loudness goes on straight. NaN for a negative entry of a tensor.

    Raises
    ------
    ValueError
        Another model, a number that is negative or not finite.

    Notes
    -----
    The curve is the model's own growth of a steady tone heard with both ears in a free field, at 0, 0.5 ... 120 dB SPL.
    For Moore et al. (2016) it is within 0.02 phon of AMT's ``sone2phon``.

    Examples
    --------
    >>> from tamt import sone2phon
    >>> round(sone2phon(1.0), 1), sone2phon(0.0)
    (40.0, 0.0)
    """
    return _converted("sone", sone, model, _level)


def phon2sone(phon: FloatOrTensor, model: str = "moore2016") -> FloatOrTensor:
    """Convert loudness level to loudness; the inverse of :func:`sone2phon`.

    Parameters
    ----------
    phon : Tensor or float
        Loudness level in phon, of any shape, at least 0.
    model : {'moore2016', 'glasberg2002'}
        The model that the loudness is to be of.

    Returns
    -------
    Tensor or float
        Loudness in sone, in the form of the input; see :func:`sone2phon`. 0.0005 for 0 phon. NaN for a negative entry
        of a tensor.

    Raises
    ------
    ValueError
        Another model, a number that is negative or not finite.

    Examples
    --------
    >>> from tamt import phon2sone
    >>> round(phon2sone(40.0), 2), round(phon2sone(50.0), 1)
    (1.0, 2.1)
    """
    return _converted("phon", phon, model, _loudness)


def _level(sone: Tensor, curve: Tensor) -> Tensor:
    """In phon, of loudness that is not negative."""
    faintest = curve[0].exp()
    loud = sone.clamp_min(faintest).log()
    place = torch.searchsorted(curve[1:-1], loud.detach().contiguous(), right=True)
    phon = (place + (loud - curve[place]) / (curve[place + 1] - curve[place])) / PER_PHON
    return torch.where(sone <= faintest, 0.0, phon)


def _loudness(phon: Tensor, curve: Tensor) -> Tensor:
    """In sone, of a level that is not negative."""
    place = (PER_PHON * phon.detach()).nan_to_num(0.0).clamp(0, len(curve) - 2).long()
    return (curve[place] + (PER_PHON * phon - place) * (curve[place + 1] - curve[place])).exp()


def _converted(
    unit: str, value: FloatOrTensor, model: str, convert: Callable[[Tensor, Tensor], Tensor]
) -> FloatOrTensor:
    """What ``convert`` makes of numbers and a model's curve, in float32 or float64; NaN of negative ones."""
    value = _operand(unit, value, unit)
    if not isinstance(value, Tensor):
        return float(_converted(unit, torch.tensor(value, dtype=torch.float64, device=DESIGN), model, convert))
    wide = value.to(torch.promote_types(value.dtype, torch.float32))
    return torch.where(wide >= 0, convert(wide, _curve(model).to(wide)), math.nan).to(value.dtype)


def _curve(model: str) -> Tensor:
    """Natural logarithms of the loudness in sone at 0, 0.5 ... 120 phon, in float64 on the CPU."""
    if model not in CURVES:
        raise ValueError(f"model must be one of {', '.join(map(repr, CURVES))}, got {model!r}")
    return CURVES[model]
