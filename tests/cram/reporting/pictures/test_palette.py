from itertools import combinations

import numpy as np
import pytest

from cram.reporting.pictures.palette import DARK_SERIES, SERIES, VARIABLES, series_color

# Machado, Oliveira and Fernandes 2009, table 1: what a reader without one kind of cones sees, in linear sRGB.
VISION = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def linear(color: str) -> np.ndarray:
    values = np.array([int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(seen: np.ndarray) -> np.ndarray:
    """CIELAB of a colour in linear sRGB."""
    ratio = TO_XYZ @ seen.clip(0, 1) / WHITE
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(color: str, background: str) -> float:
    """Ratio of luminances as WCAG 2 defines it."""
    low, high = sorted(float(TO_XYZ[1] @ linear(one)) for one in (color, background))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colors", [SERIES, DARK_SERIES], ids=["light", "dark"])
def test_series_can_be_told_apart_whatever_the_colour_vision(colors: tuple[str, ...], vision: str) -> None:
    seen = [lab(VISION[vision] @ linear(color)) for color in colors]
    differences = {
        pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(range(len(colors)), 2)
    }
    closest = min(differences, key=lambda pair: differences[pair])
    assert differences[closest] >= 12, (closest, differences[closest])


def test_series_stand_out_from_their_background() -> None:
    assert min(contrast(color, "#ffffff") for color in SERIES) >= 2.2
    assert min(contrast(color, "#171b20") for color in DARK_SERIES) >= 3


def test_each_colour_has_a_variable_of_its_own() -> None:
    assert len(SERIES) == len(DARK_SERIES) == len(set(SERIES)) == len(set(DARK_SERIES))
    assert len(set(VARIABLES.values())) == len(VARIABLES) == len(SERIES) + 4
    assert series_color(len(SERIES) + 1) == SERIES[1]
