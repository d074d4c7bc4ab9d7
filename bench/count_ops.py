"""Counts what a provider does for one direction of a case: its launches, and what torch computes beside them."""

from dataclasses import asdict, dataclass
from typing import Any

from bench import count_inductor
from bench.bounds import GPUS, LAUNCH_SECONDS, Bounds, compute_bounds
from bench.count_cases import calls_of_ours, record_torch
from bench.count_peers import find_call
from bench.kernel_build import compile_kernel, specialise
from bench.kernel_cases import KernelCase
from bench.kernel_count import CompiledLaunch, KernelCount, count_launch
from bench.peer_launches import JitLaunch, compile_launch, record_jit
from cram_kernels._launch import Launch, record_launches
from cram_kernels._settings import Target


@dataclass(frozen=True)
class BoundLaunch:
    """A counted launch with its bounds."""

    count: KernelCount
    bounds: Bounds


@dataclass(frozen=True)
class OpCount:
    """What a provider does for one direction of a case.

    Attributes:
        provider: who made the kernels.
        launches: of its kernels.
        torch_calls: torch's own computations beside them, with their bytes.
        arch: the compute capability.
    """

    provider: str
    launches: tuple[BoundLaunch, ...]
    torch_calls: tuple[tuple[str, int], ...]
    arch: int

    @property
    def model(self) -> float:
        """Return the seconds of the model for everything that is launched."""
        others = sum(LAUNCH_SECONDS + size / GPUS[self.arch].copy for _, size in self.torch_calls)
        return others + sum(launch.bounds.model for launch in self.launches)

    def as_plain(self) -> dict[str, Any]:
        """Return plain values, for a file."""
        launches = [asdict(launch.count) | {"bounds": asdict(launch.bounds)} for launch in self.launches]
        return {
            "provider": self.provider,
            "arch": self.arch,
            "model": self.model,
            "launches": launches,
            "torch_calls": [list(call) for call in self.torch_calls],
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any], provider: str) -> "OpCount":
        """Return what `as_plain` gave, under another name."""
        launches = []
        for values in plain["launches"]:
            bounds = Bounds(**values["bounds"])
            launches.append(
                BoundLaunch(KernelCount(**{name: value for name, value in values.items() if name != "bounds"}), bounds)
            )
        return cls(provider, tuple(launches), tuple(map(tuple, plain["torch_calls"])), plain["arch"])


def bound_launch(launch: CompiledLaunch, arch: int) -> BoundLaunch:
    """Count a launch and compute its bounds."""
    gpu, count = GPUS[arch], count_launch(launch, arch)
    waves = count.programs / (count.resident * gpu.multiprocessors)
    bounds = compute_bounds(gpu, count.first_bytes, count.instructions, count.special, count.cycles, waves)
    return BoundLaunch(count, bounds)


def count_ours(case: KernelCase, direction: str, arch: int) -> OpCount | None:
    """Count our launches; None where there are none in this direction."""
    call = calls_of_ours(case).get(direction)
    if call is None:
        return None
    with record_launches(Target(arch, GPUS[arch].multiprocessors)) as launches, record_torch() as torch_ops:
        call()
    bound = tuple(bound_launch(compile_ours(launch, arch), arch) for launch in launches)
    return OpCount("ours", bound, tuple(torch_ops.calls), arch)


def compile_ours(launch: Launch, arch: int) -> CompiledLaunch:
    """Compile a recorded launch of ours."""
    source = specialise(launch)
    code = compile_kernel(source, arch)
    values = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False))
    arguments = tuple((kind, values[name]) for name, kind in source.signature if kind != "constexpr")
    grid = (launch.programs, 1, 1)
    return CompiledLaunch(source.kernel, code.cubin, code.shared, source.warps, grid, arguments)


def count_peer(peer: str, case: KernelCase, direction: str, arch: int) -> OpCount | None:
    """Count the launches of a peer; None where it has none for this direction of the case."""
    with record_jit(arch) as recorded:
        if peer == "inductor":
            call = count_inductor.find_call(case, direction, arch, recorded)
        else:
            call = find_call(peer, case, direction)
        if call is None:
            return None
        with record_torch() as torch_ops:
            call()
    # What torch computes in front of the chunks of linear_cross_entropy is not repeated for each chunk.
    torch_calls = () if case.op == "linear_cross_entropy" else tuple(torch_ops.calls)
    return OpCount(peer, tuple(_choose(launches, arch) for launches in recorded), torch_calls, arch)


def _choose(alternatives: list[JitLaunch], arch: int) -> BoundLaunch:
    """Return the fastest of an autotuner's alternatives, by the model."""
    bound = [bound_launch(compile_launch(launch, arch), arch) for launch in alternatives]
    return min(bound, key=lambda launch: launch.bounds.model)
