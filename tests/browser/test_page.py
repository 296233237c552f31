"""Visitors click through the page in a real browser: shop, explorer, operations, with mouse, keyboard and thumb."""

import json
import math
import random
import re
import time
from urllib.request import Request, urlopen

import pytest

from browser.visitors import GAP, HOSTILE, PICTURES

films = pytest.mark.skipif(PICTURES is not None, reason="films have no hostile titles")


def events_of(site, name):
    found = site[0].engine.store.known(name)
    return [] if found is None else [event for _, event, _ in found.events]


# -- the shop -----------------------------------------------------------------------------------


def test_a_click_is_an_event_and_both_lists_change(visit, site):
    ann = visit("ann").shop()
    before = [ann.listed(0), ann.listed(1)]
    clicked = [ann.click(1), ann.click(4), ann.click(2, shelf=1)]
    assert [event.item for event in events_of(site, "ann")] == clicked
    after = [ann.listed(0), ann.listed(1)]
    assert before[0] != after[0]
    assert before[1] != after[1]
    for listed in after:
        assert len(listed) == 10
        assert not set(listed) & set(clicked)
    assert re.search(r"[\d.]+ ms\s+model", ann.page.locator(".speed").first.inner_text())
    ann.picture("shop")


def test_the_lists_are_those_of_the_server(visit, site):
    from nextsession.serving.questions import Question

    ben = visit("ben").shop()
    ben.click(0)
    ben.click(3)
    for column, arm in enumerate(["vmisknn", "gru4rec"]):
        answer = site[0].engine.recommend(
            Question(visitor="ben", arm=arm, k=10, exclude="history", shown=False), site[0].clock()
        )
        assert ben.listed(column) == [one.item for one in answer.items]


def test_reasons_name_the_clicks_that_weighed(visit):
    cleo = visit("cleo").shop()
    cleo.click(0)
    cleo.click(2)
    why = cleo.page.locator(".bar:has(i)").first
    why.click()
    assert why.get_attribute("aria-expanded") == "true"
    assert re.search(r"did \d+ %; without it: (place|not in the list)", cleo.page.locator(".why:visible").inner_text())
    assert cleo.page.locator(".trail .lit").count() >= 1
    why.click()
    assert cleo.page.locator(".why:visible").count() == 0


def test_a_click_in_ones_own_list_counts_for_the_arm(visit, site):
    dora = visit("dora").shop()
    own = dora.page.locator(".column:has(.tag)")
    arm = own.get_attribute("data-arm")
    assert arm == site[0].engine.arms.of("dora").name
    own.locator(".item").nth(2).click()
    dora.page.wait_for_selector(".trail [data-event]")
    other = dora.page.locator(".column:not(:has(.tag)) .item").first
    other.click()
    dora.counts(".trail [data-event]", 2)
    requests = [event.request for event in events_of(site, "dora")]
    assert requests[0].startswith(f"{arm}.")
    assert requests[1] == "", "the other list was not this visitor's to be counted"


def test_titles_are_found(visit):
    emil = visit("emil").shop()
    word = emil.page.locator(".shelf").nth(1).locator(".cover .name").nth(1).inner_text().split()[0]
    emil.page.fill("#words", word)
    emil.page.press("#words", "Enter")
    emil.page.wait_for_selector(f".shelf[aria-label='Found for “{word}”']")
    assert word.casefold() in emil.page.locator(".cover .name").first.inner_text().casefold()


# -- the explorer -------------------------------------------------------------------------------


def test_the_explorer_works_on_ones_own_session(visit):
    fay = visit("fay").shop()
    places = (1, 4, 7, 10) if PICTURES is None else (1, 4, 7, 10, 12, 2, 14, 5, 9)
    for place in places:
        fay.click(place)
    fay.page.click("nav [data-view=explorer]")
    fay.page.select_option("#arm", "gru4rec")
    fay.page.wait_for_selector(".mixture")
    page = fay.page
    assert page.locator(".chapter").count() == 7
    assert page.locator("#chapter-inside .mixture i:not(.empty)").count() == len(places)
    assert page.locator(".heat .cell").count() % len(places) == 0
    assert re.search(r"\d+ of \d", page.locator("#chapter-steps").inner_text())
    if PICTURES is None:
        assert page.locator("#chapter-events tbody tr").count() == 4
        assert "6 of 16 cells are padding" in page.locator("#chapter-batch").inner_text()
        assert "[0, 1, 3, 6, 10]" in page.locator("#chapter-batch").inner_text()
    page.get_by_role("button", name="4 Inside the model").click()
    fay.picture("explorer")
    page.select_option("#arm", "vmisknn")
    page.wait_for_selector("text=keeps no state that could be drawn")
    if page.locator("#arm option[value=sasrec]").count():
        page.select_option("#arm", "sasrec")
        page.wait_for_selector("#of-head")
        assert page.locator("#chapter-inside .heat .cell").count() == len(places) ** 2
        page.select_option("#of-head", value="1")  # a bare text would be taken for the label, too
        page.get_by_role("button", name="4 Inside the model").click()
        fay.picture("attention")


