"""Turns a page into one HTML file that needs nothing else: no network, no other file."""

from html import escape

from cram.reporting.page.blocks import Page


def render_page(page: Page) -> str:
    """Write a page as HTML.

    Returns:
        The text of the file. Equal pages give equal texts.
    """
    sections = "".join(
        f"<section><h2>{escape(section.title)}</h2>"
        + "".join(
            block.svg if hasattr(block, "svg") else f"<pre>{escape(str(block))}</pre>" for block in section.blocks
        )
        + "</section>"
        for section in page.sections
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(page.title)}</title><h1>{escape(page.title)}</h1>{sections}"
    )
