"""deploy/compose.yaml without a container engine: each service's own command as a plain process of this machine.

What is mapped, and nothing else: a service's name as a host and 0.0.0.0 become 127.0.0.1, a port of a service a free one of
this machine, /run/secrets the folder with the secrets, the volume /var/lib/paceline a folder for the service.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from harness.deployment import DEPLOY
from harness.processes import free_port

_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


class Composition:
    """The services of the compose file.

    Args:
        folder: for volumes.
        secrets: the folder with the secrets.
        variables: what the user would set in the environment.
    """

    def __init__(self, folder: Path, *, secrets: Path, variables: Mapping[str, str]) -> None:
        text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
        text = _VARIABLE.sub(lambda match: variables.get(match[1], match[2]), text)
        composed = yaml.safe_load(text)
        self.services: dict[str, Any] = composed["services"]
        self._secret_files = {
            name: secret["file"].removeprefix("./secrets/")
            for name, secret in composed["secrets"].items()
        }
        self._folder = folder
        self._secrets = secrets
        self._ports: dict[tuple[str, int], int] = {}

    def port(self, service: str, port: int) -> int:
        """Return the port of this machine that stands for one of a service."""
        return self._ports.setdefault((service, port), free_port())

    def command(self, service: str) -> list[str]:
        """Return what the service runs, behind the image's entry point."""
        return [self._mapped(service, part) for part in self.services[service]["command"]]

    def _mapped(self, service: str, part: str) -> str:
        names = "|".join(map(re.escape, self.services))
        part = re.sub(
            rf"\b({names}|0\.0\.0\.0):(\d+)\b",
            lambda match: (
                f"127.0.0.1:{self.port(service if match[1] == '0.0.0.0' else match[1], int(match[2]))}"
            ),
            part,
        )
        volume = self._folder / service
        volume.mkdir(exist_ok=True)
        part = part.replace("/var/lib/paceline", str(volume))
        return re.sub(
            r"/run/secrets/([\w.-]+)",
            lambda match: str(self._secrets / self._secret_files[match[1]]),
            part,
        )


def shell_blocks(page: Path) -> list[str]:
    """Return the commands of a page, block by block."""
    return re.findall(
        r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
