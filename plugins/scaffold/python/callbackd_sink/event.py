"""What a sink is handed: the event, and how much time there is for it."""

import datetime
import json
import threading
import time


class Event:
    """An event to deliver. All attributes are read-only by convention.

    delivery_id   the idempotency key: the same over attempts, restarts and redrives
    id            of the event, a ULID
    source        the bare name of the source
    type          the event's type
    subject       "" where the event has none
    time          when it happened, a datetime in UTC; None where it cannot be one
    accepted      when callbackd accepted it, likewise
    content_type  of the body; "" where the sender gave none
    body          bytes: as received, or what the pipeline's transform made of it
    pipeline      the pipeline that routed it here
    attempt       1 for the first attempt
    headers       dict: headers that the transform sets, for sinks that send headers

    In tests make one of keyword arguments: Event(delivery_id="d1", body=b"{}").
    """

    __slots__ = (
        "accepted",
        "attempt",
        "body",
        "content_type",
        "delivery_id",
        "headers",
        "id",
        "per_event",
        "pipeline",
        "source",
        "subject",
        "time",
        "type",
    )

    def __init__(
        self,
        *,
        delivery_id="",
        id="",
        source="",
        type="",
        subject="",
        time=None,
        accepted=None,
        content_type="",
        body=b"",
        pipeline="",
        attempt=1,
        headers=None,
        per_event=None,
    ):
        self.delivery_id = delivery_id
        self.id = id
        self.source = source
        self.type = type
        self.subject = subject
        self.time = time
        self.accepted = accepted
        self.content_type = content_type
        self.body = body
        self.pipeline = pipeline
        self.attempt = attempt
        self.headers = headers or {}
        self.per_event = per_event or {}  # values by key; read with PerEvent.get

    def json(self):
        """Returns the body parsed as JSON. Raises ValueError where it is none."""
        return json.loads(self.body)

    def __repr__(self):  # without the body, which is nobody's business in a log
        return f"Event(id={self.id!r}, type={self.type!r}, delivery_id={self.delivery_id!r})"

    @classmethod
    def from_delivery(cls, delivery, per_event):
        event = delivery.event
        return cls(
            delivery_id=delivery.id,
            id=event.id,
            source=event.source,
            type=event.type,
            subject=event.subject,
            time=_datetime(event, "time"),
            accepted=_datetime(event, "accepted"),
            content_type=event.content_type,
            body=event.body,
            pipeline=delivery.pipeline,
            attempt=delivery.attempt,
            headers=dict(delivery.headers),
            per_event=per_event,
        )


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def _datetime(event, field):
    if not event.HasField(field):
        return None
    stamp = getattr(event, field)
    try:
        return _EPOCH + datetime.timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)
    except OverflowError:  # datetime ends with the year 9999
        return None


class Context:
    """How much time there is. In tests, Context() has no limit."""

    def __init__(self, timeout=None, cancelled=None):
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._cancelled = cancelled or threading.Event()

    def remaining(self):
        """Returns how many seconds are left: never less than 0; None: no limit."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic())

    def done(self):
        """Tells whether the time is over, or nobody waits for the result any more."""
        return self._cancelled.is_set() or self.remaining() == 0.0

    def wait(self, seconds):
        """Waits, but not longer than there is time. False: go on no more."""
        left = self.remaining()
        self._cancelled.wait(seconds if left is None else min(seconds, left))
        return not self.done()

    def overdue(self, grace):
        """Tells whether the time has been over for so many seconds."""
        return self._deadline is not None and time.monotonic() > self._deadline + grace
