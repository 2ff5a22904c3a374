"""Surrogate derivatives of the threshold, as the literature has them.

Each function makes a :class:`Surrogate`. Voltages, and so slopes, are in the unit of the threshold.
"""

from __future__ import annotations

import math

from jaxsnn.ops._surrogate import Surrogate

__all__ = [
    "Surrogate",
    "arctan",
    "fast_sigmoid",
    "gaussian",
    "sigmoid",
    "superspike",
    "triangle",
]


def superspike(slope: float = 80.0) -> Surrogate:
    """``1 / (1 + slope |x|)^2``.

    Source:
        F. Zenke, S. Ganguli, "SuperSpike: Supervised learning in multilayer spiking neural
        networks", Neural Computation 30 (2018), doi:10.1162/neco_a_01086, where the derivative of
        the fast sigmoid takes the place of that of the threshold. Default of upstream jaxsnn.
    """
    return Surrogate("superspike", slope)


def fast_sigmoid(slope: float = 25.0) -> Surrogate:
    """``1 / (1 + slope |x|)^2``, the derivative of ``x / (1 + slope |x|)``.

    The same formula as `superspike` under the name, and with the slope, that snnTorch has for it.

    Source:
        F. Zenke, T. P. Vogels, "The remarkable robustness of surrogate gradient learning", Neural
        Computation 33 (2021), doi:10.1162/neco_a_01367.
    """
    return Surrogate("superspike", slope)


def sigmoid(slope: float = 4.0) -> Surrogate:
    """``slope s (1 - s)`` with ``s = 1 / (1 + exp(-slope x))``, the derivative of ``s``.

    Source:
        E. O. Neftci, H. Mostafa, F. Zenke, "Surrogate gradient learning in spiking neural
        networks", IEEE Signal Processing Magazine 36 (2019), doi:10.1109/MSP.2019.2931595.
    """
    return Surrogate("sigmoid", slope, slope)


def arctan(slope: float = 2.0) -> Surrogate:
    """``(slope / 2) / (1 + (pi slope x / 2)^2)``, the derivative of an arctangent of height 1.

    Source:
        W. Fang et al., "Incorporating learnable membrane time constant to enhance learning of
        spiking neural networks", ICCV 2021, arXiv:2007.05785, eq. 16.
    """
    return Surrogate("arctan", math.pi * slope / 2, slope / 2)


def triangle(dampening: float = 0.3, width: float = 1.0) -> Surrogate:
    """``dampening max(0, 1 - |x| / width)``.

    Source:
        G. Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking
        neurons", NeurIPS 2018, arXiv:1803.09574.
    """
    return Surrogate("triangle", 1 / width, dampening)


def gaussian(sigma: float = 0.5) -> Surrogate:
    """The density of a normal distribution around the threshold with standard deviation ``sigma``.

    Source:
        B. Yin, F. Corradi, S. M. Bohté, "Accurate and efficient time-domain classification with
        adaptive spiking recurrent neural networks", Nature Machine Intelligence 3 (2021),
        doi:10.1038/s42256-021-00397-w.
    """
    return Surrogate("gaussian", 1 / sigma, 1 / (sigma * math.sqrt(2 * math.pi)))
