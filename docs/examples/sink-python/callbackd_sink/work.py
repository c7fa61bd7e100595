"""Running the author's code: threads, deadlines, the life of an open sink."""

import logging
import os
import queue
import threading
import time

from .errors import DeliveryError, Permanent, Retry, clean_text, describe
from .event import Context, Event
from .log import Sparingly
from . import sink_pb2 as pb

LOG = logging.getLogger("callbackd_sink")

# How long close may take where the daemon does not say it, and at most.
CLOSE_TIMEOUT = 5.0
MAX_CLOSE_TIMEOUT = 600.0
# How long work may go on after its deadline before it counts as stuck.
OVERDUE_GRACE = 1.0
# What a sink may ask the daemon to wait.
MAX_RETRY_AFTER = 10 * 365 * 86400.0


class Closed(Exception):
    """The sink is closed, or being closed."""


class Workers:
    """At most so many threads that run the author's code. They are started as they
    are needed, and never keep the process from ending."""

    def __init__(self, count):
        self._count = count
        self._tasks = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0  # tasks that no thread has begun with
        self._free = 0  # threads that have nothing to do
        self._threads = 0
        self._contexts = {}  # of what is in work, by the thread

    def submit(self, task):
        with self._lock:
            self._waiting += 1
            start = self._waiting > self._free and self._threads < self._count
            if start:
                self._threads += 1
                self._free += 1
        self._tasks.put(task)
        if start:
            self._start()

    def _start(self):
        try:
            threading.Thread(target=self._work, name="deliver", daemon=True).start()
        except RuntimeError as error:  # too many threads, or too little memory for one
            with self._lock:
                self._threads -= 1
                self._free -= 1
                left = self._threads
            if left == 0:
                raise
            LOG.warning("a thread could not be started: fewer events are delivered at the same time", extra={"error": str(error)})

    def _work(self):
        while True:
            task = self._tasks.get()
            with self._lock:
                self._waiting -= 1
                self._free -= 1
            try:
                task()
            except BaseException as error:  # tasks catch what the author raises: this is ours
                LOG.critical("a delivery could not be settled", exc_info=error)
            with self._lock:
                self._free += 1

    def watch(self, context):
        """Notes what the calling thread works on."""
        with self._lock:
            self._contexts[threading.get_ident()] = context

    def unwatch(self):
        with self._lock:
            self._contexts.pop(threading.get_ident(), None)

    def stuck(self):
        """Tells whether all threads hang in work that should have ended."""
        with self._lock:
            contexts = list(self._contexts.values())
        return len(contexts) >= self._count and all(context.overdue(OVERDUE_GRACE) for context in contexts)


