"""Streams of events: how they are read, and how they go on after a break. No test waits for a clock."""

import asyncio
import threading
import unittest

from aion_sdk import AionError, AsyncSyscallClient, Denied, Event, ProtocolError, SyscallClient, Unauthenticated, Unavailable
from aion_sdk.events import MAX_EVENT, EventParser
from door import SECRET, TENANT, Door, cut, hang, ok, raw, refuse, stream

FAST = "retry: 1\n\n"


def event(n, topic="kernel.syscalls"):
    return f'id: {n}\nevent: {topic}\ndata: {{"n": {n}}}\n\n'


class Parser(unittest.TestCase):
    TEXT = (
        "\ufeff: hello\nretry: 70\n\n"
        "id: 1\nevent: kernel.gc\ndata: {\"a\":\ndata:  1}\n\n"
        "data: not\r\ndata: json \u00fc\r\n\r\n"
        "event: nothing\n\n"
        "id: 2\rdata\r\r"
        "id: bad\0id\nid: bad\x07id\ndata:null\n\n"
        "id\ndata: 5\nunknown: x\nretry: soon\n\n"
        "data: never whole"
    ).encode()
    EVENTS = [
        Event("1", "kernel.gc", {"a": 1}),
        Event("1", "message", "not\njson \u00fc"),
        Event("2", "message", ""),
        Event("2", "message", None),
        Event("", "message", 5),
    ]

    def test_however_it_is_cut_up(self):
        for size in (1, 2, 3, 7, 1000):
            parser, found = EventParser("0"), []
            for at in range(0, len(self.TEXT), size):
                found += parser.feed(self.TEXT[at : at + size])
            self.assertEqual(found, self.EVENTS)
            self.assertEqual(parser.retry_ms, 70)

    def test_what_is_too_large_is_not_kept(self):
        line = b"data: " + b"x" * 1000 + b"\n"
        for text in (b"x" * (MAX_EVENT + 1), line * (MAX_EVENT // len(line) + 1)):
            parser = EventParser()
            with self.assertRaises(ProtocolError):
                for at in range(0, len(text), 65536):
                    parser.feed(text[at : at + 65536])


class Streams:
    def setUp(self):
        self.door = Door()
        self.addCleanup(self.door.close)

        self.seen = []

    def asked_from(self):
        return [headers.get("Last-Event-ID") for _, _, headers, _ in self.door.requests]

    def numbers(self, count, **options):
        return [e.data["n"] for e in self.read(count, "kernel.syscalls", **options)]

    def test_the_request_is_signed_with_its_query(self):
        self.door.next(stream(event(1), end=False))
        self.assertEqual(self.read(1, "kernel.syscalls", "kernel.gc"), [Event("1", "kernel.syscalls", {"n": 1})])
        method, path, headers, _ = self.door.requests[0]
        self.assertEqual((method, path), ("GET", "/v1/events/stream?topics=kernel.syscalls,kernel.gc"))
        self.assertEqual((headers["Accept"], self.door.wrong), ("text/event-stream", []))

    def test_it_goes_on_after_the_event_that_was_read_last(self):
        self.door.next(
            stream(FAST, event(1), event(2), "id: 3\ndata: {"),
            cut,
            refuse(503, "LAUNCHER_UNAVAILABLE"),
            refuse(429, "RESOURCE_EXHAUSTED", "denied", retry_after_ms=1),
            raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event(3).encode() + b": alive\n\ndata: x"),
            stream(event(4), end=False),
        )
        self.assertEqual(self.numbers(4), [1, 2, 3, 4])
        self.assertEqual(self.asked_from(), [None, "2", "2", "2", "2", "3"])
        self.assertEqual(len(self.door.nonces), 6)

    def test_it_begins_where_it_is_told(self):
        self.door.next(stream(event(8), end=False))
        self.assertEqual(self.numbers(1, last_event_id="7\u00fc"), [8])
        self.assertEqual(self.asked_from(), ["7\u00fc".encode().decode("latin-1")])

    def test_silence_ends_a_stream_and_the_next_goes_on(self):
        asked = []

        def door(request, body):
            asked.append(request.headers["Last-Event-ID"])
            step = stream(FAST, event(1), end=False) if asked[-1] is None else stream(event(2), end=False) if asked.count("1") > 1 else hang
            step(request, body)

        self.door.ordinary = door
        self.assertEqual(self.numbers(2, idle_timeout=0.2), [1, 2])

    def test_a_kernel_that_starts_anew(self):
        self.door.next(stream(FAST, event(1)))
        port = self.door.port

        def restart(n):
            if n == 1:
                self.door.close()
                self.door = Door(port)
                self.addCleanup(self.door.close)
                self.door.next(stream(event(2), end=False))

        self.assertEqual([e.id for e in self.read(2, "kernel.syscalls", after=restart)], ["1", "2"])
        self.assertEqual(self.asked_from(), ["1"])

    def test_what_a_new_stream_does_not_help_against_is_raised(self):
        for step, kind in (
            (refuse(403, "POLICY_DENIED", "denied"), Denied),
            (refuse(401, "UNAUTHENTICATED", "denied"), Unauthenticated),
            (refuse(410, "CURSOR_EXPIRED"), AionError),
            (refuse(400, "INVALID_FIELD", field="topics"), AionError),
            (ok("no stream"), ProtocolError),
            (raw(b"nonsense"), ProtocolError),
            (stream("data: " + "x" * (MAX_EVENT + 10)), ProtocolError),
        ):
            self.door.next(step)
            with self.assertRaises(kind) as caught:
                self.read(1, "kernel.syscalls")
            self.assertIs(type(caught.exception), kind)

    def test_it_gives_up_when_it_is_told_so(self):
        self.door.next(stream(FAST, event(1)), cut, cut, cut)
        with self.assertRaises(Unavailable):
            self.read(2, "kernel.syscalls", retries=2)
        self.assertEqual(len(self.door.requests), 3)

    def test_an_event_makes_up_for_a_break(self):
        self.door.next(*(stream(FAST, event(n)) for n in range(4)))
        self.assertEqual(self.numbers(4, retries=1), [0, 1, 2, 3])

    def test_an_error_is_a_stream_s_last_word(self):
        def error(code):
            return 'event: error\ndata: {"code": "%s", "message": "why", "hint": "do"}\n\n' % code

        self.door.next(stream(FAST, event(1), error("RESOURCE_EXHAUSTED")), stream(event(2), error("CURSOR_EXPIRED")))
        with self.assertRaises(AionError) as caught:
            self.read(9, "kernel.syscalls", after=self.seen.append)
        self.assertEqual((caught.exception.code, caught.exception.hint, self.seen), ("CURSOR_EXPIRED", "do", [1, 2]))
        self.assertEqual(self.asked_from(), [None, "1"])

    def test_204_is_the_end(self):
        self.door.next(stream(FAST, event(1)), raw(b"HTTP/1.1 204 No Content\r\n\r\n"))
        self.assertEqual([e.id for e in self.read(9, "kernel.syscalls")], ["1"])

    def test_no_topics(self):
        with self.assertRaises(ValueError):
            self.read(1)


class SyncStreams(Streams, unittest.TestCase):
    def open(self, *topics, **options):
        with SyscallClient(self.door.url, tenant=TENANT, secret=SECRET, agent="a") as client:
            return client.events(*topics, **options)

    def read(self, count, *topics, after=lambda n: None, **options):
        found = []
        with self.open(*topics, **options) as events:
            for item in events:
                found.append(item)
                after(len(found))
                if len(found) == count:
                    self.assertEqual(events.last_event_id, item.id)
                    break
        return found

    def test_another_thread_can_end_it(self):
        self.door.next(stream(event(1), end=False))
        events, first, found = self.open("kernel.gc"), threading.Event(), []

        def read():
            for item in events:
                found.append(item.id)
                first.set()

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        self.assertTrue(first.wait(10))
        events.close()
        thread.join(10)
        self.assertFalse(thread.is_alive())
        self.assertEqual((found, list(events)), (["1"], []))


class AsyncStreams(Streams, unittest.TestCase):
    def open(self, *topics, **options):
        return AsyncSyscallClient(self.door.url, tenant=TENANT, secret=SECRET, agent="a").events(*topics, **options)

    def read(self, count, *topics, after=lambda n: None, **options):
        async def main():
            found = []
            async with self.open(*topics, **options) as events:
                async for item in events:
                    found.append(item)
                    after(len(found))
                    if len(found) == count:
                        self.assertEqual(events.last_event_id, item.id)
                        break
            return found

        return asyncio.run(main())

    def test_another_task_can_end_it(self):
        self.door.next(stream(event(1), end=False))

        async def main():
            events, first, found = self.open("kernel.gc"), asyncio.Event(), []

            async def read():
                async for item in events:
                    found.append(item.id)
                    first.set()

            task = asyncio.create_task(read())
            await first.wait()
            await events.aclose()
            await task
            return found

        self.assertEqual(asyncio.run(main()), ["1"])

    def test_cancelled_it_loses_nothing(self):
        self.door.next(stream(FAST, event(1), end=False), stream(event(2), end=False))

        async def main():
            async with self.open("kernel.gc") as events:
                found = [(await anext(events)).id]
                task = asyncio.create_task(events.__anext__())
                await asyncio.sleep(0)
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                return [*found, (await anext(events)).id]

        self.assertEqual(asyncio.run(main()), ["1", "2"])
        self.assertEqual(self.asked_from(), [None, "1"])


if __name__ == "__main__":
    unittest.main()
