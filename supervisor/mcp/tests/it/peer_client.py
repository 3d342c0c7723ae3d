"""A client of the official Python SDK over streamable HTTP, for the tests of the server."""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.types import PaginatedRequestParams

try:
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client as connect
except ImportError:  # the SDK before its second version
    from mcp.client.streamable_http import streamablehttp_client as connect

    Client = None


def get(value, snake, camel):
    """The two versions of the SDK name fields differently."""
    return getattr(value, snake) if hasattr(value, snake) else getattr(value, camel)


async def use(session):
    tools, cursor = [], None
    while not tools or cursor:
        if isinstance(session, ClientSession):
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        else:
            page = await session.list_tools(cursor=cursor)
        tools += [tool.name for tool in page.tools]
        cursor = get(page, "next_cursor", "nextCursor")
    added = await session.call_tool("add", {"a": 2, "b": 3})
    failed = await session.call_tool("fails", {})
    try:
        await session.call_tool("no such", {})
        unknown = None
    except Exception as error:
        unknown = get(error, "error", "error").code
    return {
        "tools": tools,
        "structured": get(added, "structured_content", "structuredContent"),
        "text": added.content[0].text,
        "failed": [get(failed, "is_error", "isError"), failed.content[0].text],
        "unknown": unknown,
    }


async def main(url):
    reports = []
    async with connect(url) as streams:
        async with ClientSession(streams[0], streams[1]) as session:
            hello = await session.initialize()
            report = await use(session)
            report["revision"] = get(hello, "protocol_version", "protocolVersion")
            reports.append(report)
    if Client is not None:
        # It first asks for what only later revisions have, and then falls back.
        async with Client(url) as client:
            reports.append(await use(client))
    print(json.dumps(reports))


asyncio.run(main(sys.argv[1]))
