"""The page in a real browser: it shows the fleet without a complaint, whatever peers call themselves."""

import asyncio
from dataclasses import replace

import pytest
from harness.fleet_api import broker_of, orchestrator, url_of
from harness.fleet_browser import CHROMIUM, browser_page
from harness.fleet_world import TARGET, SimulatedEdge, SimulatedVerifier, small_fleet, telling

from paceline.control.messages import EdgePolicy, Presence
from paceline.mqtt.link import control_link
from paceline.topics import EDGE_POLICY, EDGE_PRESENCE, EDGE_TELEMETRY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

HOSTILE = "<img/src=x/onerror=document.title='owned'>"
"""Without a space, so that it passes for a host's name as well."""


def test_the_page_shows_a_live_fleet_and_says_when_it_is_lost() -> None:
    edges = small_fleet(6)
    verifier = SimulatedVerifier(verifier_id="gpu-a", address="gpu-a:50051")

    async def scenario() -> None:
        with orchestrator() as child:
            async with (
                telling(broker_of(child), edges, [verifier], interval_s=0.3),
                browser_page() as page,
            ):
                await page.open(url_of(child))
                await page.until(
                    "document.querySelectorAll('.grid-row:not([hidden])').length === 6"
                )
                await page.until("document.querySelectorAll('.verifier strong').length === 1")
                await page.until("document.querySelectorAll('.chart.draft path.line').length > 0")
                assert (
                    await page.evaluate("document.getElementById('tile-online').textContent") == "6"
                )
                assert (
                    await page.evaluate("document.getElementById('live-pill').textContent")
                    == "live"
                )

                # Sorted by a header, chosen by a row, found by the filter.
                await page.evaluate("document.querySelector('.c-id button').click()")
                await page.until(
                    "document.querySelector('.c-id').getAttribute('aria-sort') === 'ascending'"
                )
                await page.evaluate("document.querySelector('[data-edge=robot-01]').click()")
                await page.until(
                    "document.getElementById('detail-title').textContent === 'robot-01'"
                )
                await page.evaluate(
                    "(() => { const field = document.getElementById('filter'); field.value = 'laptop'; "
                    "field.dispatchEvent(new Event('input')); })()"
                )
                await page.until(
                    "document.querySelectorAll('.grid-row:not([hidden])').length === 1"
                )

                # An operator's order from the page reaches the edge.
                await page.evaluate(
                    "(() => { document.getElementById('pin-length').value = '2'; "
                    "document.getElementById('pin-form').requestSubmit(); })()"
                )
                await page.until(
                    "document.getElementById('pin-note').textContent === 'Pinned to 2.'"
                )
                await page.until("!document.getElementById('release').disabled")
                await page.look(width=390, height=844, dark=True, mobile=True)
                await page.until("document.documentElement.scrollWidth <= 390")
                assert page.complaints == []
                await asyncio.to_thread(child.kill)
                await page.until("!document.getElementById('banner').hidden")
                lost = await page.evaluate("document.getElementById('banner').textContent")
                assert "connection to the orchestrator is lost" in lost

    asyncio.run(scenario())
    assert next(edge for edge in edges if edge.edge_id == "robot-01").draft_length == 2


def test_hostile_names_do_not_become_markup() -> None:
    """Ids are checked where messages are read; addresses, models and explanations may hold anything."""
    edge = SimulatedEdge(edge_id="evil", verifier=f"{HOSTILE}:1")
    evil = SimulatedVerifier(
        verifier_id="evil",
        address=f"{HOSTILE}:1",
        target=replace(TARGET, name=HOSTILE, dtype="float32"),
    )

    async def scenario() -> None:
        with orchestrator() as child:
            async with (
                telling(broker_of(child), [], [evil], interval_s=0.3),
                control_link(broker_of(child), name="liar") as liar,
                browser_page() as page,
            ):
                policy = EdgePolicy(revision=9, draft_length=3, window=6, explanation=HOSTILE)
                liar.publish(EDGE_POLICY, "evil", policy)
                liar.publish(
                    EDGE_PRESENCE, "evil", Presence(online=True, incarnation=edge.incarnation)
                )
                liar.publish(EDGE_TELEMETRY, "evil", edge.advance(5.0))
                await page.open(url_of(child))
                await page.until(
                    "document.querySelectorAll('.grid-row:not([hidden])').length === 1"
                )
                await page.until(
                    "document.querySelector('.grid-row .c-verifier').textContent.startsWith('<img')"
                )
                await page.until(
                    "document.querySelector('.verifier code').textContent.startsWith('<img')"
                )
                assert await page.evaluate("document.querySelectorAll('main img').length") == 0
                assert await page.evaluate("document.title") == "Paceline fleet"
                assert page.complaints == []

    asyncio.run(scenario())


def test_thousands_of_edges_stay_a_handful_of_rows() -> None:
    edges = [SimulatedEdge(edge_id=f"e{number:04}", seed=number) for number in range(2000)]

    async def scenario() -> None:
        with orchestrator() as child:
            async with (
                control_link(broker_of(child), name="many") as link,
                browser_page() as page,
            ):
                for edge in edges:
                    link.publish(EDGE_TELEMETRY, edge.edge_id, edge.advance(5.0))
                await page.open(url_of(child))
                await page.until(
                    "document.getElementById('edges-note').textContent === '2,000 edges'"
                )
                in_page = "document.querySelectorAll('.grid-row:not([hidden])').length"
                assert await page.evaluate(in_page) < 60
                await page.evaluate("document.getElementById('edges-body').scrollTop = 1e9")
                await page.until("document.querySelector('[aria-rowindex=\"2000\"]') !== null")
                assert page.complaints == []

    asyncio.run(scenario())


def test_a_page_without_the_key_asks_for_it() -> None:
    async def scenario() -> None:
        with orchestrator("--api-key", "open sesame") as child:
            async with browser_page() as page:
                await page.open(url_of(child))
                await page.until("document.getElementById('key-dialog').open")
                await page.evaluate(
                    "(() => { document.getElementById('key').value = 'open sesame'; "
                    "document.getElementById('key-form').requestSubmit(); })()"
                )
                await page.until("document.getElementById('live-pill').textContent === 'live'")

    asyncio.run(scenario())
