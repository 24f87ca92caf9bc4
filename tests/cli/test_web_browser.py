"""The page in a headless Chromium, against a real mesh."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.cli.browser import Browser, browser
from tests.cli.serving_web import Served, served
from tests.conftest import eventually, run
from tests.handlers.approving import asked
from tests.handlers.mesh import Mesh, mesh

from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas import ids

pytestmark = pytest.mark.slow

#: What would be heard of, if a text were taken for markup or for script.
HOSTILE = (
    "<img src=x onerror=\"window.pwned='img'\">",
    "<script>window.pwned='script'</script>",
    "\"><svg onload=window.pwned='svg'>",
    "javascript:window.pwned='url'",
    "'}};window.pwned='json';//",
    "\u202egnp.exe \u0007 \u2028 {{7*7}}",
)
PROFILES = """
version: 1
profiles:
  asks:
    on: [a.d]
    actions:
      - id: ask
        approve: {prompt: "${{ event.payload.text }}", otherwise: skip}
        command: ["true"]
  takes:
    on: [a.c]
    actions: [collect: [disk]]
  also:
    on: [a.f]
    actions: [command: ["true"]]
  bad:
    on: [a.e]
    retry: {attempts: 1}
    actions: [command: [sh, -c, "echo '<img src=x onerror=window.pwned=1>' >&2; exit 1"]]
"""

Look = Callable[[Served, Browser], None]


def looked_at(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[Mesh], Any], look: Look, **more: Any
) -> None:
    """Run a mesh, let something happen, and look at its page."""
    monkeypatch.setattr("opsmesh.cli.health._components", lambda health: True)

    def looking(s: Served) -> None:
        with browser() as page:
            page.size(1280, 720)
            page.go(s.entrance)
            page.until("document.querySelector('.row')")
            look(s, page)
            assert page.errors == []
            assert all(one.startswith(s.url) or one == "about:blank" for one in page.asked)

    async def body() -> None:
        async with mesh(PROFILES) as m:
            await before(m)
            async with served(m.settings) as s:
                await eventually(lambda: s.view.events and s.view.profiles)
                await asyncio.to_thread(looking, s)

    run(body(), timeout=180)


async def _nothing(m: Mesh) -> None:
    await m.publish("a.b")


def test_text_is_text(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in an event, nothing of it is run, in any view; what is not seen is shown by
    its number; nothing is asked of another address."""

    async def before(m: Mesh) -> None:
        for text in HOSTILE:
            facts = {"source": text, "host": text, "workspace": text, "component": text}
            await m.publish("a.b", payload={"text": text, text: text}, **facts)
        last = await m.publish("a.d", payload={"text": HOSTILE[0]})
        await m.publish("a.e", correlation_id=last.id, causation_id=last.id)
        await m.wait("automation.run.deadlettered")
        await asked(m)

    def look(s: Served, page: Browser) -> None:
        page.until("document.querySelectorAll('.row').length >= 8")
        assert "<img src=x" in page.js("document.body.innerText")
        assert "\\u202egnp" in page.js("document.body.innerText")
        for view in ("timeline", "profiles", "runs", "latency", "approvals", "letters", "mesh"):
            page.js(f"location.hash = '#/{view}'")
            page.until(f"document.querySelector('nav [data-view={view}][aria-current]')")
        for one in s.view.events:
            assert one.event is not None
            page.js(f"location.hash = '#/story/{one.event.id}'")
            page.until(f"document.querySelector('.card code')?.textContent === '{one.event.id}'")
        [letter] = s.view.letters
        page.js(f"location.hash = '#/letters/{letter.seq}'")
        page.until("document.body.innerText.includes('Dead letter 1')")
        page.js("location.hash = '#/story/' + encodeURIComponent('<img src=x>')")
        page.until("document.querySelector('.error')")
        assert page.errors.pop().startswith("Failed to load resource")  # the 404 itself
        assert page.js("window.pwned") is None
        assert page.js("document.querySelectorAll('img, main script').length") == 0
        page.js(f"location.hash = '#/letters/{letter.seq}'")
        page.until(
            "[...document.querySelectorAll('button')].some(one => one.innerText === 'Give up')"
        )
        page.js("[...document.querySelectorAll('button')].at(-1).click()")
        page.until("document.body.innerText.includes('No dead letter')")
        page.until("document.getElementById('notice').innerText.includes('Given up')")

    looked_at(monkeypatch, before, look)