class Instance:
    """An open sink."""

    def __init__(self, ref, sink, per_event, info):
        self.name, self.generation = ref.name, ref.generation
        self.sink = sink
        self.batches = callable(getattr(sink, "deliver_batch", None))
        self.batch_size = info.max_batch_events if self.batches else 1
        self.workers = Workers(info.max_calls if self.batches else info.max_in_flight)
        self._per_event = per_event
        self._tracebacks = Sparingly()
        self._state = threading.Condition()
        self._users = 0
        self._closing = False
        self._calls = set()
        self._close_lock = threading.Lock()
        self._close_result = None

    def __str__(self):
        return f'sink "{self.name}" of generation {self.generation}'

    def __enter__(self):
        with self._state:
            if self._closing:
                raise Closed(f"{self} is closed")
            self._users += 1
        return self

    def __exit__(self, *_):
        with self._state:
            self._users -= 1
            self._state.notify_all()

    def more(self):
        """Adds a user while the caller is one itself."""
        with self._state:
            self._users += 1

    def enter_call(self, call):
        with self._state:
            self._calls.add(call)

    def leave_call(self, call):
        with self._state:
            self._calls.discard(call)

    def event(self, delivery):
        """Returns the Event of a delivery. Raises what becomes of it where it is none."""
        if not delivery.HasField("event"):
            raise Retry("the daemon sent a delivery without an event")
        values = {}
        for key, field in self._per_event.items():
            value = delivery.per_event.get(key)
            if value is None or value.WhichOneof("kind") is None:
                continue
            try:
                values[key] = field.from_wire(value, ())
            except Exception as error:
                # The next attempt would find the same value.
                raise Permanent(f"the value of {key} does not fit: {describe(error)}") from error
        return Event.from_delivery(delivery, values)

    def failed(self, where, error):
        """Logs the traceback of an exception that nobody meant to raise."""
        if isinstance(error, DeliveryError):
            return
        shown = error.__traceback__
        while shown is not None and shown.tb_next is not None and _is_ours(shown):
            shown = shown.tb_next
        raised = shown
        while raised is not None and raised.tb_next is not None:
            raised = raised.tb_next
        kind = (where, type(error), raised and (raised.tb_frame.f_code.co_filename, raised.tb_lineno))
        if self._tracebacks.admit(kind):
            LOG.error("the sink raised an exception", exc_info=(type(error), error, shown), extra={"in": where})

    def check(self, context):
        """Returns why the sink cannot work at present; "": it can."""
        if self.workers.stuck():
            return "all deliveries in work are past their time and do not return"
        check = getattr(self.sink, "check", None)
        if not callable(check):
            return ""
        try:
            check(context)
        except Exception as error:
            self.failed("check", error)
            return clean_text(describe(error))
        return ""

    def metrics(self):
        metrics = getattr(self.sink, "metrics", None)
        return [metric.message() for metric in metrics()] if callable(metrics) else []

    def close(self, timeout):
        """Waits for what is in work, then closes the sink. Where the wait takes three
        quarters of the time, deliveries in work are told that nobody waits for them,
        so that there is time left to flush what was done. Raises an exception where
        it fails; TimeoutError where it takes too long. Closing twice is fine."""
        deadline = time.monotonic() + min(timeout, MAX_CLOSE_TIMEOUT)
        patience = 0.75 * min(timeout, MAX_CLOSE_TIMEOUT)
        with self._state:
            self._closing = True
            idle = self._state.wait_for(lambda: self._users == 0, patience)
            calls = list(self._calls)
        if not idle:
            for call in calls:
                call.cancel()
            with self._state:
                if not self._state.wait_for(lambda: self._users == 0, max(0.0, deadline - time.monotonic())):
                    raise TimeoutError("deliveries are still in work")
        with self._close_lock:
            if self._close_result is None:
                self._close_result = self._close_sink(max(0.1, deadline - time.monotonic()))
        if isinstance(self._close_result, BaseException):
            raise self._close_result

    def _close_sink(self, timeout):
        close = getattr(self.sink, "close", None)
        if not callable(close):
            return "closed"
        result = queue.SimpleQueue()

        def run():
            try:
                close(Context(timeout))
                result.put("closed")
            except BaseException as error:
                self.failed("close", error)
                result.put(error)

        threading.Thread(target=run, name="close", daemon=True).start()
        try:
            return result.get(timeout=timeout)
        except queue.Empty:
            return TimeoutError("the sink does not close")


