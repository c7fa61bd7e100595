"""A sink for the tests of callbackd_sink: an event's type says what its delivery does."""

import logging
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import callbackd_sink as sink  # noqa: E402

print("printed before the handshake")


class Route(sink.Settings):
    to = sink.String("where to")
    weight = sink.Number("how much", default=1)


class Limits(sink.Settings):
    size = sink.Size("at most", default="10MiB")


class Config(sink.Settings):
    name = sink.String("any")
    password = sink.String("a secret", sensitive=True, default=None)
    count = sink.Number("how many", default=3, whole=True)
    ratio = sink.Number("how much of it", default=0.5)
    on = sink.Bool("whether", default=True)
    wait = sink.Duration("how long", default="1m30s")
    file = sink.Path("which", default=None)
    mode = sink.String("how", default="fast", one_of=["fast", "safe"])
    words = sink.List(sink.String(), "some", default=["a", "b"])
    table = sink.Map(sink.Number(), "numbers", default={"one": 1})
    anything = sink.Any("any value", default={"x": [1, None, "y"]})
    text = sink.String("of each event", per_event=True, escape={"<": "&lt;"}, default=None)
    tags = sink.Map(sink.String(), "of each event", per_event=True, default=None)
    dashed = sink.String("has a name that Python would not take", name="with-dash", default="d")
    limits = sink.Block(Limits, "bounds")
    route = sink.Blocks(Route, "where to", max_items=3)

    def validate(self):
        if self.name == "print":
            print("printed while validating")
        if self.name == "raise":
            raise ZeroDivisionError("validate is broken")
        return [sink.Invalid(f"route[{i}].to", "nowhere", "Say where.") for i, r in enumerate(self.route) if r.to == ""]


class Probe:
    def __init__(self, config):
        if config.name == "unavailable":
            raise sink.Retry("the database is down")
        if config.name == "crash":
            raise KeyError("open is broken")
        if config.name == "refuse":
            raise sink.Invalid('table["one"]', "is refused", "Take another.")
        self.config = config
        self.log = logging.getLogger("probe")
        self.delivered = sink.Counter("delivered_total", "Deliveries.", labels=["type"])
        self.sizes = sink.Histogram("body_bytes", "Sizes of bodies.", bounds=[10, 100])
        self.running, self.most, self.lock = 0, 0, threading.Lock()

    def deliver(self, event, context):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            self.do(event, context)
        finally:
            with self.lock:
                self.running -= 1

    def do(self, event, context):
        what = event.type
        if what == "permanent":
            raise sink.Permanent("not this one")
        if what == "retry_after":
            raise sink.RetryAfter("later", 1.5)
        if what == "throttled":
            raise sink.Throttled("less", 2)
        if what == "retry":
            raise sink.Retry("not now")
        if what == "raise":
            raise ZeroDivisionError("the author's mistake")
        if what == "exit":
            sys.exit(7)
        if what == "bad_text":
            raise sink.Permanent("half a pair \ud800" + "x" * 10000)
        if what == "settings":
            raise sink.Permanent(repr(self.config) + f" {self.config.limits.size} {[(r.to, r.weight) for r in self.config.route]}")
        if what == "per_event":
            raise sink.Permanent(f"{self.config.text.get(event)} {self.config.tags.get(event)}")
        if what == "event":
            raise sink.Permanent(
                f"{event.id} {event.source} {event.subject!r} {event.time.isoformat()} {event.accepted.isoformat()} "
                f"{event.content_type} {event.body!r} {event.pipeline} {event.attempt} {event.headers}"
            )
        if what == "sleep":
            while context.wait(0.01):
                pass
            raise sink.Retry("out of time")
        if what == "hang":
            time.sleep(3600)
        if what == "most":
            time.sleep(0.05)
        if what == "told_most":
            raise sink.Permanent(str(self.most))
        if what == "flood":
            print("x" * 1_000_000)
            sys.stdout.write("no end of line")
            sys.stdout.flush()
            os.write(1, b"\xff\x00 bytes\n" * 50)
            os.write(2, b'{"@message":1}\n{"@level":null,"@message":null}\n')
        if what == "log":
            self.log.debug("a debug line")
            self.log.warning("a %s line", "warning", extra={"answer": 42, "@level": "error"})
            self.log.error("not %d of them", "a number")
        self.delivered.add(1, what)
        self.sizes.observe(len(event.body))

    def check(self, context):
        if os.path.exists(os.path.join(os.environ["TMPDIR"], "unwell")):
            raise sink.Retry("a file says so")

    def metrics(self):
        return [self.delivered, self.sizes]

    def close(self, context):
        print("closed")
        if self.config.name == "slow close":
            time.sleep(3600)


sink.serve(sink.Info(name="probe", version="0.1", doc="A probe.", max_in_flight=4), Config, Probe)
