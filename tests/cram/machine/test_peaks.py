import pytest

from cram.machine.peaks import PEAK_FLOPS, peak_of


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835.5e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("A100-PCIE-40GB", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", 65e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("Tesla V100-PCIE-32GB", 112e12),
        ("NVIDIA RTX A6000", 154.8e12),
        ("NVIDIA RTX 6000 Ada Generation", 364e12),
        ("GeForce RTX 3090", 71.2e12),
    ],
)
def test_cards_are_found_by_the_names_of_their_drivers(name: str, peak: float) -> None:
    assert peak_of(name) == pytest.approx(peak, rel=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        "Some Other GPU",
        "NVIDIA T400",
        "NVIDIA T4G",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA H100 64GB HBM2e",
        "Tesla V100S-PCIE-32GB",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3080 Ti Laptop GPU",
        "NVIDIA GeForce RTX 2080 SUPER",
        "NVIDIA GeForce RTX 2080 with Max-Q Design",
        "NVIDIA GeForce RTX 5090 D",
        "Quadro RTX 6000",
        "NVIDIA RTX 4000 SFF Ada Generation",
        "AMD Instinct MI300X",
        "",
    ],
)
def test_another_card_has_no_peak(name: str) -> None:
    assert peak_of(name) is None


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("RTX 2070", 29.9),
        ("RTX 2080", 40.3),
        ("RTX 2080 Ti", 53.8),
        ("RTX 3070", 40.6),
        ("RTX 3080", 59.5),
        ("RTX 3090", 71.0),
        ("RTX 3090 Ti", 80.0),
        ("RTX 4080", 97.5),
        ("RTX 4090", 165.2),
        ("RTX 5070", 61.7),
        ("RTX 5070 Ti", 87.9),
        ("RTX 5080", 112.6),
        ("RTX 5090", 209.5),
    ],
)
def test_what_is_computed_is_what_the_whitepapers_print_where_they_do(name: str, tera: float) -> None:
    assert PEAK_FLOPS[name] == pytest.approx(tera * 1e12, rel=3e-3)


def test_no_two_cards_with_a_suffix_share_a_peak_by_mistake() -> None:
    for name in ("RTX 3060", "RTX 3070", "RTX 3080", "RTX 3090", "RTX 4060", "RTX 4070", "RTX 5060", "RTX 5070"):
        plain, ti = peak_of(f"NVIDIA GeForce {name}"), peak_of(f"NVIDIA GeForce {name} Ti")
        assert plain is not None and ti is not None and plain < ti
    assert peak_of("NVIDIA GeForce RTX 4070 SUPER") != peak_of("NVIDIA GeForce RTX 4070 Ti SUPER")
