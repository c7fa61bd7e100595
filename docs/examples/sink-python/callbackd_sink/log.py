"""The log: lines as callbackd reads them on a plugin's standard error.

Each is one JSON object with @level, @message and @timestamp, other attributes
beside them. callbackd passes the lines on into its own log, secrets masked.
"""

import datetime
import json
import logging
import os
import time
import traceback

# Beyond these callbackd cuts what it reads.
MAX_MESSAGE_BYTES = 4096
MAX_FIELD_BYTES = 1000

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}
# What a LogRecord has of itself; what else it has, the author gave as extra.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def level_from(text):
    """Returns the level that callbackd asks for; INFO where it does not."""
    return _LEVELS.get(str(text or "").upper(), logging.INFO)


class Handler(logging.Handler):
    """Writes each record as one line to a file descriptor."""

    def __init__(self, fd):
        super().__init__()
        self._fd = fd

    def emit(self, record):
        try:
            line = format_record(record)
        except Exception as error:  # a record that cannot be formatted is told, not lost
            message = f"a log record of {record.name} cannot be formatted: {record.msg!r}: {error!r}"
            line = json.dumps({"@level": "error", "@message": _cut(message, MAX_MESSAGE_BYTES)})
        try:
            data = line.encode("utf-8", "replace") + b"\n"
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            pass  # nobody reads any more, and there is nobody to tell


def format_record(record):
    """Returns the line of a record, without its line break."""
    stamp = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
    fields = {
        "@level": _level_name(record.levelno),
        "@message": _cut(record.getMessage(), MAX_MESSAGE_BYTES),
        "@timestamp": stamp.isoformat(timespec="microseconds"),
    }
    if record.name != "root":
        fields["logger"] = record.name
    for key, value in vars(record).items():
        if key not in _OWN and not key.startswith("@"):
            fields[key] = value if isinstance(value, (bool, int, float)) or value is None else _cut(str(value), MAX_FIELD_BYTES)
    if record.exc_info and record.exc_info[0] is not None:
        fields["traceback"] = traceback_tail(record.exc_info)
    return json.dumps(fields, ensure_ascii=False, allow_nan=True)


def traceback_tail(exc_info):
    """Returns a traceback, of which the end is kept: there it says what happened."""
    text = "".join(traceback.format_exception(*exc_info)).rstrip("\n")
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= MAX_FIELD_BYTES:
        return text
    return "… " + encoded[-(MAX_FIELD_BYTES - 4) :].decode("utf-8", "ignore")


def _cut(text, size):
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def _level_name(level):
    if level >= logging.ERROR:
        return "error"
    if level >= logging.WARNING:
        return "warn"
    return "info" if level >= logging.INFO else "debug"


class Sparingly:
    """Lets one thing of a kind through in ten seconds: a receiver that is down
    fails every event in the same way."""

    def __init__(self, interval=10.0, kinds=100):
        self._interval = interval
        self._kinds = kinds
        self._last = {}

    def admit(self, kind):
        now = time.monotonic()
        if now - self._last.get(kind, -self._interval) < self._interval:
            return False
        if len(self._last) >= self._kinds:
            self._last.clear()
        self._last[kind] = now
        return True
