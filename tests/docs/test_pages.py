"""The documentation is true: its code runs, its links lead somewhere, and nothing is left out."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("recipes/*.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]
)
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?P<rest>[^\n]*)\n(?P<code>.*?)^(?P=indent)```\s*$", re.M | re.S
)
NO_RUN = re.compile(r"<!-- no-run: \S[^>]* -->\s*\Z")
RUNNABLE = ("python", "bash", "console")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    line: int
    language: str
    code: str
    runs: bool
    file: str = ""
    """The name of the file that the block is the content of."""


@cache
def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    text = read(page)
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        code = re.sub(f"^{match['indent']}", "", match["code"], flags=re.M)
        title = re.search(r"title=(\S+)", match["rest"])
        runs = NO_RUN.search(text[: match.start()]) is None
        found.append(Block(line, match["language"], code, runs, title[1] if title else ""))
    return found


def shell(block: Block) -> str:
    """Return what a shell block runs: of a console, the lines after the prompt."""
    if block.language == "bash":
        return block.code
    return "\n".join(line[2:] for line in block.code.splitlines() if line.startswith("$ "))


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language in RUNNABLE for b in blocks(page))])
def test_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NEXTSESSION_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / ".cache"),
    }
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if not block.runs or block.language not in RUNNABLE:
            continue
        where = f"{page}, line {block.line}"
        if block.file:
            Path(block.file).write_text(block.code, encoding="utf-8")
            continue
        if block.language == "python":
            exec(compile(block.code, where, "exec"), names)
            continue
        command = ["bash", "-euo", "pipefail", "-c", shell(block)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{where}:\n{shell(block)}\n{done.stdout}\n{done.stderr}"


def headings(page: str) -> set[str]:
    """Return the anchors of the headings of a page, as they are made of their text."""
    text = re.sub(r"^ *```.*?^ *```", "", read(page), flags=re.M | re.S)
    titles = re.findall(r"^#+ +(.+?) *$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", read(page), flags=re.M | re.S)
        found += [(page, target) for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    return [(page, target) for page, target in found if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for source, target in links():
        if source != page:
            continue
        path, _, anchor = target.partition("#")
        goal = (ROOT / page).parent / path if path else ROOT / page
        assert goal.exists(), f"{page} links to {target}"
        if anchor and goal.suffix == ".md":
            assert anchor in headings(str(goal.resolve().relative_to(ROOT))), f"{page} links to {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_every_page_can_be_reached(page: str) -> None:
    """Some other page links to this one."""
    reached = {((ROOT / source).parent / target.partition("#")[0]).resolve() for source, target in links()}
    if page != "docs/README.md":
        assert (ROOT / page) in reached, f"nothing links to {page}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_one_title_and_no_path_of_somebodys_machine(page: str) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", read(page), flags=re.M | re.S)
    assert len(re.findall(r"^# ", text, flags=re.M)) == 1
    assert not re.search(r"(?<![\w.:/])/(home|root|work|Users|mnt|data)/", read(page))
    assert not re.search(r"\b(TODO|FIXME|TBD|XXX)\b", read(page))
