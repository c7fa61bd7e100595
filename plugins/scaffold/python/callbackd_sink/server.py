"""The service callbackd.sink.v1, and those of go-plugin that callbackd needs."""

import logging
import threading
import time

import grpc
from google.protobuf import empty_pb2, wrappers_pb2

from . import sink_pb2 as pb
from . import sink_pb2_grpc
from .errors import Invalid, InvalidSettings, clean_text, describe
from .event import Context
from .work import CLOSE_TIMEOUT, Call, Closed, Instance

LOG = logging.getLogger("callbackd_sink")


class Service(sink_pb2_grpc.SinkServiceServicer):
    """What the daemon calls."""

    def __init__(self, info, settings, open_sink):
        self._info, self._settings, self._open = info, settings, open_sink
        self._describe = pb.DescribeResponse(
            name=info.name, version=info.version, doc=info.doc, schema=settings.schema(), capabilities=info.capabilities()
        )
        self._lifecycle = threading.Lock()  # held while a sink is opened or closed
        self._state = threading.Lock()
        self._instance = None
        self._closed = False
        self.was_closed = False  # the daemon has called Close, whatever came of it

    def Describe(self, request, rpc):
        return self._describe

    def Configure(self, request, rpc):
        try:
            settings, per_event = self._settings.from_wire(request.settings)
        except InvalidSettings as several:
            return refusal(several.mistakes)
        except Exception as error:  # validate is the author's
            LOG.error("the sink raised an exception", exc_info=error, extra={"in": "validate"})
            return refusal([Invalid("", f"checking the settings failed: {type(error).__name__}: {describe(error)}")])
        if request.validate_only:
            return pb.ConfigureResponse()
        if not self._lifecycle.acquire(timeout=patience(rpc)):
            rpc.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "another sink is being opened or closed")
        try:
            return self._open_sink(request.sink, settings, per_event, rpc)
        finally:
            self._lifecycle.release()

    def _open_sink(self, ref, settings, per_event, rpc):
        with self._state:
            current, closed = self._instance, self._closed
        if closed:
            rpc.abort(grpc.StatusCode.FAILED_PRECONDITION, "the plugin is closed")
        if current is not None:
            rpc.abort(grpc.StatusCode.FAILED_PRECONDITION, f"the plugin serves {current} already")
        try:
            sink = self._open(settings)
            if not any(callable(getattr(sink, name, None)) for name in ("deliver", "deliver_batch")):
                raise TypeError("what opens the sink returned nothing that has a method deliver or deliver_batch")
        except Invalid as invalid:
            return refusal([invalid])
        except InvalidSettings as several:
            return refusal(several.mistakes)
        except Exception as error:
            # The settings may well be right: what failed may work later.
            LOG.warning("the sink could not be opened", exc_info=error)
            return pb.ConfigureResponse(unavailable=clean_text(f"{type(error).__name__}: {describe(error)}"))
        instance = Instance(ref, sink, per_event, self._info)
        if not rpc.is_active():
            # The daemon has given up on this call and will not come back for the sink.
            try:
                instance.close(CLOSE_TIMEOUT)
            except Exception as error:
                LOG.warning("closing a sink that came too late failed", extra={"error": describe(error)})
            return pb.ConfigureResponse()
        with self._state:
            self._instance = instance
        return pb.ConfigureResponse()

    def Deliver(self, request, rpc):
        with self._use(request.sink, rpc) as instance:
            call = Call(instance, request)
            instance.enter_call(call)
            try:
                if rpc.add_callback(call.abandon):
                    yield from call.responses()
            finally:
                instance.leave_call(call)

    def Check(self, request, rpc):
        with self._use(request.sink, rpc) as instance:
            why = instance.check(Context(patience(rpc)))
        return pb.CheckResponse(healthy=not why, message=why)

    def Metrics(self, request, rpc):
        with self._use(request.sink, rpc) as instance:
            return pb.MetricsResponse(metrics=instance.metrics())

    def Close(self, request, rpc):
        with self._state:
            configured = self._instance is not None
        if configured:
            self._instance_for(request.sink, rpc)
        try:
            self.close(patience(rpc))
        except TimeoutError as error:
            rpc.abort(grpc.StatusCode.DEADLINE_EXCEEDED, clean_text(describe(error)))
        except Exception as error:
            rpc.abort(grpc.StatusCode.UNKNOWN, clean_text(f"{type(error).__name__}: {describe(error)}"))
        finally:
            self.was_closed = True
        return pb.CloseResponse()

    def close(self, timeout=CLOSE_TIMEOUT):
        """Ends the work: no sink is opened after it."""
        deadline = time.monotonic() + timeout
        if not self._lifecycle.acquire(timeout=timeout):
            raise TimeoutError("the sink is still being opened")
        try:
            with self._state:
                self._closed = True
                instance = self._instance
            if instance is not None:
                instance.close(max(0.1, deadline - time.monotonic()))
        finally:
            self._lifecycle.release()

    def _instance_for(self, ref, rpc):
        with self._state:
            instance = self._instance
        if instance is None:
            rpc.abort(grpc.StatusCode.FAILED_PRECONDITION, "no sink is configured")
        if (instance.name, instance.generation) != (ref.name, ref.generation):
            rpc.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f'the plugin serves {instance}, not sink "{ref.name}" of generation {ref.generation}',
            )
        return instance

    def _use(self, ref, rpc):
        instance = self._instance_for(ref, rpc)
        return _Use(instance, rpc)


class _Use:
    """The use of an instance by a call; refuses the call when it is closed."""

    def __init__(self, instance, rpc):
        self._instance, self._rpc = instance, rpc

    def __enter__(self):
        try:
            return self._instance.__enter__()
        except Closed as closed:
            self._rpc.abort(grpc.StatusCode.FAILED_PRECONDITION, str(closed))

    def __exit__(self, *details):
        self._instance.__exit__(*details)


def refusal(mistakes):
    return pb.ConfigureResponse(diagnostics=[mistake.diagnostic() for mistake in mistakes])


def patience(rpc):
    """Returns how many seconds the daemon waits for the answer to a call."""
    left = rpc.time_remaining()
    return CLOSE_TIMEOUT if left is None else max(0.0, left)


def health_handler():
    """Serves grpc.health.v1.Health as far as go-plugin asks: Check of the service
    "plugin". On the wire its request is a StringValue, its answer a UInt32Value, in
    which 1 means SERVING."""

    def check(request, rpc):
        if request.value not in ("", "plugin"):
            rpc.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return wrappers_pb2.UInt32Value(value=1)

    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {
            "Check": grpc.unary_unary_rpc_method_handler(
                check,
                request_deserializer=wrappers_pb2.StringValue.FromString,
                response_serializer=wrappers_pb2.UInt32Value.SerializeToString,
            )
        },
    )


def controller_handler(shut_down):
    """Serves plugin.GRPCController of go-plugin: Shutdown, an empty message both ways."""

    def answer(request, rpc):
        shut_down()
        return empty_pb2.Empty()

    return grpc.method_handlers_generic_handler(
        "plugin.GRPCController",
        {
            "Shutdown": grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=empty_pb2.Empty.FromString,
                response_serializer=empty_pb2.Empty.SerializeToString,
            )
        },
    )
