"""An update rule over several ranks: each rank updates its own pieces of the weights, and keeps the state of those."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from cram.config.optimizer import OptimizerConfig
from cram.distributed.ranks import Ranks
from cram.files.tensors import check_tensors
from cram.machine.device import is_readable
from cram.optim.buckets import make_buckets, rows_of
from cram.optim.ema_nesterov import EmaNesterov
from cram.optim.exchange import Exchange
from cram.optim.groups import ParameterGroup, parameter_groups
from cram.optim.optimizer import Optimizer
from cram.optim.pieces import Piece, Weight, share_out

Rule = Optimizer | EmaNesterov


class ShardedOptimizer:
    """Lets the ranks update a model together, of which each has all weights and gradients of its own rows.

    In an update, the gradients of all ranks are added up so that each rank has the sums of its own pieces
    (`overlap`, `collect`), the rule updates these pieces, and all ranks get all weights (`step`). The rule is given the
    pieces as its parameters, and does not know that there are others. Every method is called by all ranks at the same
    time, except `lr`, `values`, `scheduled`, `owned` and `gradients`.

    Source: arXiv:1910.02054, stages 1 and 2 (state and summed gradients are partitioned); changed: gradients of several
    micro-batches are added up on each rank first, so that they are exchanged once an update.

    Args:
        model: whose weights are equal on all ranks.
        config: the keys `optimizer.*`.
        make: makes the rule for parameter groups.
        ranks: all ranks of the run.

    Attributes:
        kind: that of the rule, as are the attributes that follow.
        curvature_interval: updates between two estimates of the curvature, or None.
        curvature_rows: rows of an estimate, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        make: Callable[[list[ParameterGroup]], Rule],
        ranks: Ranks,
    ) -> None:
        self._config, self._make, self._ranks = config, make, ranks
        self.rule = make(self._take(model))
        self.kind = self.rule.kind
        self.curvature_interval, self.curvature_rows = self.rule.curvature_interval, self.rule.curvature_rows

    def _take(self, model: nn.Module) -> list[ParameterGroup]:
        """Share out the parameters of a model, and return the groups of this rank's pieces; some may be empty."""
        groups = parameter_groups(model, self._config)
        whole = self._make(groups)  # as one rank would have it; only asked about the parameters
        self._expected = whole.expected_state()
        self._parameters = dict(model.named_parameters())
        matrices = {
            name: splits or (len(parameter),)
            for group in groups
            if group.name == "matrices" and whole.whole_matrices
            for (name, parameter), splits in zip(group.named(), group.splits, strict=True)
        }
        weights = [
            Weight(name, tuple(parameter.shape), matrices.get(name, ())) for name, parameter in self._parameters.items()
        ]
        buckets = make_buckets(share_out(weights, self._ranks.size), dict(self._parameters), self._ranks.size)
        self._exchange = Exchange(buckets, self._parameters, self._ranks)
        slots = sorted((slot for bucket in buckets for slot in bucket.slots), key=lambda slot: slot.piece.begin)
        self._pieces: dict[str, list[Piece]] = {name: [] for name in self._parameters}
        for slot in slots:
            self._pieces[slot.piece.weight.name].append(slot.piece)
        self._slots = {slot.piece: slot for slot in slots if slot.piece.owner == self._ranks.rank}
        self._own = {piece: nn.Parameter(slot.weight) for piece, slot in self._slots.items()}
        self._updated: set[str] = set()
        return [self._own_group(group) for group in groups]

    def _own_group(self, group: ParameterGroup) -> ParameterGroup:
        names = set(group.names)
        own = {piece: parameter for piece, parameter in self._own.items() if piece.weight.name in names}
        return ParameterGroup(
            group.name,
            group.peak_lr,
            group.weight_decay,
            [piece.name for piece in own],
            list(own.values()),
            [() for _ in own],
        )

    def overlap(self) -> AbstractContextManager[None]:
        """Give the context of the last backward pass of an update, in which gradients that are there are exchanged.

        `collect` does what is left, so that a rank that has no rows for a backward pass need not enter.
        """
        return self._exchange.overlap()

    def collect(self, failed: bool = False) -> bool:
        """Finish the exchange of the gradients, and give each own piece the sum of its gradients over all ranks.

        A parameter without a gradient on any rank leaves its pieces without one, as on one rank. The gradients of the
        parameters themselves are freed.

        Args:
            failed: whether this rank could not compute its gradients.

        Returns:
            Whether any rank has failed. Then all gradients are thrown away, and the update can begin again.
        """
        any_failed, self._updated = self._exchange.collect(failed)
        for piece, slot in self._slots.items():
            given = piece.weight.name in self._updated and not any_failed
            self._own[piece].grad = slot.values if given else None
        return any_failed

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """The gradients of this rank's pieces; all ranks together have each element once."""
        return [parameter.grad for parameter in self._own.values() if parameter.grad is not None]

    def owned(self, model: nn.Module) -> list[nn.Parameter]:
        """This rank's pieces."""
        return list(self._own.values())

    def step(
        self, multiplier: float, progress: float, finite: Tensor | None = None, others: float | None = None
    ) -> None:
        """Update this rank's pieces by the rule, and get those of the other ranks; see `Optimizer.step`.

        Args:
            finite: equal on all ranks.
        """
        self.rule.step(multiplier, progress, finite, others)
        self._free_gradients()
        if finite is None or not is_readable(finite) or finite:
            self._exchange.share_weights(set(self._parameters) if self.rule.moves_all else self._updated)

    def _free_gradients(self) -> None:
        for parameter in self._own.values():
            parameter.grad = None

    def take_curvature(self, predicted: int, finite: Tensor) -> None:
        """Take the collected gradients as an estimate of the curvature; see `Optimizer.take_curvature`."""
        self.rule.take_curvature(predicted, finite)
        self._free_gradients()

    def lr(self) -> dict[str, float]:
        """Learning rate of each group at the latest update."""
        return self.rule.lr()

    def values(self, progress: float) -> dict[str, str]:
        """Describe what the rule changes over the run, at some progress."""
        return self.rule.values(progress)

    def scheduled(self, progress: float) -> dict[str, float]:
        """Numbers that the rule changes over the run, at some progress."""
        return self.rule.scheduled(progress)

    def regroup(self, model: nn.Module, inherited: Mapping[str, str]) -> None:
        """Take a model that has changed its shape; see `Optimizer.regroup`."""
        heirs: dict[str, list[str]] = {}
        for name, source in inherited.items():
            heirs.setdefault(source, []).append(name)
        begun, old = self._has_begun(), self.rule.state_tensors()
        pieces = self._state_pieces()
        self.rule.load_state_tensors({})
        self.rule.set_groups(self._take(model))
        if not begun or heirs.keys().isdisjoint(piece.weight.name for _, _, piece in pieces):
            return
        self.rule.fill_state()
        new = self.rule.state_tensors()
        for entry, meta, piece in pieces:
            if piece.weight.name in heirs:
                value = self._send(old, entry, meta, piece)
                for heir in (heir for name in heirs[piece.weight.name] for heir in self._pieces[name]):
                    _copy_shared_rows(new.get(f"{heir.name}/{entry}"), heir, value, piece)

    def state_tensors(self) -> dict[str, Tensor]:
        """The state of all ranks as one rank would have it, on the host of rank 0; empty on the other ranks."""
        if not self._has_begun():
            return {}
        own = self.rule.state_tensors()
        full: dict[str, Tensor] = {}
        for entry, meta, piece in self._state_pieces():
            value = self._send(own, entry, meta, piece)
            if self._ranks.leads:
                name = f"{piece.weight.name}/{entry}"
                if name not in full:
                    full[name] = torch.empty(meta.shape, dtype=meta.dtype)
                rows_of(full[name], piece.begin, piece.end).copy_(value)
        return full

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Replace the state by what `state_tensors` gave; each rank is given all of it, and keeps copies of its rows.

        Raises:
            CramError: naming the first tensor that is missing, not expected, or of another shape or dtype.
        """
        if tensors:
            check_tensors(tensors, self._expected)
        own = {}
        for name, tensor in tensors.items():
            parameter, _, entry = name.rpartition("/")
            for piece in self._pieces[parameter]:
                if piece in self._own:
                    own[f"{piece.name}/{entry}"] = rows_of(tensor, piece.begin, piece.end).clone()
        self.rule.load_state_tensors(own)

    def held_bytes(self) -> int:
        """Count the bytes of the state of this rank's pieces."""
        return self.rule.held_bytes()

    def _has_begun(self) -> bool:
        """Whether any rank has a state. Then every rank has one of all its pieces."""
        begun = bool(self._ranks.largest(torch.tensor([self.rule.begun], dtype=torch.uint8)).item())
        if begun:
            self.rule.fill_state()
        return begun

    def _state_pieces(self) -> list[tuple[str, Tensor, Piece]]:
        """Each entry of the state, piece by piece: its short name, the whole one on `meta`, and the piece."""
        return [
            (entry, meta, piece)
            for name, meta in self._expected.items()
            for parameter, _, entry in [name.rpartition("/")]
            for piece in self._pieces[parameter]
        ]

    def _send(self, own: dict[str, Tensor], entry: str, meta: Tensor, piece: Piece) -> Tensor:
        """Give a piece's entry of the state to all ranks."""
        if piece.owner == self._ranks.rank:
            return self._ranks.broadcast(own[f"{piece.name}/{entry}"], piece.owner)
        rows = (piece.end - piece.begin, *meta.shape[1:]) if meta.ndim else ()
        value = torch.empty(rows, dtype=meta.dtype, device=next(iter(self._parameters.values())).device)
        return self._ranks.broadcast(value, piece.owner)


def _copy_shared_rows(place: Tensor | None, piece: Piece, value: Tensor, source: Piece) -> None:
    """Copy the rows that are in both of two pieces of parameters of one shape; a scalar belongs to all of them."""
    begin, end = max(piece.begin, source.begin), min(piece.end, source.end)
    if place is not None and begin < end:
        rows_of(place, begin - piece.begin, end - piece.begin).copy_(
            rows_of(value, begin - source.begin, end - source.begin)
        )
