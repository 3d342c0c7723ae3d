"""The SDK of AION: system calls, memories, events, and agents with hooks. Standard library only.

    from aion_sdk import SyscallClient

    with SyscallClient.from_env() as aion:
        answer = aion.tool("web_search", query="compost")
        aion.memory.put("last", answer.result)

AsyncSyscallClient is the same for asyncio. Tasks are served by `aion_runtime`, which Agent uses where AION gives it tasks.
"""

from typing import Any

from .agent import Agent, Task
from .aio import AsyncSyscallClient
from .answer import Answer, Engine, Usage
from .client import SyscallClient
from .errors import (
    AionError,
    BudgetExceeded,
    Denied,
    NotFound,
    ProtocolError,
    RateLimited,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from .events import AsyncEventStream, Event, EventStream
from .memory import AsyncMemoryClient, Memory, MemoryClient, Page
from .settings import Secret, Settings, settings_from_env


def from_env(**options: Any) -> SyscallClient:
    """A client as the environment says; see SyscallClient.from_env."""
    return SyscallClient.from_env(**options)


__all__ = [
    "Agent",
    "AionError",
    "Answer",
    "AsyncEventStream",
    "AsyncMemoryClient",
    "AsyncSyscallClient",
    "BudgetExceeded",
    "Denied",
    "Engine",
    "Event",
    "EventStream",
    "Memory",
    "MemoryClient",
    "NotFound",
    "Page",
    "ProtocolError",
    "RateLimited",
    "Secret",
    "Settings",
    "SyscallClient",
    "Task",
    "Timeout",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "from_env",
    "settings_from_env",
]