class Call:
    """One Deliver call: hands its events to the sink and gathers the results."""

    def __init__(self, instance, request):
        self._instance = instance
        timeout = request.timeout.seconds + request.timeout.nanos / 1e9
        self._timeout = timeout if timeout > 0 else None
        self._deliveries = request.deliveries
        self._cancelled = threading.Event()  # events that are not begun are left
        self._results = queue.SimpleQueue()  # None: the call has ended

    def cancel(self):
        self._cancelled.set()

    def abandon(self):
        """The daemon does not wait for results any more."""
        self._cancelled.set()
        self._results.put(None)

    def responses(self):
        """Yields the results as they become known, each delivery's once."""
        events, waiting = [], len(self._deliveries)
        for delivery in self._deliveries:
            try:
                events.append(self._instance.event(delivery))
            except Exception as error:
                self._results.put([settled(delivery.id, error)])
        size = max(1, self._instance.batch_size or len(events))
        for start in range(0, len(events), size):
            self._submit(events[start : start + size])
        while waiting > 0:
            results = self._results.get()
            while results is not None and not self._results.empty():
                more = self._results.get()
                results = None if more is None else results + more
            if results is None:
                return
            waiting -= len(results)
            yield pb.DeliverResponse(results=results)

    def _submit(self, events):
        self._instance.more()

        def task():
            with _ending(self._instance):
                self._results.put(self._deliver(events))

        self._instance.workers.submit(task)

    def _deliver(self, events):
        if self._cancelled.is_set():
            return [settled(event.delivery_id, Retry("the sink is closing")) for event in events]
        context = Context(self._timeout, self._cancelled)
        self._instance.workers.watch(context)
        try:
            if not self._instance.batches:
                return [settled(events[0].delivery_id, self._run("deliver", self._deliver_one, events[0], context))]
            return self._deliver_batch(events, context)
        finally:
            self._instance.workers.unwatch()

    def _deliver_one(self, event, context):
        self._instance.sink.deliver(event, context)

    def _deliver_batch(self, events, context):
        errors = []
        failed = self._run("deliver_batch", lambda: errors.append(self._instance.sink.deliver_batch(events, context)))
        if failed is None and errors[0] is not None:
            try:
                return self._settle_batch(events, list(errors[0]))
            except TypeError:
                failed = Retry(f"the sink returned {type(errors[0]).__name__} instead of a list of errors")
        return [settled(event.delivery_id, failed) for event in events]

    def _settle_batch(self, events, errors):
        if len(errors) != len(events):
            LOG.error("the sink returned the wrong number of errors", extra={"events": len(events), "errors": len(errors)})
        missing = Retry(f"the sink returned {len(errors)} errors for {len(events)} events, none for this one")
        errors += [missing] * (len(events) - len(errors))
        for error in errors:
            if isinstance(error, BaseException) and error.__traceback__ is not None:
                self._instance.failed("deliver_batch", error)
        return [settled(event.delivery_id, error) for event, error in zip(events, errors)]

    def _run(self, where, function, *arguments):
        """Runs the author's code and returns what it raised, or None."""
        try:
            function(*arguments)
        except BaseException as error:  # also SystemExit: a sink is ended by the daemon
            self._instance.failed(where, error)
            return error
        return None


def _is_ours(frame):
    """Tells whether a frame of a traceback is of this module, not of the author's."""
    return os.path.dirname(frame.tb_frame.f_code.co_filename) == os.path.dirname(__file__)


class _ending:
    """Ends one use of an instance."""

    def __init__(self, instance):
        self._instance = instance

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self._instance.__exit__(*details)


def settled(delivery_id, error):
    """Returns the result that an exception of the sink means; None: delivered."""
    if error is None:
        return pb.Result(delivery_id=delivery_id, outcome=pb.OUTCOME_DELIVERED)
    if not isinstance(error, BaseException):
        error = Retry(f"the sink returned {type(error).__name__} instead of None or an exception")
    text = describe(error)
    if not isinstance(error, DeliveryError):
        text = f"{type(error).__name__}: {text}"
    result = pb.Result(
        delivery_id=delivery_id,
        outcome=getattr(error, "outcome", pb.OUTCOME_RETRY) if isinstance(error, DeliveryError) else pb.OUTCOME_RETRY,
        message=clean_text(text),
    )
    after = min(getattr(error, "after", 0.0), MAX_RETRY_AFTER) if isinstance(error, DeliveryError) else 0.0
    if after > 0:
        result.retry_after.seconds, result.retry_after.nanos = int(after), int(after % 1 * 1e9)
    return result
