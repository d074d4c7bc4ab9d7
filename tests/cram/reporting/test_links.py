"""Links of a page lead to the files, wherever the page is."""

from pathlib import Path

from cram.reporting.links import relocate
from cram.reporting.page.blocks import Cell, Column, Fold, Links, Side, Table, Text


def test_links_of_all_blocks_start_from_the_folder_of_the_page() -> None:
    links = Links([("receipt", "receipt.json", "all figures")])
    table = Table([Column("arm")], [[Cell("a", link="export/config.json")], [Cell("b")]])
    text = Text("receipt.json")
    moved = relocate([links, Fold("more", [table, text]), Side([links])], Path("runs/demo"), Path("pages"))
    files = [("receipt", "../runs/demo/receipt.json", "all figures")]
    assert moved == [
        Links(files),
        Fold("more", [Table(table.columns, [[Cell("a", link="../runs/demo/export/config.json")], [Cell("b")]]), text]),
        Side([Links(files)]),
    ]


def test_links_of_a_page_in_its_own_folder_stay(tmp_path: Path) -> None:
    links = [Links([("receipt", "receipt.json", "")])]
    assert relocate(links, tmp_path, tmp_path) == links
    assert relocate(links, Path("/elsewhere"), Path("/elsewhere/pages")) == [
        Links([("receipt", "../receipt.json", "")])
    ]
