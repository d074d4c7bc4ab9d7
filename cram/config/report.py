"""The keys of the page that a run writes about itself."""

from dataclasses import dataclass

from cram.config.schema import key


@dataclass
class PageConfig:
    """The keys `report.*`: the page report.html in the run folder. Its time is not charged to the budget."""

    page: bool = key(False, "write report.html when the run ends", identifies=False)
    live: bool = key(
        False,
        "also write it at evaluations and checkpoints; until the end it loads itself again",
        identifies=False,
    )

    @property
    def enabled(self) -> bool:
        """Whether the run ends with a page."""
        return self.page or self.live
