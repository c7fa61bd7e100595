"""The process: how it begins, whom it listens to, how it ends."""

import concurrent.futures
import dataclasses
import faulthandler
import logging
import os
import signal
import sys
import threading

import grpc

from . import sink_pb2 as pb
from . import sink_pb2_grpc
from .errors import describe
from .log import Handler, level_from
from .server import Service, controller_handler, health_handler
from .settings import checked_name
from .transport import OPTIONS, TransportError, listen
from .usage import usage
from .work import CLOSE_TIMEOUT

LOG = logging.getLogger("callbackd_sink")

COOKIE, COOKIE_VALUE = "CALLBACKD_SINK", "callbackd.sink.v1"
PARENT_FD = "CALLBACKD_SINK_PARENT_FD"
LOG_LEVEL = "CALLBACKD_SINK_LOG_LEVEL"
# Of go-plugin's handshake, and of the sink protocol.
CORE_VERSION, PROTOCOL_VERSION = 1, 1

# Of each thread. The system's 8 MiB would soon use up the max_memory of the plugin,
# which counts what is reserved.
STACK_SIZE = 1 << 20

# How long the last results may take to the daemon.
FLUSH_TIME = 0.5
# Threads for the calls that are not Deliver. They are never held for long.
OTHER_CALLS = 8


@dataclasses.dataclass(frozen=True)
class Info:
    """Says who the sink is.

    name              the sink type: the TYPE of sink "TYPE" "NAME"
    version           the plugin's own version
    doc               what the sink does, in a sentence or two
    max_in_flight     how many events it works on at the same time: the number of
                      threads that call deliver
    max_calls         how many batches the daemon may hand over at the same time; with
                      deliver_batch the number of threads that call it
    max_batch_events  how many events a batch may have; 0: as the daemon likes
    linger            how many seconds the daemon may wait to fill a batch
    """

    name: str
    version: str
    doc: str = ""
    max_in_flight: int = 16
    max_calls: int = 4
    max_batch_events: int = 0
    linger: float = 0.0

    def __post_init__(self):
        checked_name(self.name)
        for field, low, high in (("max_in_flight", 1, 1024), ("max_calls", 1, 256), ("max_batch_events", 0, 8192)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"Info: {field} is {value!r}, not a whole number from {low} to {high}")
        if not 0 <= self.linger <= 60:
            raise ValueError(f"Info: linger is {self.linger!r}, not 0 to 60 seconds")

    def capabilities(self):
        out = pb.Capabilities(
            max_in_flight=self.max_in_flight, max_calls=self.max_calls, max_batch_events=self.max_batch_events
        )
        out.linger.seconds, out.linger.nanos = int(self.linger), int(self.linger % 1 * 1e9)
        return out


def serve(info, settings, open_sink):
    """Runs the sink plugin, and does not return: the process ends when the daemon is
    done with it. To be called by the main thread.

    settings is a class made of Settings. open_sink is called with an object of it,
    checked, and returns the sink.

    A program that is started by hand prints what it is and which settings it takes,
    and exits.
    """
    if os.environ.get(COOKIE) != COOKIE_VALUE:
        sys.exit(_by_hand(info, settings, sys.argv[1:]))
    stdout = _take_stdout()
    _set_up_log()
    threading.stack_size(STACK_SIZE)
    service = Service(info, settings, open_sink)
    process = _Process(service)
    threads = concurrent.futures.ThreadPoolExecutor(info.max_calls + OTHER_CALLS, thread_name_prefix="call")
    server = grpc.server(threads, options=OPTIONS)
    sink_pb2_grpc.add_SinkServiceServicer_to_server(service, server)
    server.add_generic_rpc_handlers((health_handler(), controller_handler(process.end)))
    try:
        address = listen(server, os.environ)
    except TransportError as error:
        LOG.error("%s", error)
        _exit(1)
    process.watch_signals()
    process.watch_parent()
    server.start()
    _hand_shake(stdout, address)
    process.wait()
    process.close_sink()
    server.stop(FLUSH_TIME).wait()
    _exit(0)


def _by_hand(info, settings, arguments):
    """Answers a person, and returns the exit code."""
    if arguments in (["--version"], ["version"]):
        print(info.name, info.version)
        return 0
    text = usage(info, settings.schema(), os.path.abspath(sys.argv[0]))
    if arguments in (["--help"], ["-h"], ["help"]):
        print(text, end="")
        return 0
    print(text, end="", file=sys.stderr)
    return 2


def _take_stdout():
    """Keeps standard output for the handshake, which must be its first line, and
    sends what was printed before, or is printed meanwhile, to standard error."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    sys.stdout.flush()
    return stdout


def _hand_shake(stdout, address):
    """Tells the daemon where to connect, and gives standard output back to print():
    the daemon reads it as lines of a log."""
    os.write(stdout, f"{CORE_VERSION}|{PROTOCOL_VERSION}|{address}\n".encode())
    sys.stdout.flush()
    os.dup2(stdout, 1)
    os.close(stdout)
    sys.stdout.reconfigure(line_buffering=True, errors="replace")


def _set_up_log():
    root = logging.getLogger()
    root.handlers[:] = [Handler(2)]
    root.setLevel(level_from(os.environ.get(LOG_LEVEL)))
    logging.captureWarnings(True)
    faulthandler.enable()

    def in_thread(failed):
        LOG.error("a thread ended with an exception", exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback))

    threading.excepthook = in_thread


def _exit(code):
    """Ends the process whatever its threads are doing."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(code)


class _Process:
    """Waits for whoever may end the process."""

    def __init__(self, service):
        self._service = service
        # A pipe, because a signal handler may not take a lock that its thread holds,
        # and because the kernel may give a signal to another thread than the one that
        # waits: whichever gets it, Python then writes to the pipe.
        self._awaited, self._waking = os.pipe()
        os.set_blocking(self._waking, False)
        self._over = False

    def end(self):
        self._over = True
        try:
            os.write(self._waking, b".")
        except BlockingIOError:
            pass  # it is awake

    def wait(self):
        while not self._over:
            os.read(self._awaited, 64)

    def close_sink(self):
        """Closes the sink, unless the daemon did."""
        if self._service.was_closed:
            return
        try:
            self._service.close(CLOSE_TIMEOUT)
        except Exception as error:
            LOG.error("closing the sink failed", extra={"error": describe(error)})

    def watch_signals(self):
        def terminate(number, frame):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
            LOG.info("closing: asked to end by a signal")
            self.end()

        signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, lambda number, frame: None)  # Ctrl-C is the daemon's business

    def watch_parent(self):
        """Ends the process when the daemon is gone: then the pipe ends whose number it gave."""
        # For programs that the sink starts, the number would mean nothing.
        text = os.environ.pop(PARENT_FD, None)
        if text is None:
            return
        try:
            fd = int(text)
            if fd <= 2:
                raise ValueError
            os.set_inheritable(fd, False)
        except (ValueError, OSError):
            LOG.warning(
                "the end of the daemon is not watched: the file descriptor it gave is none",
                extra={"env": PARENT_FD, "value": text},
            )
            return
        threading.Thread(target=self._await_parent, args=(fd,), name="parent", daemon=True).start()

    def _await_parent(self, fd):
        try:
            while os.read(fd, 64):
                pass
        except OSError as error:
            LOG.warning("the end of the daemon is not watched", extra={"error": str(error)})
            return
        LOG.warning("closing: the daemon is gone")
        # Whatever hangs, the process does not outlive the daemon.
        last_resort = threading.Timer(2 * CLOSE_TIMEOUT, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()
        self.end()
