"""An AION that says what a test tells it to."""

import os
import queue
import tempfile
import threading
from concurrent import futures

import grpc
from aion.v1 import runtime_pb2 as pb
from aion.v1 import runtime_pb2_grpc as stubs


class Stream:
    """One attached stream: what came, and what is to go."""

    def __init__(self):
        self.came = queue.Queue()
        self.out = queue.Queue()

    def send(self, **kind):
        self.out.put(pb.ToAgent(**kind))

    def cut(self):
        self.out.put(None)

    def next(self, kind, timeout=10):
        """The next message of a kind; others are passed over."""
        while True:
            message = self.came.get(timeout=timeout)
            if message.WhichOneof("kind") == kind:
                return getattr(message, kind)

    def nothing(self, kind, seconds=0.3):
        try:
            self.next(kind, seconds)
        except queue.Empty:
            return True
        return False


class Server(stubs.RuntimeServiceServicer):
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "kernel.sock")
        self.streams = queue.Queue()
        self.server = None
        self.start()

    def start(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        stubs.add_RuntimeServiceServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"unix:{self.path}")
        self.server.start()

    def die(self):
        self.server.stop(0).wait()

    def Attach(self, requests, context):
        stream = Stream()
        self.streams.put(stream)

        def read():
            try:
                for message in requests:
                    stream.came.put(message)
            except grpc.RpcError:
                pass

        threading.Thread(target=read, daemon=True).start()
        while context.is_active():
            try:
                message = stream.out.get(timeout=0.05)
            except queue.Empty:
                continue
            if message is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            yield message

    def attached(self, keep=None):
        """The next stream, welcomed; and its Hello."""
        stream = self.streams.get(timeout=10)
        hello = stream.next("hello")
        keep = list(hello.running) if keep is None else keep
        stream.send(welcome=pb.Welcome(agent="a", tenant="t", concurrency=1, keep=keep))
        return stream, hello
