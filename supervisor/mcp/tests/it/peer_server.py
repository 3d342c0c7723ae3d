"""A server of the official Python SDK, on its standard input and output, for the tests of the client."""

import asyncio

try:
    from mcp.server.mcpserver import Context, MCPServer as Server
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError:  # the SDK before its second version
    from mcp.server.fastmcp import Context, FastMCP as Server
    from mcp.server.fastmcp.exceptions import ToolError

server = Server("python-peer", instructions="for tests")
cancelled = 0


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def fail() -> str:
    """Fails."""
    raise ToolError("disk full")


@server.tool()
async def slow() -> str:
    """Takes a minute, unless it is cancelled."""
    global cancelled
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled += 1
        raise
    return "done"


@server.tool()
def cancellations() -> int:
    """Says how many calls were cancelled."""
    return cancelled


@server.tool()
async def roots(ctx: Context) -> str:
    """Asks the client for what it does not offer."""
    try:
        await ctx.session.list_roots()
    except Exception as error:  # whatever the SDK makes of the refusal
        return f"refused: {error}"
    return "answered"


server.run(transport="stdio")
