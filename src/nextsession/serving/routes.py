"""The routes: what each takes, does and gives; HTTP itself is in `edge`."""

import asyncio
from time import perf_counter
from typing import Any

from nextsession.errors import StoreError, UnknownNameError
from nextsession.serving.arms import Arm
from nextsession.serving.calls import Call, Route, count_answer, count_event, durable
from nextsession.serving.events import Outcome, Receipt
from nextsession.serving.explorer import Exploration, ExplorationMessage, explore
from nextsession.serving.metrics import exposition
from nextsession.serving.operations import operations
from nextsession.serving.questions import Answer, Listed, Similar, Source
from nextsession.serving.store import Known
from nextsession.serving.wire import (
    ArmOut,
    AssignArm,
    EventMessages,
    EventsOut,
    HealthOut,
    HeldEvent,
    ItemOut,
    ItemsOut,
    LoadModel,
    MergeMessage,
    MergeOut,
    ModelsMessage,
    ModelsOut,
    QuestionMessage,
    RefusedOut,
    RollBack,
    StockMessage,
    StockOut,
    VisitorOut,
    WeighArms,
    outcome_of,
)

# -- events and lists ---------------------------------------------------------------------------


async def take_events(call: Call) -> EventsOut:
    """Record events, and answer when they are durable."""
    server, now = call.server, call.now
    many = call.body if isinstance(call.body, list) else [call.body]
    events = [one.event(now) for one in many]
    wanted = [event for event, one in zip(events, many, strict=True) if one.consent]
    outcomes = iter(await durable(server, server.engine.record(wanted, now)) if wanted else [])
    found = [next(outcomes) if one.consent else Outcome("refused", "without consent nothing is stored") for one in many]
    for event, outcome in zip(events, found, strict=True):
        count_event(server, event, outcome)
    return EventsOut([outcome_of(event, outcome) for event, outcome in zip(events, found, strict=True)])


async def recommend(call: Call) -> Answer:
    """Answer a question; with `explain` in another thread, for that takes many answers."""
    server, now = call.server, call.now
    question = call.body.question(now)
    if question.explain:
        asked = await asyncio.to_thread(server.engine.ask, question, now)
    else:
        asked = await server.together.ask(question, now)
    answer = asked.answer
    if asked.recorded is not None:
        began = perf_counter()
        try:
            outcomes = await durable(server, asked.recorded)
        except StoreError:
            outcomes = None
        answer = asked.settled(outcomes)
        answer.took["store"] = 1000 * (perf_counter() - began)
        if outcomes is not None and question.event is not None:
            count_event(server, question.event, outcomes[0])
    if server.engine.arms.shadows:
        asyncio.get_running_loop().call_soon(server.engine.answered, asked)  # when this one has been sent
    count_answer(server, answer, asked.cpu, chosen=question.arm is not None)
    server.metrics.count('history_events_total{known="yes"}', asked.known)
    server.metrics.count('history_events_total{known="no"}', asked.unknown)
    return answer


# -- items --------------------------------------------------------------------------------------


def _arm(call: Call) -> Arm:
    name = call.query.get("arm")
    return next(iter(call.server.engine.arms)) if name is None else call.server.engine.arms.named(name)


async def find_items(call: Call) -> ItemsOut:
    """Find items by words of their titles; without words, what many want."""
    served, k = _arm(call).served, call.k()
    catalogue = served.catalogue
    words = call.query.get("search", "")
    if words.strip():
        codes = await asyncio.to_thread(catalogue.search, words[:1000], k)
        sources: dict[str, Source] = dict.fromkeys(catalogue.texts(codes), "any")
    else:
        sources = call.server.engine.chain.for_nobody(served, k)
    codes = catalogue.codes(list(sources))
    return ItemsOut(
        [
            Listed(text, catalogue.title(code), None, source)
            for (text, source), code in zip(sources.items(), codes.tolist(), strict=True)
        ]
    )


async def show_item(call: Call) -> ItemOut:
    """Say what is known of an item."""
    catalogue, item = _arm(call).served.catalogue, call.path["id"]
    code = int(catalogue.codes([item])[0])
    in_stock = item not in call.server.engine.out_of_stock
    if code < 0:
        raise UnknownNameError(f"The model knows no item {item!r}.")
    return ItemOut(item, catalogue.title(code), catalogue.features(code), True, in_stock)


async def similar(call: Call) -> Similar:
    """List items like one."""
    return call.server.engine.similar(call.path["id"], call.k(), call.now, arm=call.query.get("arm"))


async def restock(call: Call) -> StockOut:
    """Say what is out of stock, or there again."""
    out, back = map(str, call.body.out_of_stock), map(str, call.body.in_stock)
    return StockOut(len(await asyncio.to_thread(call.server.engine.restock, list(out), list(back))))


async def look_inside(call: Call) -> Exploration:
    """Look inside a model; in another thread, for that takes many answers."""
    return await asyncio.to_thread(explore, call.server.engine, call.body, call.now)


# -- visitors -----------------------------------------------------------------------------------


async def show_visitor(call: Call) -> VisitorOut:
    """Give everything that is held of a visitor."""
    known: Known | None = await asyncio.to_thread(call.server.engine.store.known, call.path["id"])
    if known is None:
        raise UnknownNameError("Nothing is held of this visitor.")
    events = [
        HeldEvent(seq, event.id, event.item, event.time, received, event.action, event.label, event.request)
        for seq, event, received in known.events
    ]
    return VisitorOut(known.visitor, known.identities, events, known.shown)


