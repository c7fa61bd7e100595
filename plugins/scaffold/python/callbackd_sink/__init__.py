"""callbackd_sink: write a sink plugin of callbackd in Python.

A sink is a program that callbackd starts, one process for each sink block of its
configuration. It declares its settings, opens itself with them, and delivers one
event after another:

    import callbackd_sink as sink

    class Config(sink.Settings):
        url = sink.String("where to send")
        timeout = sink.Duration("how long a request may take", default="10s")
        title = sink.String("evaluated for each event", per_event=True, default=None)

    class MySink:
        def __init__(self, config):
            self.config = config

        def deliver(self, event, context):
            ...  # return: delivered; raise: tried again

    sink.serve(sink.Info(name="my-sink", version="1.0.0"), Config, MySink)

What `deliver` raises says what becomes of the event:

    raise sink.Permanent("no such account")      a dead letter: trying again is of no use
    raise sink.Retry("the receiver is down")     tried again, as the sink's retry settings say
    raise sink.RetryAfter("busy", 30)            tried again, in 30 seconds at the earliest
    raise sink.Throttled("too many requests", 5) the same, and the whole sink slows down
    any other exception                          tried again; its traceback goes to the log

`deliver` is called in several threads at the same time, at most
`Info.max_in_flight`. `context.remaining()` says how many seconds are left; pass it
on as the timeout of what you call. An event may come more than once:
`event.delivery_id` is the same each time.

A sink may also have these methods:

    deliver_batch(events, context)  instead of deliver: returns None when all were
                                    delivered, else a list with None or an exception
                                    for each event
    check(context)                  raises while the sink cannot work
    close(context)                  flushes and releases what the sink holds
    metrics()                       returns its Counters, Gauges and Histograms

Whoever opens the sink (the class above) raises `Invalid` for a mistake in a
setting, and anything else when it cannot be opened at present: callbackd then
tries again later. Standard output is free to use, print() does no harm. What goes
to the module logging arrives in callbackd's own log.

It needs Python 3.9 and the packages grpcio and protobuf (Debian: python3-grpcio,
python3-protobuf).
"""

from .errors import Invalid, InvalidSettings, Permanent, Retry, RetryAfter, Throttled
from .event import Context, Event
from .metrics import Counter, Gauge, Histogram
from .process import Info, serve
from .settings import (
    Any,
    Block,
    Blocks,
    Bool,
    Duration,
    List,
    Map,
    Number,
    Path,
    PerEvent,
    Settings,
    Size,
    String,
)

__all__ = [
    "Any",
    "Block",
    "Blocks",
    "Bool",
    "Context",
    "Counter",
    "Duration",
    "Event",
    "Gauge",
    "Histogram",
    "Info",
    "Invalid",
    "InvalidSettings",
    "List",
    "Map",
    "Number",
    "Path",
    "PerEvent",
    "Permanent",
    "Retry",
    "RetryAfter",
    "Settings",
    "Size",
    "String",
    "Throttled",
    "serve",
]
