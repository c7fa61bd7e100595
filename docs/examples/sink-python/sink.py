#!/usr/bin/python3
"""A sink of callbackd that keeps events in an SQLite database, one row for each."""

import re
import sqlite3
import threading

import callbackd_sink as sink

INFO = sink.Info(
    name="sqlite",
    version="1.0.0",
    doc="Keeps events in an SQLite database, one row for each.",
    max_in_flight=512,
    max_batch_events=512,
    max_calls=1,  # SQLite has one writer at a time
)

COLUMNS = {
    "delivery_id": "TEXT PRIMARY KEY",
    "event_id": "TEXT NOT NULL",
    "source": "TEXT NOT NULL",
    "type": "TEXT NOT NULL",
    "subject": "TEXT",
    "time": "TEXT",
    "content_type": "TEXT",
    "label": "TEXT",
    "body": "BLOB NOT NULL",
}


class Config(sink.Settings):
    path = sink.Path("The database file. It is made where it is not there; its folder is not.")
    table = sink.String("The table. It is made where it is not there.", default="events")
    label = sink.String("Text that is kept with each event.", per_event=True, default=None)
    sync = sink.String(
        "full: an event counts as delivered when it is on the disk. normal: a power failure may lose the last ones.",
        default="full",
        one_of=["full", "normal"],
    )
    busy_timeout = sink.Duration("How long to wait for another program that writes to the database.", default="5s")

    def validate(self):
        mistakes = []
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", self.table) or self.table.lower().startswith("sqlite_"):
            mistakes.append(
                sink.Invalid("table", f'"{self.table}" cannot be the name of the table', "Use letters, digits and _.")
            )
        if self.busy_timeout > 60:
            mistakes.append(sink.Invalid("busy_timeout", "it is longer than a minute"))
        return mistakes


class SQLiteSink:
    """Writes each batch in one transaction."""

    def __init__(self, config):
        self._config = config
        self._lock = threading.Lock()  # deliveries and checks come in different threads
        # Where this fails (no folder, a full disk), callbackd tries again later.
        self._db = sqlite3.connect(
            config.path, timeout=config.busy_timeout, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise
        columns = ", ".join(COLUMNS)
        places = ", ".join("?" * len(COLUMNS))
        self._insert = f"INSERT INTO {config.table} ({columns}) VALUES ({places}) ON CONFLICT (delivery_id) DO NOTHING"
        self._rows = sink.Counter("rows_total", "Rows written.")
        self._repeated = sink.Counter("repeated_events_total", "Events that were in the table already.")

    def _prepare(self):
        db, table = self._db, self._config.table
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self._config.sync.upper()}")
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        db.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
        there = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        missing = ", ".join(name for name in COLUMNS if name not in there)
        if missing:
            raise sink.Invalid("table", f"the table {table} is there, but lacks the columns {missing}", "Name another.")

    def deliver_batch(self, events, context):
        self._take(context)
        try:
            return self._write(events)
        finally:
            self._lock.release()

    def _take(self, context):
        left = context.remaining()
        if not self._lock.acquire(timeout=-1 if left is None else left):
            raise sink.Retry("the database is still busy with an earlier batch")

    def _write(self, events):
        outcomes, before = [], self._db.total_changes
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for event in events:
                outcomes.append(self._write_row(event))
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            # Of the whole batch nothing is in the table: a full disk, another writer.
            raise sink.Retry(f"writing to the database failed: {error}") from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        written = self._db.total_changes - before
        self._rows.add(written)
        self._repeated.add(outcomes.count(None) - written)
        return outcomes

    def _write_row(self, event):
        """Returns None, or why this event cannot be written, now or later."""
        try:
            self._db.execute(
                self._insert,
                (
                    event.delivery_id,
                    event.id,
                    event.source,
                    event.type,
                    event.subject or None,
                    event.time.isoformat() if event.time else None,
                    event.content_type or None,
                    self._config.label.get(event),
                    event.body,
                ),
            )
        except (sqlite3.DataError, sqlite3.IntegrityError, OverflowError) as error:
            return sink.Permanent(f"the database does not take the event: {error}")
        return None

    def check(self, context):
        self._take(context)
        try:
            self._db.execute(f"SELECT 1 FROM {self._config.table} LIMIT 1").fetchall()
        except sqlite3.Error as error:
            raise sink.Retry(f"reading the database failed: {error}") from error
        finally:
            self._lock.release()

    def metrics(self):
        return [self._rows, self._repeated]

    def close(self, context):
        with self._lock:
            self._db.close()


if __name__ == "__main__":
    sink.serve(INFO, Config, SQLiteSink)
