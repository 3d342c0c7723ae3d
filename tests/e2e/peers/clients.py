"""Clients that the world uses, unmodified, against AION: `clients.py http://ADDRESS TOKEN`."""

import asyncio
import sys

base, token = sys.argv[1:]


def openai_client():
    import openai

    client = openai.OpenAI(base_url=base + "/v1", api_key=token, max_retries=0)
    assert "tiny" in [model.id for model in client.models.list()]
    messages = [{"role": "user", "content": "hi"}]
    said = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20)
    assert (said.choices[0].message.content, said.usage.total_tokens) == ("Hello", 7), said
    stream = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20, stream=True)
    text = "".join(part.choices[0].delta.content or "" for part in stream if part.choices)
    assert text == "Hello", text
    embedded = client.embeddings.create(model="tiny", input="x", encoding_format="float")
    assert embedded.data[0].embedding == [0.5, 0.25], embedded
    for attempt, error in [
        (lambda: client.chat.completions.create(model="none", messages=messages), openai.NotFoundError),
        (lambda: client.with_options(api_key="sk-wrong").models.list(), openai.AuthenticationError),
    ]:
        try:
            attempt()
        except error:
            continue
        raise AssertionError(f"no {error.__name__}")


def langchain_client():
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    chat = ChatOpenAI(model="tiny", base_url=base + "/v1", api_key=token, max_tokens=20)
    assert chat.invoke("hi").content == "Hello"
    assert "".join(part.content for part in chat.stream("hi")) == "Hello"
    embeddings = OpenAIEmbeddings(model="tiny", base_url=base + "/v1", api_key=token, check_embedding_ctx_length=False)
    assert len(embeddings.embed_query("x")) == 2


async def mcp_client():
    import httpx
    from mcp import ClientSession
    from mcp.client import streamable_http as transport

    headers = {"Authorization": f"Bearer {token}"}
    if hasattr(transport, "streamable_http_client"):
        connection = transport.streamable_http_client(base + "/mcp", http_client=httpx.AsyncClient(headers=headers))
    else:
        connection = transport.streamablehttp_client(base + "/mcp", headers=headers)
    async with connection as streams, ClientSession(streams[0], streams[1]) as session:
        await session.initialize()
        assert "web_search" in [tool.name for tool in (await session.list_tools()).tools]
        found = await session.call_tool("web_search", {"query": "seccomp"})
        assert "items" in str(found), found


openai_client()
print("openai ok", flush=True)
langchain_client()
print("langchain ok", flush=True)
asyncio.run(mcp_client())
print("mcp ok", flush=True)
