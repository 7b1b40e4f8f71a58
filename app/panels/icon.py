"""The page's icon: five layers, darker with depth."""

from __future__ import annotations

import numpy as np
from PIL import Image

_VIRIDIS = ("#fde725", "#5ec962", "#21918c", "#3b528b", "#440154")


def icon() -> Image.Image:
    """A square image, 40 by 40."""
    layers = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in _VIRIDIS]
    rows = np.repeat(np.array(layers, dtype=np.uint8), 8, axis=0)
    return Image.fromarray(np.repeat(rows[:, None, :], 40, axis=1))
