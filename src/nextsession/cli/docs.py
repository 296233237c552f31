"""`nextsession docs`: the pages of the reference that follow from the program."""

from pathlib import Path
from typing import Annotated

import typer

from nextsession.cli.terminal import examples, remark, show
from nextsession.errors import ConfigError

EXAMPLES = examples("nextsession docs", "nextsession docs --check")


def docs(
    out: Annotated[Path, typer.Option("--out", help="The folder of the reference.")] = Path("docs/reference"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if a page is stale.")] = False,
) -> None:
    """Write the pages on commands, settings, models, data sets and metrics; or check that they are current."""
    from nextsession.cli.pages import pages
    from nextsession.files import whole_file

    if not out.is_dir():
        raise ConfigError(f"There is no folder {str(out)!r}; run this where docs/reference/ is, or say --out.")
    wanted = {out / name: text for name, text in pages().items()}
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    gone = [path for path in sorted((out / "models").glob("*.md")) if path not in wanted]
    if check:
        for path in stale:
            show(f"{path} is stale.")
        for path in gone:
            show(f"{path} is of a model that there is not.")
        if stale or gone:
            remark("Run: nextsession docs")
            raise typer.Exit(1)
        return
    for path in stale:
        with whole_file(path) as scratch:
            scratch.write_text(wanted[path], encoding="utf-8")
        show(str(path))
    for path in gone:
        path.unlink()
        show(f"{path} removed")
    remark(f"{len(wanted)} pages, {len(stale)} written.")
