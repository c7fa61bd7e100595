"""Tests of the SQLite sink. Run: python3 -m unittest"""

import datetime
import os
import sqlite3
import tempfile
import unittest

import callbackd_sink as sink
from sink import Config, SQLiteSink


class SQLiteSinkTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "events.db")

    def open(self, **settings):
        opened = SQLiteSink(Config.from_dict({"path": self.path, **settings}))
        self.addCleanup(opened.close, sink.Context())
        return opened

    def rows(self, columns="delivery_id", table="events"):
        db = sqlite3.connect(self.path)
        try:
            return db.execute(f"SELECT {columns} FROM {table} ORDER BY delivery_id").fetchall()
        finally:
            db.close()

    def test_writes_every_attribute(self):
        opened = self.open(label=lambda event: event.json()["name"])
        event = sink.Event(
            delivery_id="d1",
            id="01K3Z",
            source="ci",
            type="build",
            subject="main",
            time=datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.timezone.utc),
            content_type="application/json",
            body=b'{"name":"x"}',
        )
        self.assertEqual(opened.deliver_batch([event], sink.Context()), [None])
        self.assertEqual(
            self.rows("*"),
            [("d1", "01K3Z", "ci", "build", "main", "2026-03-04T05:06:07+00:00", "application/json", "x", b'{"name":"x"}')],
        )

    def test_writes_any_body(self):
        bodies = {"d1": b"", "d2": bytes(range(256)), "d3": b"x" * 5_000_000}
        events = [sink.Event(delivery_id=name, body=body) for name, body in bodies.items()]
        self.assertEqual(self.open().deliver_batch(events, sink.Context()), [None] * 3)
        self.assertEqual(self.rows("delivery_id, body"), sorted(bodies.items()))

    def test_writes_a_delivery_once(self):
        opened = self.open()
        events = [sink.Event(delivery_id="d1"), sink.Event(delivery_id="d2")]
        opened.deliver_batch(events[:1], sink.Context())
        self.assertEqual(opened.deliver_batch(events, sink.Context()), [None, None])
        self.assertEqual(self.rows(), [("d1",), ("d2",)])
        figures = {metric.name: metric.message().series[0].value for metric in opened.metrics()}
        self.assertEqual(figures, {"rows_total": 2, "repeated_events_total": 1})

    def test_one_event_that_does_not_fit_spoils_no_other(self):
        opened = self.open()
        events = [sink.Event(delivery_id="d1"), sink.Event(delivery_id="d2", body=None), sink.Event(delivery_id="d3")]
        outcomes = opened.deliver_batch(events, sink.Context())
        self.assertIsInstance(outcomes[1], sink.Permanent)
        self.assertEqual(self.rows(), [("d1",), ("d3",)])

    def test_a_busy_database_is_tried_again(self):
        opened = self.open(busy_timeout="10ms")
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        with self.assertRaisesRegex(sink.Retry, "database is locked"):
            opened.deliver_batch([sink.Event(delivery_id="d1")], sink.Context())
        other.execute("ROLLBACK")
        self.assertEqual(opened.deliver_batch([sink.Event(delivery_id="d1")], sink.Context()), [None])

    def test_check_tells_that_the_table_is_gone(self):
        opened = self.open(table="other")
        opened.check(sink.Context())
        other = sqlite3.connect(self.path)
        self.addCleanup(other.close)
        other.execute("DROP TABLE other")
        with self.assertRaisesRegex(sink.Retry, "no such table"):
            opened.check(sink.Context())

    def test_refuses_a_table_with_other_columns(self):
        other = sqlite3.connect(self.path)
        self.addCleanup(other.close)
        other.execute("CREATE TABLE events (a)")
        with self.assertRaisesRegex(sink.Invalid, "table: .* lacks the columns delivery_id"):
            self.open()

    def test_refuses_wrong_settings(self):
        for settings, mistake in (
            ({}, 'path: "path" is required'),
            ({"path": "/x", "table": "a; b"}, "table: .* cannot be the name"),
            ({"path": "/x", "sync": "off"}, 'sync: "off" is not allowed'),
            ({"path": "/x", "busy_timeout": "2m"}, "busy_timeout: it is longer"),
            ({"path": "/x", "tabel": "y"}, 'tabel: "tabel" is not a setting'),
        ):
            with self.subTest(settings), self.assertRaisesRegex(sink.InvalidSettings, mistake):
                Config.from_dict(settings)


if __name__ == "__main__":
    unittest.main()
