"""Reports: the rows of a comparison as one page to look at, or as Markdown to paste.

    write_html(rows, Path("report.html"))
    write_markdown(rows, Path("report.md"))

The page is a single file that loads nothing: tables, plots, style and the little script it needs are inside.
"""

from nextsession.report.markdown import markdown, write_markdown
from nextsession.report.page import html, write_html

__all__ = ["html", "markdown", "write_html", "write_markdown"]
