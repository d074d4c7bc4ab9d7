"""Several sources as one: their parts one after the other, with shares of the training tokens where weights ask so."""

import hashlib
from dataclasses import replace
from functools import cached_property

from cram.config.sources import SourceEntry
from cram.data.text.source import Member, PartGroup, Source, SourcePart
from cram.errors import CramError


class SourceList(Source):
    """Several sources, in the order of the list.

    Sources with a weight are a group each; those without one are one group, which has the rest of the tokens.

    Args:
        sources: each with its entry in the list.
    """

    def __init__(self, sources: list[tuple[SourceEntry, Source]]) -> None:
        self._sources = sources

    @cached_property
    def parts(self) -> list[SourcePart]:
        """The parts of all sources.

        Raises:
            CramError: two sources name the same file, which would be read twice.
        """
        parts: list[SourcePart] = []
        owners: dict[str, str] = {}
        for entry, source in self._sources:
            own = {part.identity for part in source.parts}
            if twice := sorted(own & owners.keys()):
                raise CramError(
                    f"data.source: {twice[0]} is in two sources of the list, {owners[twice[0]]!r} and {entry.path!r}\n"
                    "name it in one of them only, so that its text is read once and counts for one weight."
                )
            owners |= dict.fromkeys(own, entry.path)
            parts += source.parts
        return parts

    @cached_property
    def members(self) -> list[Member]:
        """The sources with their weights and parts."""
        members: list[Member] = []
        first = 0
        for entry, source in self._sources:
            members.append(Member(entry.path, entry.weight, range(first, first + len(source.parts))))
            first += len(source.parts)
        return members

    @property
    def reachable(self) -> bool:
        """Whether all sources are."""
        return all(source.reachable for _, source in self._sources)

    def fingerprint(self) -> str:
        """Return a sha256 over the fingerprints of the sources, and what the list says of each but its path."""
        lines = [f"{source.fingerprint()} {replace(entry, path='')}" for entry, source in self._sources]
        return hashlib.sha256("\n".join(["list", *lines]).encode()).hexdigest()

    def _make_groups(self) -> list[PartGroup]:
        if all(member.weight is None for member in self.members):
            return super()._make_groups()
        weighted = [member for member in self.members if member.weight is not None]
        others = [member for member in self.members if member.weight is None]
        rest = max(0.0, 1 - sum(member.weight or 0.0 for member in weighted))
        total = 1.0 if others else sum(member.weight or 0.0 for member in weighted)
        groups = [PartGroup(member.name, (member.weight or 0.0) / total, member.parts) for member in weighted]
        if others:
            parts = [part for member in others for part in member.parts]
            groups.append(PartGroup(", ".join(member.name for member in others), rest, parts))
        return groups