def test_markup_is_refused_by_the_browser(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a script of ours could make no markup of a text, nor run one that stands inline."""

    def look(s: Served, page: Browser) -> None:
        tried = "try { document.body.innerHTML = '<b>'; 'made' } catch (error) { error.name }"
        assert page.js(tried) == "TypeError"
        page.js("document.body.append(Object.assign(document.createElement('a'), {id: 'inline'}))")
        page.js("document.getElementById('inline').setAttribute('style', 'color: red')")
        colour = page.js("getComputedStyle(document.getElementById('inline')).color")
        assert colour != "rgb(255, 0, 0)"
        page.errors.clear()

    looked_at(monkeypatch, _nothing, look)


def test_ten_thousand_events(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 10,000 events a list has elements for what is seen, a filter and a story answer at once,
    and no view is wider than a phone."""

    async def before(m: Mesh) -> None:
        for n in range(10_050):
            await m.client.publish("evt.h.a.b", _event(n))
        await m.client.flush()
        await eventually(lambda: _stored(m, 10_050))

    def look(s: Served, page: Browser) -> None:
        page.until("document.body.innerText.includes('10,000 events')")
        assert page.js("document.querySelectorAll('.row').length") < 60
        took = """(async () => {
            const search = document.querySelector('input[type=search]');
            const began = performance.now();
            search.value = 'n=9999';
            search.dispatchEvent(new Event('input'));
            const filtered = performance.now() - began;
            const rows = document.querySelectorAll('.row').length;
            search.value = '';
            search.dispatchEvent(new Event('input'));
            return [rows, filtered];
        })()"""
        rows, filtered = page.js(took)
        assert rows == 1
        # a shared machine: what is meant is that nobody waits
        assert filtered < 1000, f"filtering took {filtered} ms"
        page.js("document.querySelector('.rows').scrollTop = 1e9")
        page.until(
            "[...document.querySelectorAll('.row')].some(one => +one.ariaPosInSet === 10000)"
        )
        page.size(390, 800, phone=True)
        for view in ("events", "timeline", "story", "profiles", "runs", "latency", "approvals"):
            page.js(f"location.hash = '#/{view}'")
            page.until(f"document.querySelector('nav [data-view={view}][aria-current]')")
            assert page.js("document.documentElement.scrollWidth") <= 390, view
        page.js("location.hash = '#/timeline'")
        page.until("document.querySelector('svg .cell')")
        assert page.js("document.querySelectorAll('svg .cell').length") < 1000

    looked_at(monkeypatch, before, look)


def _event(n: int) -> bytes:
    head = f'"ts_utc":"2026-11-27T09:00:00Z","source":"s{n % 7}","component":"c","severity":"info"'
    rest = '"host":"h","session_id":"","workspace":"","schema_version":"1.0"'
    event_id = ids.uuid7()
    return (
        f'{{"topic":"a.b",{head},"correlation_id":"{event_id}",{rest},'
        f'"id":"{event_id}","payload":{{"n":{n}}}}}'
    ).encode()


async def _stored(m: Mesh, count: int) -> bool:
    return (await m.client.jetstream().stream_info("EVENTS")).state.messages >= count


def test_by_keyboard(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mouse: an event is found, its story opened and left again, a question answered;
    a reload needs no token."""

    async def before(m: Mesh) -> None:
        await m.publish("a.d", payload={"text": "Really?"})
        await asked(m)

    def look(s: Served, page: Browser) -> None:
        page.until("document.querySelector('.badge.good, .badge.warn')")
        assert page.js("location.hash") == "#/events"  # the token is gone from the address
        page.key("/")
        assert page.js("document.activeElement.type") == "search"
        for letter in "topic:a.d":
            page.key(letter)
        page.until("document.querySelectorAll('.row').length === 1")
        page.key("Escape")
        page.key("j")
        page.key("j")  # at the end it stays
        page.key("k")
        page.key("Enter")
        page.until("document.querySelector('.node.event.chosen')")
        page.key("ArrowRight")
        page.until("document.querySelector('.node.run.chosen')")
        page.key("Escape")
        page.until("location.hash === '#/events'")
        page.key("7")
        page.until("document.querySelector('.card button.main')")
        page.js("document.querySelector('.card button.main').focus()")
        page.key("Enter")
        page.until("document.body.innerText.includes('Nothing waits')")
        page.until("document.getElementById('notice').textContent.includes('granted')")
        page.key("?")
        page.until("document.getElementById('help').open")
        page.key("Escape")
        page.call("Page.reload")  # the session is the browser's
        page.until("document.querySelector('.row, .empty')")

    looked_at(monkeypatch, before, look)


def test_around_by_keyboard(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """[ and ] turn to the views beside, the first link leads past them and stays in its view, the
    timeline's marks are one stop of the tab key, and a filter that finds nothing says so."""
    at = "document.activeElement.dataset.lane"

    async def before(m: Mesh) -> None:
        for source in ("one", "one", "two"):
            await m.publish("a.b", source=source)

    def look(s: Served, page: Browser) -> None:
        page.key("[")
        page.until("location.hash === '#/mesh'")
        page.key("]")
        page.key("]")
        page.until("location.hash === '#/timeline' && document.querySelector('svg .cell')")
        page.js("document.querySelector('.skip').focus()")
        page.key("Enter")
        page.until("document.activeElement.id === 'content'")
        assert page.js("location.hash") == "#/timeline"
        assert page.js("document.querySelectorAll('svg .cell[tabindex=\"0\"]').length") == 1
        page.js("document.querySelector('svg .cell[tabindex=\"0\"]').focus()")
        assert page.js(at) == "0"
        page.key("ArrowDown")
        assert page.js(at) == "1"
        page.key("Enter")
        page.until("document.querySelectorAll('.row').length === 1")
        page.key("/")
        page.key("x")
        page.until("document.querySelector('.rows .empty')?.textContent.includes('No event is')")

    looked_at(monkeypatch, before, look)


def test_moved_one_by_one(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each press of a key goes one row along, and what is chosen stays so while more comes."""

    async def before(m: Mesh) -> None:
        for n in range(5):
            await m.publish("a.b", payload={"n": n})

    def look(s: Served, page: Browser) -> None:
        page.until("document.querySelectorAll('.row').length >= 5")
        for _ in range(3):
            page.key("j")
        page.until("document.querySelector('.row[aria-selected=true]')?.ariaPosInSet === '3'")
        assert "n=2" in page.js("document.querySelector('.row[aria-selected=true]').innerText")

    looked_at(monkeypatch, before, look)


def test_backtest_and_evidence(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text is decided beside the one in force, side by side, and a mistake in it is said; a
    bundle's report is read."""

    async def before(m: Mesh) -> None:
        await m.publish("a.c")
        await m.publish("a.f")
        await m.wait("automation.run.succeeded", 2)

    def look(s: Served, page: Browser) -> None:
        page.js("location.hash = '#/backtest'")
        write = "document.querySelector('textarea').value = {!r}"
        text = 'profiles: {takes: {on: [a.f], actions: [{command: ["true"]}]}}'
        page.js(write.format("version: 1\n" + text))
        page.js("document.querySelector('button.main').click()")
        page.until("document.querySelector('.firing.gained') && document.querySelector('.lost')")
        told = page.js("document.querySelector('main').innerText")
        assert "Fires only as it is in force: 1" in told
        assert "Fires only as it is written here: 1" in told
        page.js(write.format("profiles: {takes: {onn: [a.f]}}"))
        page.js("document.querySelector('button.main').click()")
        page.until("document.querySelector('pre.error')?.innerText.includes('onn')")
        assert page.errors.pop().startswith("Failed to load resource")
        page.js("location.hash = '#/bundles'")
        page.until("document.querySelector('td a')")
        page.js("document.querySelector('td a').click()")
        page.until("document.querySelector('main').innerText.includes('Report')")
        page.until("document.querySelector('main table')")
        page.js("document.querySelector('dd a').click()")
        page.until("document.querySelector('.card dd a')?.hash.startsWith('#/bundles/')")

    looked_at(monkeypatch, before, look)


def test_filters(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words, fields with wildcards and what is not wanted choose events; nothing that is typed is a
    regular expression."""
    found = """(async () => {
        const {matcher} = await import('/page/filter.js');
        const row = {topic: 'python.test.failed', host: 'Laptop', source: 'pytest',
            severity: 'error', workspace: '', correlation: 'c', id: 'i',
            gist: 'nodeid=a.py::test_(x)'};
        return %s.map((text) => matcher(text)({...row}));
    })()"""
    yes = (
        *("", "test_(x)", "topic:python.*", "topic:*.failed", "topic:*test*", "host:laptop"),
        *("PYTEST -ruff", "-source:ruff", "topic:python.*.failed severity:error", "topic:*", "-"),
    )
    no = (
        *("topic:python", "topic:*.passed", "topic:python.*.x", "host:lap", "-pytest", "test_.x."),
        *("topic:python.test.failed*d", "source:ruff", "pytest severity:warn", ".*"),
    )

    def look(s: Served, page: Browser) -> None:
        assert page.js(found % list(yes)) == [True] * len(yes)
        assert page.js(found % list(no)) == [False] * len(no)

    looked_at(monkeypatch, _nothing, look)


def test_pictures(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of no story do two boxes of the picture cover each other, and each stands to the right of
    what led to it."""
    wrong = """(async () => {
        const {layout} = await import('/page/story.js');
        let seed = 7;
        const random = (n) => (seed = seed * 48271 % 2147483647) % n;
        const wrong = [];
        for (let round = 0; round < 200; round++) {
            const nodes = [];
            for (let n = 0; n < 1 + random(60); n++) {
                const run = random(3) === 0;
                nodes.push({kind: run ? 'run' : 'event', id: `${n}`,
                    above: random(8) ? `${random(n || 1)}` : null,
                    steps: Array(run ? random(9) : 0).fill({})});
                if (nodes[n].above === `${n}`) nodes[n].above = null;
            }
            const {order, high} = layout(nodes);
            if (order.length !== nodes.length) wrong.push(['lost', round]);
            for (const a of nodes) {
                if (a.y + a.high > high) wrong.push(['below', round, a.id]);
                if (a.above !== null && nodes[a.above].x >= a.x) wrong.push(['left', round, a.id]);
                for (const b of nodes)
                    if (a !== b && a.x === b.x && a.y < b.y + b.high && b.y < a.y + a.high)
                        wrong.push(['over', round, a.id, b.id]);
            }
        }
        return wrong.slice(0, 5);
    })()"""

    def look(s: Served, page: Browser) -> None:
        assert page.js(wrong) == []

    looked_at(monkeypatch, _nothing, look)


def test_the_command(nats_server: EmbeddedServer) -> None:
    """`opsmesh web` prints where it is; the address lets a browser in, without its token none; a
    port that is taken is said; SIGTERM ends it without a word, also while a page is open."""
    call = [sys.executable, "-m", "opsmesh.cli.entry", "web", "--port"]
    process = subprocess.Popen(
        [*call, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        told = process.stdout.readline()
        found = re.fullmatch(r"serving (http://127\.0\.0\.1:(\d+)/)#token=\S{43}\n", told)
        assert found is not None, told
        taken = subprocess.run([*call, found[2]], capture_output=True, text=True, check=False)
        assert (taken.returncode, "opsmesh web --port 0" in taken.stderr) == (1, True)
        with browser() as page:
            page.go(found[1])
            page.until("document.body.innerText.includes('may not look yet')")
            page.go(told.split()[1])  # pasted into the same tab
            page.until("document.querySelector('.badge').textContent === 'down'")
            page.until("document.getElementById('line').textContent.endsWith('up --detach')")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            page.until("document.getElementById('line').textContent.includes('server is away')")
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
