"""fairchem's SO(2) layers (``fairchem.core.models.uma.nn.so2_layers``, 2.x) on structops.so2: same names and state dicts.

``SO2_Convolution`` and its relatives are modules to build with or to load a checkpoint into; ``convert(model)`` replaces them in
a model of fairchem's; ``execution_backend()`` is the hook of 2.x for a whole model. The layers of 1.x and EquiformerV2 are in
``structops.compat.fairchem.v1``. Nothing here imports fairchem but ``execution_backend()``.
"""

from __future__ import annotations

from ._backend import execution_backend
from ._layers import CoefficientMapping, RadialMLP, SO2_Convolution, SO2_Linear, SO2_m_Conv, convert

__all__ = ["CoefficientMapping", "RadialMLP", "SO2_Convolution", "SO2_Linear", "SO2_m_Conv", "convert", "execution_backend"]
