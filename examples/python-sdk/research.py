"""Asks a tool, remembers what it said, and asks the memory first the next time. Runs anywhere that reaches the kernel's port.

    printf %s "$(openssl rand -hex 32)" > ~/demo.secret
    aionctl tenant add demo --secret-file ~/demo.secret
    export AION_TENANT=demo AION_SECRET_FILE=~/demo.secret AION_AGENT=researcher PYTHONPATH=sdk/python
    python3 examples/python-sdk/research.py compost

It registers `agent://demo/researcher` with the capability `network`, which the tool web_search requires. With --offline it registers
`researcher-offline` without it, and shows how a denial names its rule.
"""

import argparse
import sys

from aion_sdk import AionError, Denied, NotFound, SyscallClient


def search(aion: SyscallClient, query: str) -> list:
    key = f"search:{query}"
    try:
        found = aion.memory.get(key)
        print(f"remembered since {found.created_ns // 1_000_000_000}")
        return found.value
    except NotFound:
        pass
    answer = aion.call("tool.invoke", {"tool": "web_search", "query": query}, usd_max=0.05, latency_ms=10_000)
    print(f"{answer.engine.name}: {answer.usage.latency_ms} ms, {answer.usage.cost_usd} USD, {answer.audit_id}")
    items = answer.result["items"]
    aion.memory.put(key, items, meta={"tool": "web_search"}, ttl_s=600)
    return items


def main() -> int:
    parser = argparse.ArgumentParser(description="searches, and remembers what it found")
    parser.add_argument("query")
    parser.add_argument("--offline", action="store_true", help="without the capability that the tool requires")
    args = parser.parse_args()
    name = "researcher-offline" if args.offline else None
    with SyscallClient.from_env(agent=name) as aion:
        try:
            aion.register(version="1.0.0", capabilities={"network": not args.offline})
            for item in search(aion, args.query):
                print(f"- {item}")
            kept = [memory.key for memory in aion.memory.query(filter={"tool": "web_search"})]
            print(f"{aion.agent_id} remembers {len(kept)}: {', '.join(kept)}")
        except Denied as denied:
            print(f"denied: {denied.message}\nby {denied.rule}; aionctl explain {denied.audit_id}", file=sys.stderr)
            return 5
        except AionError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
