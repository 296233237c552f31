"""What a shop sells in these tests, which browser there is, and how somebody who visits is played.

Chromium is looked for under its usual names, or at `$NEXTSESSION_CHROMIUM`; without it, or without playwright, these
tests are skipped.  `make screenshots` writes the pictures of the documentation, of films if MovieLens is at hand.
"""

import os
import shutil
from pathlib import Path

import numpy as np

from nextsession.data.items import ItemTable
from nextsession.data.sets import get
from nextsession.data.shop import Shop

PICTURES = os.environ.get("NEXTSESSION_SCREENSHOTS")
GAP = 1_800_000
HOSTILE = '<img src=x onerror="window.broken=1"><script>window.broken=2</script>'
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
)


def chromium_path():
    named = os.environ.get("NEXTSESSION_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


def learnt():
    """Return a log of a simulated shop, or of films for the pictures; one title is hostile."""
    if PICTURES is not None and get("ml-latest-small").locate() is not None:
        from nextsession.experiment import Experiment
        from nextsession.sources import open_source

        experiment = Experiment.read({"data": {"set": "ml-latest-small"}, "models": ["popular"]})
        log = open_source(experiment).log
        return log, log.item_table, {"layers": (64,), "epochs": 6, "reads": "history"}
    log = Shop(users=120, items=120, categories=4).log()
    titles = log.item_table.titles.copy()
    titles[int(np.bincount(log.items, minlength=log.n_items).argmax())] = HOSTILE  # wanted most: on every first shelf
    table = ItemTable(log.item_table.features, titles)
    return log, table, {"layers": (16,), "epochs": 2, "batch_size": 8, "n_sample": 16, "reads": "history"}


class Visitor:
    """Somebody with a browser window of their own; what their page complains of is a failure."""

    def __init__(self, browser, address, **window):
        self.context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **window})
        self.context.set_default_timeout(15_000)
        self.page = self.context.new_page()
        self.wrong, self.outside = [], []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("request", lambda asked: None if asked.url.startswith(address) else self.outside.append(asked.url))
        self.address = address

    def come(self, name, view="shop"):
        self.page.goto(f"{self.address}?visitor={name}#{view}")
        return self

    def shop(self):
        self.page.wait_for_selector(".column .item")
        self.page.wait_for_selector(".cover")
        return self

    def click(self, place=0, shelf=0):
        """Click an item on a shelf, and wait until it stands in the trail."""
        cover = self.page.locator(".shelf").nth(shelf).locator(".cover").nth(place)
        item = cover.get_attribute("data-item")
        before = self.trail()
        cover.click()
        self.counts(".trail [data-event]", before + 1)
        return item

    def counts(self, selector, number):
        """Wait until there are so many; by asking again and again, for the page's policy forbids to evaluate text."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_have_count(number, timeout=15_000)

    def trail(self):
        return self.page.locator(".trail [data-event]").count()

    def listed(self, column=0):
        items = self.page.locator(".column").nth(column).locator(".item").all()
        return [item.get_attribute("data-item") for item in items]

    def picture(self, name, **how):
        if PICTURES is not None:
            self.page.evaluate("document.activeElement?.blur()")
            self.page.mouse.move(0, 0)
            self.page.wait_for_timeout(700)
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png", **how)

    def leave(self):
        self.context.close()
        assert self.wrong == []
        assert self.outside == []
