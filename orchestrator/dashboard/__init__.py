"""The dashboard's page: files of this package, read once and served from memory.

No build step, no external resources, no inline scripts or styles: the Content-Security-Policy forbids them.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file of the page."""

    content_type: str
    content: bytes
    tag: str
    """Changes with the content, so that a browser keeps what it has until then."""


def assets() -> dict[str, Asset]:
    """Return the files of the page by their paths; the page itself is at /."""
    found = {}
    for file in (files(__name__) / "page").iterdir():
        content = file.read_bytes()
        found["/" if file.name == "index.html" else f"/{file.name}"] = Asset(
            content_type=_TYPES[file.name[file.name.rindex(".") :]],
            content=content,
            tag=hashlib.sha256(content).hexdigest()[:16],
        )
    return found
