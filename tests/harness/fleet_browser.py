"""A headless Chromium that opens one page, spoken to over its debugging protocol."""

import asyncio
import base64
import contextlib
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")
START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 30.0


class Page:
    """One open page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        """What the page wrote to its console as an error or warning, exceptions and violations of its policy included."""
        self._socket = socket
        self._loaded = asyncio.Event()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def read(self) -> None:
        """Read answers and events for ever."""
        async for message in self._socket:
            value = message.json()
            if "id" in value:
                waiting = self._waiting.pop(value["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(value)
            else:
                self._note(value["method"], value["params"])

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Return the result of one command."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            answer = await self._waiting[number]
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str, *, width: int = 1400, height: int = 1000, **look: Any) -> None:
        """Load a page; `dark` and `mobile` say how it is looked at."""
        await self.call("Page.enable")
        await self.call("Runtime.enable")
        await self.call("Log.enable")
        await self.look(width=width, height=height, **look)
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await self._loaded.wait()

    async def look(
        self, *, width: int, height: int, dark: bool = False, mobile: bool = False
    ) -> None:
        """Set the size and the colours that the user prefers."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page, awaited if it is a promise."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, condition: str, *, timeout_ms: int = 20_000) -> None:
        """Wait, in the page, until a condition holds."""
        holds = await self.evaluate(
            f"new Promise((done) => {{ const end = Date.now() + {timeout_ms}; "
            # What is not there yet does not hold yet.
            f"const holds = () => {{ try {{ return {condition}; }} catch {{ return false; }} }}; "
            "const look = () => holds() ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 50); look(); })"
        )
        assert holds, f"{condition}: did not come to hold; {self.complaints}"

    async def screenshot(self, *, full: bool = False) -> bytes:
        """Return a picture (PNG) of what is in sight, or of the whole page."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        return base64.b64decode(answer["data"])

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            entry = parameters["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.complaints.append(str(parameters["args"]))


@contextlib.asynccontextmanager
async def browser_page() -> AsyncIterator[Page]:
    """Give a blank page of a new browser, which is gone afterwards."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM,
            *(
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-breakpad",
            ),
            *("--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(START_TIMEOUT_S):
                address = ""
                while "DevTools listening on ws://" not in address:
                    address = (await process.stderr.readline()).decode()
                    assert address, "chromium ended"
            host = address.rpartition("ws://")[2].partition("/")[0]
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{host}/json/list") as answer,
            ):
                pages = [page for page in await answer.json() if page["type"] == "page"]
                async with session.ws_connect(
                    pages[0]["webSocketDebuggerUrl"], max_msg_size=0
                ) as socket:
                    page = Page(socket)
                    async with asyncio.TaskGroup() as group:
                        reader = group.create_task(page.read())
                        drain = group.create_task(process.stderr.read())
                        try:
                            yield page
                        finally:
                            reader.cancel()
                            drain.cancel()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