async def erase_visitor(call: Call) -> Receipt:
    """Erase a visitor, and give a receipt."""
    return await asyncio.to_thread(call.server.engine.store.erase, call.path["id"], call.now)


async def merge_visitor(call: Call) -> MergeOut:
    """Make two ids one person."""
    into = str(call.body.into)
    return MergeOut(await asyncio.to_thread(call.server.engine.store.merge, call.path["id"], into, call.now))


# -- models -------------------------------------------------------------------------------------


async def show_models(call: Call) -> ModelsOut:
    """Show all arms."""
    arms = call.server.engine.arms
    return ModelsOut(
        [
            ArmOut(
                arm.name,
                arm.served.model.name,
                arm.served.version,
                arm.served.place,
                arm.weight,
                len(arm.served.catalogue),
                arm.loaded_at,
                arm.served.asked,
                [one.version for one in arm.previous],
                arm.role,
            )
            for arm in arms
        ],
        [RefusedOut(one.place, one.reason, one.at) for one in arms.refused],
    )


async def change_models(call: Call) -> ModelsOut:
    """Load a model, go back to the one before, set shares, or say what an arm is for."""
    server, wanted, now = call.server, call.body, call.now
    arms = server.engine.arms
    if isinstance(wanted, LoadModel):
        place, name = server.artifact(str(wanted.artifact)), str(wanted.arm)
        arm = await server.change(lambda: arms.load(name, place, lambda: server.load(place), now=now, role=wanted.role))
        if wanted.index is not None:
            await asyncio.to_thread(server.indexing.wish, arm.served.version, wanted.index)
    elif isinstance(wanted, RollBack):
        await server.change(lambda: arms.roll_back(str(wanted.arm), now=now))
    elif isinstance(wanted, WeighArms):
        await server.change(lambda: arms.weigh(wanted.weights))
    elif isinstance(wanted, AssignArm):
        await server.change(lambda: arms.weigh({}, {str(wanted.arm): wanted.role}))
    return await show_models(call)


# -- the server ---------------------------------------------------------------------------------


async def show_operations(call: Call) -> dict[str, Any]:
    """Give the numbers of the dashboard."""
    return await asyncio.to_thread(operations, call.server)


async def show_metrics(call: Call) -> str:
    """Give the numbers as Prometheus reads them."""
    since, _, _ = await asyncio.to_thread(call.server.all_numbers)
    return exposition(since)


async def healthy(call: Call) -> HealthOut:
    """Say that the process lives."""
    return HealthOut("ok")


async def is_ready(call: Call) -> HealthOut:
    """Say whether questions are answered as they should be."""
    wrong = call.server.problems()
    return HealthOut("not ready", "; ".join(wrong.values())) if wrong else HealthOut("ok")


_ARM, _K = "arm", "k"
ROUTES = (
    Route(
        "POST",
        "/v1/events",
        "write",
        "Record one event or a list of them; answers when they are durable.",
        take_events,
        EventsOut,
        EventMessages,
        fails=(503,),
        stage="events",
    ),
    Route(
        "POST",
        "/v1/recommendations",
        "read",
        "Recommend items; may record an event on the way.",
        recommend,
        Answer,
        QuestionMessage,
        fails=(404,),
        stage="recommend",
    ),
    Route(
        "POST",
        "/v1/explorations",
        "read",
        "Look inside a model while it reads a history; stores nothing.",
        look_inside,
        Exploration,
        ExplorationMessage,
        fails=(404,),
    ),
    Route("GET", "/v1/items", "read", "Find items by their titles.", find_items, ItemsOut, query=("search", _K, _ARM)),
    Route(
        "POST",
        "/v1/items",
        "admin",
        "Say what is out of stock, or there again.",
        restock,
        StockOut,
        StockMessage,
        fails=(503,),
    ),
    Route(
        "GET",
        "/v1/items/{id}/similar",
        "read",
        "List items like one.",
        similar,
        Similar,
        query=(_K, _ARM),
        fails=(404,),
    ),
    Route(
        "GET",
        "/v1/items/{id}",
        "read",
        "Say what is known of an item.",
        show_item,
        ItemOut,
        query=(_ARM,),
        fails=(404,),
    ),
    Route(
        "POST",
        "/v1/visitors/{id}/merge",
        "write",
        "Make two ids one person.",
        merge_visitor,
        MergeOut,
        MergeMessage,
        fails=(503,),
    ),
    Route(
        "GET",
        "/v1/visitors/{id}",
        "admin",
        "Give everything that is held of a visitor.",
        show_visitor,
        VisitorOut,
        fails=(404, 503),
    ),
    Route(
        "DELETE",
        "/v1/visitors/{id}",
        "admin",
        "Erase a visitor, and give a receipt.",
        erase_visitor,
        Receipt,
        fails=(503,),
    ),
    Route("GET", "/v1/models", "admin", "Show all arms.", show_models, ModelsOut),
    Route(
        "POST",
        "/v1/models",
        "admin",
        "Load a model, go back to the one before, set shares, or say what an arm is for.",
        change_models,
        ModelsOut,
        ModelsMessage,
        fails=(404, 409),
    ),
    Route("GET", "/v1/operations", "admin", "Give the numbers of the dashboard.", show_operations, dict[str, Any]),
    Route("GET", "/healthz", None, "Say that the process lives.", healthy, HealthOut),
    Route(
        "GET",
        "/readyz",
        None,
        "Say whether questions are answered as they should be.",
        is_ready,
        HealthOut,
        fails=(503,),
    ),
    Route("GET", "/metrics", None, "Give the numbers as Prometheus reads them.", show_metrics, str),
)
"""All routes with messages; the page and the description of the interface stand beside them."""
