"""Where the kernel is, and who calls it. A secret never shows in what is printed, compared or pickled."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

DEFAULT_PORT = 8010
_TENANT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_AGENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# A file that is larger holds something else.
_MAX_SECRET_FILE = 1 << 16


class Secret:
    """A tenant's secret. `repr` and `str` do not show it."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | str) -> None:
        data = value.encode() if isinstance(value, str) else bytes(value)
        if not data:
            raise ValueError("the secret is empty")
        self._value = data

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Secret:
        """Reads it from a file; one line feed at the end is not part of it, as for aionctl.

        Raises OSError when the file cannot be read, ValueError when it is empty or too large.
        """
        with open(path, "rb") as file:
            data = file.read(_MAX_SECRET_FILE + 1)
        if len(data) > _MAX_SECRET_FILE:
            raise ValueError(f"{os.fspath(path)} is too large for a secret")
        if data.endswith(b"\n"):
            data = data[:-1]
        return cls(data)

    def sign(self, message: bytes) -> str:
        """The HMAC-SHA256 of a message, in lower-case hexadecimal."""
        return hmac.new(self._value, message, hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled; give its file to the other process")


@dataclass(frozen=True)
class Settings:
    """Where the kernel is, and who calls it. `agent` is a name, or an address as `agent://tenant/name`; `agent_id` is the address.

    `url` may be `unix:PATH`, an agent's own socket: there the kernel knows who calls, nothing is signed, and tenant, secret and agent are
    left out.
    """

    url: str
    tenant: str = ""
    secret: Secret | None = None
    agent: str = ""
    replay_protection: bool = True

    def __post_init__(self) -> None:
        if self.socket_path is not None:
            if not self.socket_path.startswith("/"):
                raise ValueError(f"{self.url!r} is no socket; write it as unix:/run/aion/kernel.sock")
            if self.tenant or self.secret is not None or self.agent:
                raise ValueError("on an agent's own socket the kernel knows who calls: leave tenant, secret and agent out")
            return
        if self.secret is None:
            raise ValueError("the secret is missing: requests over HTTP are signed")
        if not _TENANT.fullmatch(self.tenant):
            raise ValueError(f"{self.tenant!r} is not a tenant's name")
        name = self.agent.removeprefix(f"agent://{self.tenant}/")
        if not _AGENT.fullmatch(name):
            raise ValueError(f"{self.agent!r} is no agent of tenant {self.tenant}; write its name, or agent://{self.tenant}/NAME")
        self.host_and_port()

    @property
    def socket_path(self) -> str | None:
        """The socket's path; None: the kernel is reached over TCP."""
        return self.url.removeprefix("unix:").removeprefix("//") if self.url.startswith("unix:") else None

    @property
    def agent_id(self) -> str:
        """The agent's address; empty on its own socket, which says it."""
        if not self.agent:
            return ""
        return f"agent://{self.tenant}/{self.agent.rsplit('/', 1)[-1]}"

    @property
    def agent_name(self) -> str:
        """The agent's name."""
        return self.agent.rsplit("/", 1)[-1]

    def host_and_port(self) -> tuple[str, int]:
        """Where to connect to."""
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
            raise ValueError(f"{self.url!r} is not the URL of a kernel; write it as http://127.0.0.1:{DEFAULT_PORT}")
        return parts.hostname, parts.port or 80


def settings_from_env(environ: Mapping[str, str] | None = None, *, agent: str | None = None, replay_protection: bool = True) -> Settings:
    """Reads AION_URL (else AION_HTTP, else AION_KERNEL_PORT on this host), AION_TENANT, AION_SECRET_FILE and AION_AGENT.

    Where AION_URL is `unix:PATH`, or AION_RUNTIME_SOCKET is set and AION_SECRET_FILE is not, it is the agent's own socket, and nothing else
    is read.
    `agent` stands in for AION_AGENT; in a sandbox its AION_AGENT_NAME does, too. Raises ValueError when one is missing or wrong, OSError
    when the secret cannot be read.
    """
    env = os.environ if environ is None else environ
    own = env.get("AION_RUNTIME_SOCKET") or ""
    if env.get("AION_URL", "").startswith("unix:"):
        return Settings(env["AION_URL"])
    if own and not env.get("AION_SECRET_FILE"):
        return Settings(f"unix:{own}")
    url = env.get("AION_URL") or env.get("AION_HTTP") or f"http://127.0.0.1:{env.get('AION_KERNEL_PORT') or DEFAULT_PORT}"
    found = {name: env.get(name) or "" for name in ("AION_TENANT", "AION_SECRET_FILE", "AION_AGENT")}
    found["AION_AGENT"] = agent or found["AION_AGENT"] or env.get("AION_AGENT_NAME") or ""
    missing = [name for name, value in found.items() if not value]
    if missing:
        raise ValueError(f"{', '.join(missing)}: not in the environment")
    secret = Secret.from_file(found["AION_SECRET_FILE"])
    return Settings(url, found["AION_TENANT"], secret, found["AION_AGENT"], replay_protection)
