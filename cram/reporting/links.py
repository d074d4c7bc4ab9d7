"""Links of sections, which start from the folder of a subject, made to start from the folder of the page."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cram.reporting.page.blocks import Block, Cell, Fold, Links, Side, Table


def relocate(blocks: Sequence[Block], links_from: Path, page_folder: Path) -> list[Block]:
    """Copy blocks with all links relative to the folder of the page.

    Args:
        blocks: of a section.
        links_from: the folder that their links are relative to.
        page_folder: the folder of the page.
    """
    return [_relocate(block, links_from, page_folder) for block in blocks]


def _relocate(block: Block, links_from: Path, page_folder: Path) -> Block:
    def move(link: str) -> str:
        return os.path.relpath(links_from / link, page_folder)

    def move_cell(cell: Cell) -> Cell:
        return replace(cell, link=move(cell.link)) if cell.link else cell

    if isinstance(block, Links):
        return replace(block, files=[(name, move(link), what) for name, link, what in block.files])
    if isinstance(block, Table):
        return replace(block, rows=[[move_cell(cell) for cell in row] for row in block.rows])
    if isinstance(block, Fold | Side):
        return replace(block, blocks=relocate(block.blocks, links_from, page_folder))
    return block
