"""aion_sdk against a real AION, over signed HTTP: both clients, their errors, memories, events, and an agent with hooks.

    sdk.py    with AION_URL, AION_TENANT, AION_SECRET_FILE and AION_AGENT in the environment
"""

import asyncio
import os
import queue
import threading

from aion_sdk import Agent, AsyncSyscallClient, Denied, NotFound, Secret, SyscallClient, Unauthenticated


def blocking():
    with SyscallClient.from_env() as aion:
        answer = aion.tool("web_search", query="control groups")
        assert answer.result["items"][0]["title"] == "Control groups", answer
        assert answer.audit_id and answer.engine.name.startswith("tooling/web_search@"), answer
        aion.memory.put("a", {"n": 1}, meta={"kind": "t"})
        aion.memory.put("b", [2], meta={"kind": "t"}, ttl_s=600)
        assert aion.memory.get("a").value == {"n": 1}
        assert [memory.key for memory in aion.memory.query(filter={"kind": "t"})] == ["a", "b"]
        aion.memory.delete("a")
        try:
            aion.memory.get("a")
            raise AssertionError("it was deleted")
        except NotFound:
            pass
        try:
            aion.call("tool.list")
            raise AssertionError("it is not on the agent's list")
        except Denied as denied:
            assert denied.rule and denied.audit_id, denied
        # Calls at once share the client.
        threads = [threading.Thread(target=lambda n=n: aion.memory.put(f"t{n}", n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(memory.value for memory in aion.memory.query(filter={"key_prefix": "t"})) == list(range(8))
        wrong = SyscallClient(os.environ["AION_URL"], tenant=os.environ["AION_TENANT"], secret=Secret("a wrong secret of some length"), agent="researcher-1")
        try:
            wrong.memory.get("b")
            raise AssertionError("it was signed with another secret")
        except Unauthenticated:
            pass


async def coroutines():
    async with AsyncSyscallClient.from_env() as aion:
        answers = await asyncio.gather(*(aion.call("memory.put", {"key": f"c{n}", "value": n}) for n in range(8)))
        assert all(answer.audit_id and answer.engine.kind == "kernel" for answer in answers), answers
        heard = asyncio.Event()

        async def listen():
            async for event in aion.events("kernel.syscalls"):
                assert event.data["kind"] == "api.syscall", event
                heard.set()
                return

        listening = asyncio.ensure_future(listen())
        for _ in range(100):
            await aion.memory.get("c1")
            if heard.is_set():
                break
            await asyncio.sleep(0.1)
        await asyncio.wait_for(listening, 20)


class Hooked(Agent):
    def on_start(self):
        said.put(self.client.memory.get("b").value)
        self.stop()

    def on_stop(self):
        said.put("stop")


said: queue.Queue = queue.Queue()
blocking()
asyncio.run(coroutines())
Hooked.from_env(heartbeat_s=1).run()
assert [said.get(timeout=5), said.get(timeout=5)] == [[2], "stop"]
print("ok")
