"""Both clients against a door that checks every signature and misbehaves: the same tests, and the same outcome."""

import asyncio
import inspect
import json
import os
import pickle
import socket
import tempfile
import threading
import unittest
from unittest import mock

from aion_sdk import (
    AionError,
    AsyncSyscallClient,
    BudgetExceeded,
    Denied,
    NotFound,
    ProtocolError,
    RateLimited,
    Secret,
    Settings,
    SyscallClient,
    Timeout,
    Unauthenticated,
    Unavailable,
    from_env,
)
from aion_sdk.retries import Retries, within
from door import SECRET, TENANT, Door, answered, cut, drip, hang, in_chunks, ok, ordinary, raw, refuse


class Blocking:
    """The client for asyncio, as if it were the other."""

    def __init__(self, inner, loop):
        self._inner, self._loop = inner, loop

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if name == "memory":
            return Blocking(found, self._loop)
        if inspect.isasyncgenfunction(found):
            return lambda *a, **k: iter(self._loop.run_until_complete(gather(found(*a, **k))))
        if inspect.iscoroutinefunction(found):
            return lambda *a, **k: self._loop.run_until_complete(found(*a, **k))
        return found


async def gather(items):
    return [item async for item in items]


class Calls:
    """What holds for both."""

    def setUp(self):
        self.door = Door()
        self.addCleanup(self.door.close)
        self.client = self.make()

    def call(self, *args, **more):
        return self.client.call("tool.invoke", {"tool": "t"}, *args, **more)

    def fails(self, kind, **more):
        with self.assertRaises(kind) as caught:
            self.call(**more)
        self.assertIs(type(caught.exception), kind)
        return caught.exception

    def served(self):
        return len(self.door.requests)

    # What is sent.

    def test_a_call_is_the_contract_s(self):
        answer = self.client.call(
            "tool.invoke",
            {"tool": "web_search", "query": "Übung\u2028 \U0001f331"},
            task_id="t-1",
            trace_id="abc",
            caps_required=("network",),
            usd_max=0.05,
            tokens_max=10,
            latency_ms=3000,
        )
        expected = {
            "schema": "aion.syscall.v1",
            "syscall": "tool.invoke",
            "agent_id": "agent://tenantA/researcher",
            "context": {"task_id": "t-1", "trace_id": "abc"},
            "params": {"tool": "web_search", "query": "Übung\u2028 \U0001f331"},
            "caps_required": ["network"],
            "budget": {"usd_max": 0.05, "tokens_max": 10, "latency_ms": 3000},
        }
        self.assertEqual(answer.result, expected)
        self.assertEqual((answer.usage.latency_ms, answer.usage.cost_usd, answer.usage.tokens_in, answer.usage.tokens_out), (3, 0.002, 5, 7))
        self.assertEqual((answer.engine.kind, answer.engine.name, answer.audit_id), ("module", "tooling/web_search@1.2.0", "sc-1"))
        self.assertFalse(answer.usage.estimated)
        self.assertEqual(self.door.wrong, [])

    def test_what_is_not_said_is_not_sent(self):
        sent = self.client.tool("web_search", query="x").result
        self.assertEqual(set(sent), {"schema", "syscall", "agent_id", "context", "params"})
        self.assertEqual((sent["context"], sent["params"]), ({}, {"tool": "web_search", "query": "x"}))
        self.assertEqual(self.client.call("memory.stat", usd_max=0).result["budget"], {"usd_max": 0})

    def test_both_forms_of_the_signature(self):
        for timed in (True, False):
            self.make(replay_protection=timed).call("a.b")
            headers = self.door.requests[-1][2]
            self.assertEqual("X-Nonce" in headers, timed)
        self.assertEqual(self.door.wrong, [])

    def test_each_request_has_a_nonce_of_its_own_also_when_it_is_tried_again(self):
        self.door.next(refuse(429, "RESOURCE_EXHAUSTED", retry_after_ms=1))
        self.call()
        self.call()
        self.assertEqual(len(self.door.nonces), 3)

    def test_a_wrong_secret(self):
        with self.assertRaises(Unauthenticated) as caught:
            self.make(secret=b"another secret of some bytes").call("a.b")
        self.assertFalse(caught.exception.may_have_run)
        self.assertEqual(self.served(), 1)

    def test_register_heartbeat_submit(self):
        body = {"agent_id": "agent://tenantA/researcher", "name": "researcher", "version": "1.0.0", "capabilities": ["network"]}
        self.assertEqual(self.client.register(version="1.0.0", capabilities=["network"]), body)
        self.assertEqual(self.client.heartbeat(load=1), {"agent_id": "agent://tenantA/researcher", "load": 1})
        task = {"agent_id": "agent://tenantA/researcher", "task_id": "t", "intent": "count", "priority": 5, "quota": {}, "params": [1]}
        self.assertEqual(self.client.submit_task(task_id="t", intent="count", priority=5, quota={}, params=[1]), task)
        self.assertEqual(self.door.paths(), ["/v1/agent/register", "/v1/agent/heartbeat", "/v1/schedule/submit"])

    def test_what_cannot_be_sent_is_refused_here(self):
        for wrong in ("tool", "Tool.invoke", "../x.y", "a.b?c", "a b.c", "x." + "y" * 70):
            with self.assertRaises(ValueError):
                self.client.call(wrong)
        with self.assertRaises(ValueError):
            self.client.call("a.b", {"x": float("nan")})
        with self.assertRaises(TypeError):
            self.client.call("a.b", {"x": object()})
        with self.assertRaises(TypeError):
            self.client.call("a.b", caps_required="network")
        with self.assertRaises(ValueError):
            self.call(timeout=0)
        with self.assertRaises(AionError) as caught:
            self.client.call("a.b", {"x": "y" * (4 << 20)})
        self.assertEqual(caught.exception.code, "TOO_LARGE")
        self.assertEqual(self.served(), 0)

    def test_a_large_request_and_answer(self):
        text = "\u00e4" * 1_500_000
        self.assertEqual(self.client.call("a.b", {"x": text}).result["params"]["x"], text)

    # Memories.

    def test_memories(self):
        memory = self.client.memory
        self.assertEqual(memory.put("k1", {"a": [1]}, meta={"m": 1}, ttl_s=60), 60)
        self.assertEqual(memory.put("k1", "other", type="long"), 3600)
        got = memory.get("k1")
        self.assertEqual((got.key, got.type, got.value, got.meta, got.created_ns), ("k1", "short", {"a": [1]}, {"m": 1}, 5))
        self.assertEqual(memory.get("k1", type="long").value, "other")
        memory.delete("k1")
        with self.assertRaises(NotFound) as caught:
            memory.get("k1")
        self.assertEqual((caught.exception.code, caught.exception.field, caught.exception.audit_id), ("KEY_NOT_FOUND", "params.key", "sc-9"))

    def test_a_query_goes_through_all_pages(self):
        for n in range(7):
            self.client.memory.put(f"k{n}", n)
        self.client.memory.put("other", 0)
        before = self.served()
        found = list(self.client.memory.query(filter={"key_prefix": "k"}, page_size=3))
        self.assertEqual([m.value for m in found], list(range(7)))
        self.assertEqual(self.served() - before, 3)
        page = self.client.memory.page(limit=2, after="k1")
        self.assertEqual(([m.key for m in page.items], page.next), (["k2", "k3"], "k3"))

    def test_pages_that_go_in_circles_end(self):
        self.door.next(*[ok({"items": [], "next": "a"})] * 2)
        with self.assertRaises(ProtocolError):
            list(self.client.memory.query())
        for wrong in ({"items": 5, "next": None}, [], {"items": [{"value": 1}], "next": None}, {"items": [], "next": 5}):
            self.door.next(ok(wrong))
            with self.assertRaises(ProtocolError):
                list(self.client.memory.query())

    # Errors.

    def test_each_refusal_has_its_class(self):
        cases = [
            (403, "denied", "POLICY_DENIED", Denied),
            (403, "denied", "PERMISSION_DENIED", Denied),
            (429, "denied", "BUDGET_EXCEEDED", BudgetExceeded),
            (429, "denied", "RESOURCE_EXHAUSTED", RateLimited),
            (429, "denied", "QUOTA_EXCEEDED", RateLimited),
            (401, "denied", "UNAUTHENTICATED", Unauthenticated),
            (404, "error", "TOOL_NOT_FOUND", NotFound),
            (404, "error", "SYSCALL_UNKNOWN", NotFound),
            (400, "error", "INVALID_FIELD", AionError),
            (413, "error", "TOO_LARGE", AionError),
            (409, "error", "TASK_EXISTS", AionError),
            (504, "error", "DEADLINE_EXCEEDED", Timeout),
            (424, "error", "TOOL_FAILED", AionError),
            (502, "error", "MODEL_FAILED", AionError),
            (503, "error", "LAUNCHER_UNAVAILABLE", Unavailable),
            (503, "error", "A_NEW_CODE", Unavailable),
            (500, "error", "INTERNAL", AionError),
            (500, "ok", "INTERNAL", AionError),
            (500, "denied", "INTERNAL", AionError),
        ]
        for n, (http, status, code, kind) in enumerate(cases):
            self.door.next(refuse(http, code, status, "why", field="f", rule="r: 1", hint="do"))
            error = self.fails(kind)
            self.assertEqual(
                (error.code, error.message, error.field, error.rule, error.hint, error.audit_id, error.http_status, error.retry_after_ms),
                (code, "why", "f", "r: 1", "do", "sc-9", http, None),
            )
            self.assertEqual(error.may_have_run, (http == 424 or http >= 500) and status != "denied")
            self.assertEqual(self.served(), n + 1, "none of them is tried again")

    # Trying again.

    def test_429_and_503_with_a_time_are_tried_again(self):
        self.door.next(refuse(429, "RESOURCE_EXHAUSTED", "denied", retry_after_ms=1), refuse(503, "LAUNCHER_UNAVAILABLE", retry_after_ms=1))
        self.call()
        self.assertEqual(self.served(), 3)

    def test_not_for_ever(self):
        self.door.next(*[refuse(429, "RESOURCE_EXHAUSTED", "denied", retry_after_ms=0)] * 9)
        self.assertEqual(self.fails(RateLimited).retry_after_ms, 0)
        self.assertEqual(self.served(), 4)

    def test_not_later_than_it_may(self):
        self.door.next(refuse(429, "BUDGET_EXCEEDED", "denied", retry_after_ms=3_599_000))
        self.assertEqual(self.fails(BudgetExceeded).retry_after_ms, 3_599_000)
        self.client = self.make(max_wait=0.5)
        self.door.next(refuse(429, "RESOURCE_EXHAUSTED", "denied", retry_after_ms=1_000))
        self.fails(RateLimited)
        self.client = self.make(max_wait=1e6)
        self.door.next(refuse(429, "RESOURCE_EXHAUSTED", "denied", retry_after_ms=60_000))
        self.fails(RateLimited, timeout=30)
        self.assertEqual(self.served(), 3)

    def test_what_may_have_run_is_tried_again_only_when_asked(self):
        for step in (cut, raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"), raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")):
            before = self.served()
            self.door.next(step)
            error = self.fails(Unavailable)
            self.assertTrue(error.may_have_run)
            self.assertEqual(self.served() - before, 1)
            self.door.next(step)
            self.call(idempotent=True)
            self.assertEqual(self.served() - before, 3)

    def test_memory_is_read_again_and_put_only_when_asked(self):
        self.door.next(cut)
        with self.assertRaises(Unavailable):
            self.client.memory.put("k", 1)
        self.door.next(cut)
        self.client.memory.put("k", 1, idempotent=True)
        self.door.next(cut)
        self.assertEqual(self.client.memory.get("k").value, 1)
        self.assertEqual(self.served(), 5)

    def test_nobody_there(self):
        self.door.close()
        error = self.fails(Unavailable)
        self.assertEqual((error.code, error.may_have_run), ("DAEMON_UNAVAILABLE", False))

    def test_a_kernel_that_comes_up_is_waited_for(self):
        port = self.door.port
        self.door.close()
        started, pause_after = [], Retries.pause_after

        def start(retries, error):
            self.assertFalse(error.may_have_run)
            if not started:
                started.append(Door(port))
                self.addCleanup(started[0].close)
            return pause_after(retries, error)

        with mock.patch.object(Retries, "pause_after", start):
            self.call()
        self.assertEqual(len(started[0].requests), 1)

    # Misbehaviour.

    def test_no_answer(self):
        for idempotent in (False, True):
            self.door.ordinary = hang
            # On a busy machine the time may be over before the request has gone out.
            for _ in range(100):
                error = self.fails(Timeout, timeout=0.2, idempotent=idempotent)
                self.assertEqual(error.code, "DEADLINE_EXCEEDED")
                if error.may_have_run:
                    break
            self.assertTrue(error.may_have_run)
            self.door.ordinary = ordinary
            self.call()

    def test_an_answer_that_drips_does_not_extend_the_time(self):
        self.door.next(drip)
        self.fails(Timeout, timeout=0.2)

    def test_chunks_and_interim_answers(self):
        for _ in range(2):
            self.door.next(in_chunks(answered({"x": "y" * 100})))
            self.assertEqual(self.call().result, {"x": "y" * 100})
        self.assertEqual(self.door.connections, 1)

    def test_an_answer_up_to_the_end(self):
        self.door.next(raw(b'HTTP/1.0 200 OK\r\n\r\n{"status": "ok", "result": 5}'))
        self.assertEqual(self.call().result, 5)

    def test_an_answer_that_is_too_large(self):
        client = self.make(max_answer=1000)
        for step in (ok("x" * 1000), raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000), in_chunks("x" * 1000)):
            self.door.next(step)
            with self.assertRaises(ProtocolError) as caught:
                client.call("a.b")
            self.assertEqual(caught.exception.code, "TOO_LARGE")

    def test_garbage(self):
        head = b"HTTP/1.1 200 OK\r\n"
        for data in (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x00\xff" * 100,
            b"HTTP/1.1 2x0 OK\r\n\r\n",
            head + b"no colon\r\n\r\n",
            head + b" folded: 1\r\n\r\n",
            head + b"Content-Length: -1\r\n\r\n",
            head + b'Content-Length: 1\r\nContent-Length: 15\r\n\r\n{"status":"ok"}',
            head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            head + b"Transfer-Encoding: gzip\r\n\r\n",
            head + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
            head + b"X: " + b"y" * (1 << 17),
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            head + b"Content-Length: 4\r\n\r\nnull",
            head + b"Content-Length: 2\r\n\r\n{}",
            head + b'Content-Length: 16\r\n\r\n{"status": "wat"',
            head + b"\r\n" + b"[" * 100_000,
            head + b'\r\n{"status": "ok", "result": NaN}',
            head + b'\r\n{"status": "ok", "result": "\xff"}',
        ):
            self.door.next(raw(data))
            # Each with a client of its own: a connection whose end is on its way must not meet the next case.
            with self.subTest(data[:60]), self.assertRaises(ProtocolError):
                self.make().call("a.b")

    def test_odd_fields_are_as_if_they_were_not_there(self):
        odd = {"usage": [], "engine": 5, "audit_id": None}
        self.door.next(lambda request, body: request.give(200, answered(1, **odd)))
        answer = self.call()
        self.assertEqual((answer.result, answer.usage.tokens_in, answer.engine.kind, answer.audit_id), (1, 0, "", ""))
        self.door.next(lambda request, body: request.give(429, {"status": "denied", "error": {"code": 5, "retry_after_ms": "soon"}}))
        self.assertEqual(self.fails(RateLimited).retry_after_ms, None)

    def test_a_proxy_s_pages_are_errors_by_their_number(self):
        for http, kind in ((401, Unauthenticated), (403, Denied), (404, NotFound), (429, RateLimited), (502, AionError), (503, Unavailable)):
            self.door.next(lambda request, body, http=http: request.give(http, b"<html>no</html>"))
            self.assertEqual(self.fails(kind).code, "PROTOCOL_MISMATCH")

    def test_a_refusal_that_comes_before_the_request_is_read(self):
        """The other side answers and ends while the body is still on its way."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        text = b'{"status": "error", "error": {"code": "TOO_LARGE", "message": "no"}}'

        def serve():
            sock, _ = listener.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))

        threading.Thread(target=serve, daemon=True).start()
        client = self.make(url=f"http://127.0.0.1:{listener.getsockname()[1]}", retries=0)
        with self.assertRaises(AionError) as caught:
            client.call("a.b", {"x": "y" * 3_000_000})
        # What the kernel of this host dropped with the reset cannot be read; then it is known at least that nothing ran.
        self.assertIn(caught.exception.code, ("TOO_LARGE", "DAEMON_UNAVAILABLE"))
        self.assertFalse(caught.exception.may_have_run)

    # Connections.

    def test_a_connection_is_used_again(self):
        for _ in range(20):
            self.call()
        self.assertEqual(self.door.connections, 1)

    def test_one_that_the_kernel_has_ended_is_not(self):
        self.call()
        ended = threading.Event()

        def answer_and_end(request, body):
            request.give(200, answered(1))
            request.finish_now()
            ended.set()

        self.door.next(answer_and_end)
        self.call()
        self.assertTrue(ended.wait(10))
        self.call()
        self.assertEqual((self.door.connections, self.served()), (2, 3))

    def test_nor_one_on_which_something_came_that_nobody_asked_for(self):
        text = b'HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n{"status": "ok", "result": 5}'
        sent = threading.Event()

        def twice(request, body):
            request.wfile.write(text + text)
            sent.set()

        self.door.next(twice)
        self.assertEqual(self.call().result, 5)
        self.assertTrue(sent.wait(10))
        self.assertNotEqual(self.call().result, 5, "an answer to nothing is not taken for one")

    def test_after_an_error_the_connection_is_used_on(self):
        self.door.next(refuse(400, "INVALID_FIELD"))
        self.fails(AionError)
        self.call()
        self.assertEqual(self.door.connections, 1)


class SyncCalls(Calls, unittest.TestCase):
    def make(self, url=None, secret=SECRET, **options):
        client = SyscallClient(url or self.door.url, tenant=TENANT, secret=secret, agent="researcher", **options)
        self.addCleanup(client.close)
        return client

    def test_many_threads_share_a_client(self):
        wrong, start = [], threading.Barrier(16)

        def work(n):
            start.wait()
            for i in range(25):
                value = f"{n}-{i}" * (1 + n * 50)
                result = self.client.call("a.b", {"x": value}).result
                if result["params"]["x"] != value:
                    wrong.append((n, i))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual((wrong, self.door.wrong, self.served()), ([], [], 400))
        self.assertLessEqual(self.door.connections, 16)

    def test_a_forked_process_has_connections_of_its_own(self):
        self.call()
        with mock.patch("aion_sdk.pool.os.getpid", return_value=-1):
            for _ in range(3):
                self.call()
                self.assertEqual(self.door.connections, 2)

    def test_closed_it_calls_no_more(self):
        with self.make() as client:
            client.call("a.b")
        with self.assertRaises(ValueError):
            client.call("a.b")


class AsyncCalls(Calls, unittest.TestCase):
    def setUp(self):
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)
        super().setUp()

    def make(self, url=None, secret=SECRET, **options):
        client = AsyncSyscallClient(url or self.door.url, tenant=TENANT, secret=secret, agent="researcher", **options)
        self.addCleanup(lambda: self.loop.run_until_complete(client.aclose()))
        return Blocking(client, self.loop)

    def test_many_at_once(self):
        client = self.client._inner

        async def work(n):
            return [(await client.call("a.b", {"x": f"{n}-{i}"})).result["params"]["x"] for i in range(10)]

        async def main():
            return await asyncio.gather(*(work(n) for n in range(40)))

        found = self.loop.run_until_complete(main())
        self.assertEqual(found, [[f"{n}-{i}" for i in range(10)] for n in range(40)])
        self.assertLessEqual(self.door.connections, 400)
        self.assertEqual(self.door.wrong, [])

    def test_a_cancelled_call_ends_its_connection_and_harms_no_other(self):
        client = self.client._inner
        came, gone = threading.Event(), threading.Event()

        def wait_for_the_end(request, body):
            came.set()
            if request.connection.recv(1) == b"":
                gone.set()
            request.finish_now()

        self.door.next(wait_for_the_end)

        async def main():
            task = asyncio.create_task(client.call("a.b"))
            await asyncio.to_thread(came.wait, 10)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            await client.call("a.b")

        self.loop.run_until_complete(main())
        self.assertTrue(gone.wait(10), "the kernel sees that nobody waits")


    def test_a_cancellation_in_the_moment_of_the_end_is_not_lost(self):
        async def main():
            ready = asyncio.get_running_loop().create_future()

            async def work():
                return await ready

            task = asyncio.create_task(within(30, work()))
            for _ in range(3):
                await asyncio.sleep(0)
            ready.set_result(1)
            await asyncio.sleep(0)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        self.loop.run_until_complete(main())


class Environment(unittest.TestCase):
    def test_from_the_environment(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "secret")
            with open(path, "wb") as file:
                file.write(SECRET + b"\n")
            door = Door()
            self.addCleanup(door.close)
            env = {"AION_KERNEL_PORT": str(door.port), "AION_TENANT": TENANT, "AION_SECRET_FILE": path, "AION_AGENT": "agent://tenantA/a"}
            with mock.patch.dict(os.environ, env, clear=True), from_env() as client:
                self.assertEqual(client.call("a.b").result["agent_id"], "agent://tenantA/a")
            with mock.patch.dict(os.environ, {**env, "AION_URL": "http://[::1]:9", "AION_HTTP": "http://h:1"}, clear=True):
                client = from_env(agent="b", retries=0)
                self.assertEqual((client.agent_id, client.settings.host_and_port()), ("agent://tenantA/b", ("::1", 9)))
            with mock.patch.dict(os.environ, {**env, "AION_HTTP": "http://h:1"}, clear=True):
                self.assertEqual(from_env().settings.url, "http://h:1")
            inside = {**env, "AION_AGENT": "", "AION_AGENT_NAME": "c"}
            with mock.patch.dict(os.environ, inside, clear=True):
                self.assertEqual(from_env().agent_id, "agent://tenantA/c")
            for missing in ("AION_TENANT", "AION_SECRET_FILE", "AION_AGENT"):
                with mock.patch.dict(os.environ, {**env, missing: ""}, clear=True), self.assertRaisesRegex(ValueError, missing):
                    from_env()

    def test_an_agent_s_own_socket_needs_no_more(self):
        for env in ({"AION_RUNTIME_SOCKET": "/run/aion/kernel.sock"}, {"AION_URL": "unix:/run/aion/kernel.sock", "AION_SECRET_FILE": "/none"}):
            with self.subTest(env), mock.patch.dict(os.environ, env, clear=True):
                found = from_env().settings
                self.assertEqual((found.socket_path, found.agent_id, found.secret), ("/run/aion/kernel.sock", "", None))
        for wrong in (("unix:relative",), ("unix:/s", "tenant"), ("unix:/s", "", Secret("x")), ("unix:/s", "", None, "a")):
            with self.subTest(wrong), self.assertRaises(ValueError):
                Settings(*wrong)

    def test_over_a_socket_nothing_is_signed_and_the_agent_is_not_named(self):
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            path = os.path.join(folder, "s")
            listener.bind(path)
            listener.listen()

            def answer():
                for _ in range(2):
                    peer, _ = listener.accept()
                    with peer:
                        seen.append(peer.recv(1 << 16))
                        body = b'{"status":"ok","result":7,"usage":{},"engine":{},"audit_id":"sc-1"}'
                        peer.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

            seen = []
            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            self.assertEqual(SyscallClient(f"unix:{path}").call("a.b").result, 7)

            async def once():
                async with AsyncSyscallClient(f"unix:{path}") as client:
                    return (await client.call("a.b")).result

            self.assertEqual(asyncio.run(once()), 7)
            thread.join(20)
            for request in seen:
                head, _, body = request.partition(b"\r\n\r\n")
                self.assertNotIn(b"x-sig", head.lower())
                self.assertNotIn("agent_id", json.loads(body))

    def test_what_is_wrong_is_refused(self):
        good = {"tenant": TENANT, "secret": SECRET, "agent": "a"}
        for wrong in ({"tenant": "a/b"}, {"tenant": "a\r\nX: y"}, {"agent": "agent://other/a"}, {"agent": "A"}, {"agent": ""}, {"secret": b""}):
            with self.subTest(wrong), self.assertRaises(ValueError):
                SyscallClient(**{**good, **wrong})
        for url in ("https://127.0.0.1", "127.0.0.1:8010", "http://h/path", "http://u:p@h", "http://h:99999"):
            with self.subTest(url), self.assertRaises(ValueError):
                SyscallClient(url, **good)

    def test_a_secret_does_not_show(self):
        client = SyscallClient(tenant=TENANT, secret="hunter2-hunter2-hunter2", agent="a")
        shown = f"{client.settings!r} {client.settings} {client.settings.secret} {client.__dict__}"
        self.assertNotIn("hunter2", shown)
        with self.assertRaises(TypeError):
            pickle.dumps(client.settings)

    def test_a_file_s_line_feed_is_not_the_secret_s(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "s")
            for written, meant in ((b"abc", b"abc"), (b"abc\n", b"abc"), (b"abc\r\n", b"abc\r"), (b"abc\n\n", b"abc\n"), (b" a ", b" a ")):
                with open(path, "wb") as file:
                    file.write(written)
                self.assertEqual(Secret.from_file(path).sign(b""), Secret(meant).sign(b""))

    def test_the_signature_is_the_one_of_the_rfc(self):
        # RFC 4231, test case 2.
        expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        self.assertEqual(Secret("Jefe").sign(b"what do ya want for nothing?"), expected)


if __name__ == "__main__":
    unittest.main()
