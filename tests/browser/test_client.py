"""The JavaScript client in a real browser, against the real server."""

import time


def events_of(site, name):
    found = site[0].engine.store.known(name)
    return [] if found is None else [event for _, event, _ in found.events]


def test_a_page_asks_and_what_is_on_its_way_when_it_is_left_arrives(visit, site):
    somebody = visit("somebody").shop()
    page = somebody.page
    page.evaluate("""async () => {
        const { Client } = await import("/client.js");
        window.shop = new Client("");
    }""")
    first, again, similar = page.evaluate("""async () => {
        const { items } = await shop.recommend({ k: 1 });
        const event = shop.event("js", items[0].item);
        const answer = await shop.recommend({ visitor: "js", k: 3, event });
        const again = await shop.record(event);
        return [answer.recorded.status, again[0].status, (await shop.similar(items[0].item, 2)).length];
    }""")
    assert (first, again, similar) == ("accepted", "duplicate", 2)
    assert len(events_of(site, "js")) == 1
    refused = page.evaluate("""async () => shop.recommend({ k: 0 }).catch((error) => [error.status, error.message])""")
    assert refused[0] == 422
    assert ["422" in said for said in somebody.wrong] == [True]
    somebody.wrong.clear()  # a browser complains of each refusal
    page.evaluate("""() => {
        const kept = window.fetch;  // answers of the first sending never come
        window.fetch = (...told) => (told[1].keepalive ? kept(...told) : new Promise(() => {}));
        shop.record(shop.event("leaver", "1"));
    }""")
    page.goto("about:blank")
    for _ in range(200):
        if events_of(site, "leaver"):
            break
        time.sleep(0.05)
    assert len(events_of(site, "leaver")) == 1
    assert site[0].engine.store.erase("js", int(time.time() * 1000)).events == 1
