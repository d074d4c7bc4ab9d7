"""Published peak rates of GPUs in FLOP/s: dense matrix products in half precision with sums in fp32.

For data center and workstation cards this is the figure of NVIDIA's datasheet, halved where the datasheet assumes
sparsity. B200, B300 and GB200 follow the Blackwell Architecture Technical Brief, table 3; A10G the datasheet of AWS.

GeForce cards multiply at half their rate when they sum in fp32. NVIDIA publishes this rate for some of them
(whitepapers Turing, GA102 v2, Ada v2, RTX Blackwell), where it always equals CUDA cores x boost clock x a constant. It
is computed this way for all GeForce cards, with cores and clock from NVIDIA's page of the card.
"""

import re

TURING, AMPERE_AND_LATER = 8, 4  # FLOP per cycle and CUDA core of a GeForce card


def _geforce(cores: int, boost_mhz: int, per_core: int = AMPERE_AND_LATER) -> float:
    return cores * boost_mhz * 1e6 * per_core


PEAK_FLOPS = {
    "B300": 2250e12,
    "B200": 2250e12,
    "GB200": 2500e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H200 NVL": 835.5e12,
    "H100": 989e12,
    "H100 NVL": 835.5e12,
    "H100 PCIe": 756e12,
    "A100": 312e12,
    "A100 PCIe": 312e12,
    "A40": 149.7e12,
    "A30": 165e12,
    "A10": 125e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "V100": 125e12,
    "V100 PCIe": 112e12,
    "T4": 65e12,
    "RTX 6000 Ada": 364e12,
    "RTX A6000": 154.8e12,
    "RTX A5000": 111e12,
    "RTX A4000": 76.7e12,
    "RTX 5090": _geforce(21760, 2407),
    "RTX 5080": _geforce(10752, 2617),
    "RTX 5070 Ti": _geforce(8960, 2452),
    "RTX 5070": _geforce(6144, 2512),
    "RTX 5060 Ti": _geforce(4608, 2572),
    "RTX 5060": _geforce(3840, 2497),
    "RTX 4090": _geforce(16384, 2520),
    "RTX 4090 D": _geforce(14592, 2520),
    "RTX 4080 SUPER": _geforce(10240, 2550),
    "RTX 4080": _geforce(9728, 2505),
    "RTX 4070 Ti SUPER": _geforce(8448, 2610),
    "RTX 4070 Ti": _geforce(7680, 2610),
    "RTX 4070 SUPER": _geforce(7168, 2475),
    "RTX 4070": _geforce(5888, 2475),
    "RTX 4060 Ti": _geforce(4352, 2535),
    "RTX 4060": _geforce(3072, 2460),
    "RTX 3090 Ti": _geforce(10752, 1860),
    "RTX 3090": _geforce(10496, 1695),
    "RTX 3080 Ti": _geforce(10240, 1665),
    "RTX 3080": _geforce(8704, 1710),  # with 10 GB; the card with 12 GB has the same name and is 3% faster
    "RTX 3070 Ti": _geforce(6144, 1770),
    "RTX 3070": _geforce(5888, 1725),
    "RTX 3060 Ti": _geforce(4864, 1665),
    "RTX 3060": _geforce(3584, 1777),
    "RTX 2080 Ti": _geforce(4352, 1545, TURING),
    "RTX 2080": _geforce(2944, 1710, TURING),
    "RTX 2070": _geforce(2304, 1620, TURING),
}
# Words in a device's name that do not distinguish cards: manufacturer, memory, socket.
_IGNORED_WORD = re.compile(r"nvidia|geforce|tesla|generation|\d+gb?|hbm3e?|sxm\d", re.IGNORECASE)
_BY_NAME = {name.lower(): peak for name, peak in PEAK_FLOPS.items()}


def peak_of(name: str) -> float | None:
    """Return the peak rate of the card that the driver calls `name`; None if it is not in the table.

    All other words count: a Laptop GPU, a part of a card (MIG), or a variant with another suffix is another card.
    """
    words = [word for word in re.split(r"[\s-]+", name) if not _IGNORED_WORD.fullmatch(word)]
    return _BY_NAME.get(" ".join(words).lower())
