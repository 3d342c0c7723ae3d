"""An agent that lives in a sandbox: it asks a tool, keeps the answer in memory, hears of its own calls, and ends.

Where AION_RUNTIME_SOCKET is set and no secret is named, aion_sdk speaks over the agent's own socket, and the kernel of the host says who
calls. Each line that this prints is JSON.
"""

import asyncio
import json
import queue
import sys
import threading

from aion_sdk import Agent, AsyncSyscallClient, Denied


def say(**what):
    print(json.dumps(what), flush=True)


class Researcher(Agent):
    def on_start(self):
        heard = queue.Queue()
        threading.Thread(target=self.listen, args=(heard,), daemon=True).start()
        query = " ".join(sys.argv[1:]) or "compost"
        answer = self.client.tool("web_search", query=query)
        say(titles=[item["title"] for item in answer.result["items"]], engine=answer.engine.name)
        self.client.memory.put("last", answer.result, meta={"topic": query}, ttl_s=600)
        asyncio.run(self.remember(query))
        try:
            self.client.call("tool.list")
        except Denied as denied:
            say(denied=denied.rule)
        event = None
        while event is None:
            try:
                event = heard.get(timeout=0.2)
            except queue.Empty:
                # The stream may have begun after what there was to hear.
                self.client.memory.get("last")
        say(heard=event.topic, kind=event.data["kind"])
        self.stop()

    def listen(self, heard):
        with self.client.events("kernel.syscalls") as events:
            heard.put(next(events))

    async def remember(self, topic):
        async with AsyncSyscallClient.from_env() as client:
            kept = [memory.key async for memory in client.memory.query(filter={"topic": topic})]
            say(remembered=kept)

    def on_stop(self):
        say(stopped=True)


if __name__ == "__main__":
    Researcher.from_env().run()