def test_what_if_changes_the_list_and_nothing_that_is_stored(visit, site):
    from playwright.sync_api import expect

    gil = visit("gil").shop()
    for place in (0, 3, 6):
        gil.click(place)
    page = gil.page
    page.click("nav [data-view=explorer]")
    page.wait_for_selector("#chapter-what-if")
    page.locator(".chip").nth(2).get_by_role("button", name=re.compile("Begin a session here")).click()
    page.wait_for_selector("#chapter-sessions .pause")
    assert page.locator(".made").count() == 2
    assert f"{2 * GAP // 60000} minutes" in page.locator("#chapter-sessions").text_content()
    chips = page.locator(".chip .name")
    turned = chips.all_inner_texts()[::-1]
    page.get_by_role("button", name="Turn the order round").click()
    page.wait_for_selector(".compare")
    expect(chips).to_have_text(turned)  # the comparison of the step before may stand there already
    page.locator(".chip").first.get_by_role("button", name=re.compile("Remove")).click()
    gil.counts(".chip", 2)
    expect(chips).to_have_text(turned[1:])
    page.get_by_role("button", name="Back to mine").first.click()
    gil.counts(".chip", 3)
    assert len(events_of(site, "gil")) == 3


def test_questions_answer_with_a_reason(visit):
    hal = visit("hal", "explorer")
    page = hal.page
    page.get_by_role("button", name="Lend me a session").first.click()
    page.wait_for_selector("#question-batch")
    page.click("#question-batch summary")
    page.locator("#question-batch label").nth(1).click()
    assert page.locator("#question-batch .said").inner_text().startswith("Not quite.")
    page.locator("#question-batch label").nth(0).click()
    assert page.locator("#question-batch .said").inner_text().startswith("Yes.")
    before = page.locator(".likely .meter b").first.inner_text()
    page.locator("#temperature").fill("-0.7")
    page.locator("#temperature").dispatch_event("change")
    page.wait_for_selector("text=Temperature 0.2")
    assert page.locator(".likely .meter b").first.inner_text() != before
    assert page.locator("#question-batch[open]").count() == 1, "what was opened stays open"


# -- operations ---------------------------------------------------------------------------------


def test_operations_count_what_happened(visit, site):
    ida = visit("ida").shop()
    ida.click(0)
    ida.page.click("nav [data-view=operations]")
    ida.page.wait_for_selector(".tile.good")
    text = ida.page.locator("#view-operations").inner_text()
    for word in (
        "Well",
        "p99",
        "Fallback",
        "vmisknn",
        "gru4rec",
        "95 % interval",
        "sqlite",
        "Golden requests",
        "Index of gru4rec",
        "every item is looked at",
    ):
        assert word in text
    assert ida.page.locator(".interval").count() >= 1
    if PICTURES is not None:
        traffic(site[1])
        ida.page.wait_for_timeout(6000)
    ida.picture("operations", full_page=True)


def test_what_models_were_told_is_shown(visit, learning_site):
    server, address = learning_site
    moe = visit("moe", address=address).shop()
    for place in range(3):
        moe.click(place)
    moe.page.click("nav [data-view=operations]")
    panel = moe.page.locator(".panel[aria-label='Learning on']")
    told = panel.locator("tbody tr", has=moe.page.locator("th", has_text="recent"))
    for _ in range(150):
        if told.locator("td").nth(1).inner_text() == "3":
            break
        moe.page.wait_for_timeout(100)
    until, events, took, times, failures, reason = told.locator("td").all_inner_texts()
    assert (events, failures, reason) == ("3", "0", "")
    assert until == "just now" or until.endswith("ago"), until
    assert took.endswith("ms")
    assert int(times) >= 1
    assert server.learner.learnt["recent"].events == 3
    other = panel.locator("tbody tr", has=moe.page.locator("th", has_text="gru4rec"))
    assert other.locator("td").first.inner_text() == "nothing yet"
    assert other.locator("td").last.inner_text() == "the model cannot learn on"
    panel.scroll_into_view_if_needed()
    moe.picture("learning", clip=panel.bounding_box())


