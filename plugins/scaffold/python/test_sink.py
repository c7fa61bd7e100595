"""Tests of the sink. Run: python3 -m unittest"""

import http.server
import threading
import unittest

import callbackd_sink as sink
from sink import Config, Sink


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the body says, and keeps what came."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.headers, body))
        self.send_response(int(body))
        self.send_header("Retry-After", "7")
        self.send_header("Location", self.server.url)
        self.end_headers()

    def log_message(self, *_):
        pass


class SinkTest(unittest.TestCase):
    def setUp(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.server.received = []
        self.server.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def deliver(self, status, **settings):
        opened = Sink(Config.from_dict({"url": self.server.url, **settings}))
        opened.deliver(sink.Event(delivery_id="d1", type="push", body=str(status).encode()), sink.Context(10))

    def test_delivers(self):
        self.deliver(200, token="secret", title=lambda event: f"a {event.type}")
        headers, body = self.server.received[0]
        self.assertEqual((headers["Idempotency-Key"], headers["Authorization"], body), ("d1", "Bearer secret", b"200"))
        self.assertEqual(headers["X-Title"], "a push")

    def test_statuses(self):
        for status, outcome, after in (
            (302, sink.Retry, 0),
            (404, sink.Permanent, 0),
            (429, sink.Throttled, 7),
            (500, sink.Retry, 0),
            (503, sink.Throttled, 7),
        ):
            with self.subTest(status), self.assertRaises(outcome) as caught:
                self.deliver(status)
            self.assertEqual(caught.exception.after, after)
        self.assertEqual(len(self.server.received), 5)

    def test_a_receiver_that_is_gone(self):
        self.server.shutdown()
        self.server.server_close()
        with self.assertRaises(sink.Retry):
            self.deliver(200)

    def test_wrong_settings(self):
        for settings in ({}, {"url": "example.com"}, {"url": 1}, {"url": "http://a", "tokn": "x"}):
            with self.subTest(settings), self.assertRaises(sink.InvalidSettings):
                Config.from_dict(settings)


if __name__ == "__main__":
    unittest.main()
