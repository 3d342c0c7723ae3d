"""Answers as bytes: however they are cut up, the same comes out."""

import random
import unittest

from aion_sdk import ProtocolError, Secret, Settings
from aion_sdk.wire import MAX_HEAD, ResponseParser, encode_request

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: Chunked\r\n\r\n4;a=b\r\nWiki\r\n5 \r\npedia\r\n0a\r\n 123456789\r\n0\r\nX: y\r\n\r\n"
CASES = [
    (HEAD + b"content-LENGTH:  5 \r\n\r\nhello", 200, b"hello", True),
    (HEAD + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    (HEAD + b"Content-Length: 2\r\nConnection: foo, Close\r\n\r\nhi", 200, b"hi", False),
    (b"HTTP/1.0 404 No\r\nContent-Length: 2\r\n\r\nhi", 404, b"hi", False),
    (b"HTTP/1.1 204\r\n\r\n", 204, b"", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + CHUNKS, 200, b"Wikipedia 123456789", True),
    (HEAD + b"\r\nup to the end", 200, b"up to the end", False),
]


class Answers(unittest.TestCase):
    def pieces(self, data, size):
        chance = random.Random(size)
        at = 0
        while at < len(data):
            step = size or chance.randint(1, 9)
            yield data[at : at + step]
            at += step

    def test_however_they_are_cut_up(self):
        for data, status, body, keep in CASES:
            for size in (0, 1, 2, 5, 10_000):
                parser = ResponseParser(1000)
                for piece in self.pieces(data, size):
                    self.assertFalse(parser.done)
                    parser.feed(piece)
                if not parser.done:
                    self.assertTrue(parser.eof())
                self.assertEqual((parser.status, parser.take(), parser.keep_alive, parser.done), (status, body, keep, True))

    def test_a_part_is_no_answer(self):
        for data, _, _, _ in CASES[:-1]:
            for length in range(len(data)):
                parser = ResponseParser(1000)
                parser.feed(data[:length])
                self.assertFalse(parser.done)
                self.assertFalse(parser.eof())

    def test_what_comes_after_it_ends_the_connection(self):
        parser = ResponseParser(1000)
        parser.feed(CASES[0][0] + b"H")
        self.assertEqual((parser.done, parser.keep_alive, parser.take()), (True, False, b"hello"))

    def test_a_body_that_is_taken_out_has_no_end(self):
        parser = ResponseParser(10)
        parser.feed(HEAD + b"\r\n")
        for _ in range(100):
            parser.feed(b"123456789")
            self.assertEqual(parser.take(), b"123456789")
        with self.assertRaises(ProtocolError):
            parser.feed(b"1" * 11)

    def test_noise_ends_and_is_bounded(self):
        chance = random.Random(1)
        alphabet = [b"HTTP/1.1 200 OK", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"7", b"Transfer-Encoding: chunked", b"\x00", b":", b"a", b"\xff"]
        for _ in range(3000):
            parser = ResponseParser(100)
            try:
                for _ in range(30):
                    parser.feed(chance.choice(alphabet))
                parser.eof()
            except ProtocolError:
                continue
            self.assertLessEqual(len(parser.body), 100)
        for endless in (b"HTTP/1.1 200 OK\r\nA: ", CHUNKS[:-2] + b"Y: ", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"):
            parser = ResponseParser(100)
            parser.feed(endless)
            with self.assertRaises(ProtocolError):
                for _ in range(MAX_HEAD):
                    parser.feed(b"1111")

    def test_a_header_holds_no_line_break(self):
        settings = Settings("http://127.0.0.1:1", "t", Secret(b"s"), "a")
        for wrong in ("a\r\nX: y", "a\nb", "\x00"):
            with self.assertRaises(ValueError):
                encode_request(settings, "GET", "/", b"", {"Last-Event-ID": wrong})


if __name__ == "__main__":
    unittest.main()