def traffic(address):
    """Let many visitors come, so that there is something to see in the pictures: some of them like what they get."""

    def ask(path, body):
        asked = Request(address + path, json.dumps(body).encode(), {"content-type": "application/json"})
        with urlopen(asked) as answer:
            return json.load(answer)

    chance = random.Random(7)
    wanted = ask("v1/recommendations", {"arm": "gru4rec", "k": 100})["items"]
    end = time.monotonic() + 75
    while time.monotonic() < end:
        visitor = f"visitor {chance.randrange(3000)}"
        seen = {"visitor": visitor, "item": chance.choice(wanted)["item"]}
        answer = ask("v1/recommendations", {"visitor": visitor, "k": 10, "event": seen})
        liked = 0.32 if answer["arm"] == "gru4rec" else 0.24
        if chance.random() < liked:
            item = chance.choice(answer["items"])["item"]
            ask("v1/events", {"visitor": visitor, "item": item, "request": answer["request"]})
        time.sleep(0.02 + 0.06 * (1 + math.sin(time.monotonic() / 9)) * chance.random())


# -- people -------------------------------------------------------------------------------------


def test_two_visitors_at_once_do_not_mix(visit, site):
    one, two = visit("jo").shop(), visit("kim").shop()
    first = [one.click(0), one.click(5)]
    second = [two.click(8)]
    third = [one.click(3)]
    assert [event.item for event in events_of(site, "jo")] == first + third
    assert [event.item for event in events_of(site, "kim")] == second
    assert (one.trail(), two.trail()) == (3, 1)


def test_a_visitor_can_be_somebody_else_and_be_forgotten(visit, site):
    lea = visit("lea").shop()
    lea.click(0)
    lea.page.click("#visitor")
    lea.page.get_by_role("button", name="Forget me").click()
    lea.page.wait_for_selector("text=Erased lea: 1 events")
    assert events_of(site, "lea") == []
    lea.page.fill("#name", "max")
    lea.page.get_by_role("button", name="Be this visitor").click()
    lea.page.wait_for_selector("dialog", state="hidden")
    assert "max" in lea.page.locator("#visitor").inner_text()
    lea.page.wait_for_selector(".trail .empty")


def test_the_keyboard_is_enough(visit, site):
    nia = visit("nia").shop()
    page, keys = nia.page, nia.page.keyboard
    keys.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keys.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(12):  # the field of the search, its button, then the shelves
        keys.press("Tab")
        if page.evaluate("document.activeElement.className") == "cover":
            break
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    wanted = page.evaluate("document.activeElement.dataset.item")
    keys.press("Enter")
    page.wait_for_selector(".trail [data-event]")
    assert [event.item for event in events_of(site, "nia")] == [wanted]
    assert page.evaluate("document.activeElement.dataset.item") == wanted, "the focus stays where it was"
    page.locator(".column .item").nth(2).focus()
    keys.press("Enter")
    nia.counts(".trail [data-event]", 2)
    assert page.evaluate("document.activeElement.className") == "item", "the list is new, the focus still in it"
    page.locator("nav [data-view=explorer]").focus()
    keys.press("Enter")
    page.wait_for_selector(".chapter")
    page.locator(".chip").first.get_by_role("button", name=re.compile("Later")).focus()
    name = page.evaluate("document.activeElement.getAttribute('aria-label')")
    keys.press("Enter")
    page.get_by_role("button", name="Back to mine").first.wait_for()
    assert page.evaluate("document.activeElement.tagName") == "BUTTON", name
    page.locator("#question-events summary").focus()
    keys.press("Enter")
    keys.press("Tab")
    keys.press("Space")
    assert page.locator("#question-events .said").inner_text()


def test_a_narrow_screen(visit):
    ola = visit("ola", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True).shop()
    page = ola.page
    page.locator(".cover").nth(1).tap()
    page.wait_for_selector(".trail [data-event]")
    for view in ("shop", "explorer", "operations"):
        page.locator(f"nav [data-view={view}]").tap()
        page.wait_for_selector({"shop": ".column", "explorer": ".chapter", "operations": ".tile"}[view])
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, f"{view} is wider than the screen"
        if view == "shop":
            page.locator(".path").evaluate("(one) => one.scrollIntoView({ block: 'center' })")
            ola.picture("narrow")


def test_dark_and_calm(visit):
    pia = visit("pia", color_scheme="dark", reduced_motion="reduce").shop()
    ground = "getComputedStyle(document.body).backgroundColor"
    assert pia.page.evaluate(ground) == "rgb(16, 17, 25)"
    for place in (1, 5, 8):
        pia.click(place)
    assert pia.page.evaluate("document.getAnimations().length") == 0
    pia.picture("dark")
    pia.page.click("#theme")
    assert pia.page.evaluate(ground) == "rgb(246, 246, 251)"
    pia.page.reload()
    pia.shop()
    assert pia.page.evaluate(ground) == "rgb(246, 246, 251)", "the choice is kept"


# -- what must not happen -----------------------------------------------------------------------


@films
def test_titles_and_names_are_text_and_nothing_else(visit):
    mallory = visit("%3Cimg%20src%3Dx%20onerror%3D%22window.broken%3D3%22%3E")
    mallory.shop()
    page = mallory.page
    assert HOSTILE in page.locator(".cover .name").all_text_contents()
    page.locator(".cover").first.click()
    page.wait_for_selector(".trail [data-event]")
    for view in ("explorer", "operations", "shop"):
        page.click(f"nav [data-view={view}]")
        page.wait_for_timeout(300)
        assert page.evaluate("window.broken") is None
        assert page.locator("main img, main script").count() == 0
    assert "<img" in page.locator("#visitor").inner_text()


def test_everything_has_a_name(visit):
    """What can be worked has a name to be called by; ids are there once; the heading is there."""
    quin = visit("quin").shop()
    quin.click(0)
    nameless = """() => [...document.querySelectorAll('button, a, input, select, svg[role=img], [role=group]')]
        .filter((one) => one.checkVisibility() && !(one.textContent.trim() || one.getAttribute('aria-label') ||
                one.labels?.length || one.querySelector('title')))
        .map((one) => one.outerHTML.slice(0, 120))"""
    twice = """() => { const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
        return ids.filter((id, place) => ids.indexOf(id) !== place); }"""
    for view in ("shop", "explorer", "operations"):
        quin.page.click(f"nav [data-view={view}]")
        quin.page.wait_for_selector(f"#view-{view} h1")
        quin.page.wait_for_timeout(400)
        assert quin.page.evaluate(nameless) == []
        assert quin.page.evaluate(twice) == []
        assert quin.page.locator("h1:visible").count() == 1


def test_a_server_that_is_gone_is_said_so(visit):
    rob = visit("rob").shop()
    rob.page.route("**/v1/**", lambda route: route.abort())
    rob.page.locator(".cover").first.click()
    rob.page.wait_for_selector("#notice:visible")
    assert "does not answer" in rob.page.locator("#notice").inner_text()
    rob.page.unroute("**/v1/**")
    rob.page.get_by_role("button", name="Try again").click()
    rob.page.wait_for_selector("#notice", state="hidden")
    rob.click(1)
    rob.wrong.clear()  # the browser reports the requests that were cut off


def test_keys_are_asked_for_and_sent(visit):
    """As a server with keys answers; a key without the scope `admin` still gets a shop, of one list."""

    def guarded(route):
        if route.request.headers.get("x-api-key") != "secret":
            route.fulfill(status=401, json={"detail": "The key is missing; send one in the header X-API-Key."})
        elif route.request.url.endswith("/v1/models"):
            route.fulfill(status=403, json={"detail": "The key may not do this."})
        else:
            route.continue_()

    sam = visit("sam").shop()
    sam.page.route("**/v1/**", guarded)
    sam.page.reload()
    sam.page.get_by_label("Key of this server").fill("secret")
    sam.page.get_by_role("button", name="Use this key").click()
    sam.shop()
    assert sam.page.locator(".column").count() == 1
    sam.page.wait_for_selector("#notice", state="hidden")
    sam.click(2)
    sam.wrong.clear()  # the browser reports the refusals
