"""Tests of the module callbackd_sink that need no daemon."""

import json
import logging
import threading
import unittest

import callbackd_sink as sink
from callbackd_sink import log, transport, work
from callbackd_sink import sink_pb2 as pb
from callbackd_sink.errors import clean_text, parse_path, path_text
from callbackd_sink.settings import parse_duration, parse_size


class PathTest(unittest.TestCase):
    def test_paths(self):
        for text, steps in {
            "": (),
            "url": ("url",),
            "tls.cert_file": ("tls", "cert_file"),
            "route[0].url": ("route", 0, "url"),
            'headers["X-A.b[]"]': ("headers", "X-A.b[]"),
            r'h["a\"b"]': ("h", 'a"b'),
        }.items():
            self.assertEqual(parse_path(text), steps)
            self.assertEqual(parse_path(path_text(steps)), steps)
        for text in (".a", "a..b", "a[", "a[x]", 'a["x]', "a]", "a.", "[0]a"):
            with self.subTest(text), self.assertRaises(ValueError):
                parse_path(text)

    def test_a_wrong_path_hides_nothing(self):
        diagnostic = sink.Invalid("a..b", "is wrong").diagnostic()
        self.assertEqual((diagnostic.summary, len(diagnostic.path)), ("a..b: is wrong", 0))


class TextTest(unittest.TestCase):
    def test_is_cut_and_repaired(self):
        self.assertEqual(clean_text("é" * 3000), "é" * 2048)
        self.assertEqual(clean_text("x" + "é" * 3000), "x" + "é" * 2047)
        self.assertEqual(clean_text("a\ud800b"), "a?b")


class UnitsTest(unittest.TestCase):
    def test_durations(self):
        for text, seconds in {"30s": 30, "1h30m": 5400, "7d": 604800, "1d12h": 129600, "1.5s": 1.5, "20ms": 0.02, "0s": 0}.items():
            self.assertAlmostEqual(parse_duration(text), seconds)
        for text in ("", "30", "-1s", "1s ", "s", "1dd", "h1"):
            with self.subTest(text), self.assertRaises(sink.Invalid):
                parse_duration(text)

    def test_sizes(self):
        for text, size in {"0B": 0, "10MiB": 10 << 20, "1.5 GiB": 3 << 29, "1kB": 1000, "1KB": 1000, "2PB": 2 * 10**15}.items():
            self.assertEqual(parse_size(text), size)
        for text in ("", "10", "MiB", "-1B", "1e3B", "0.3KiB", "9223372036854775808B", "1  KiB"):
            with self.subTest(text), self.assertRaises(sink.Invalid):
                parse_size(text)


class SettingsTest(unittest.TestCase):
    def test_the_author_is_told_of_mistakes(self):
        def class_with(**fields):
            return type("Config", (sink.Settings,), fields)

        for mistake, make in {
            "'a b': a name starts": lambda: class_with(x=sink.String(name="a b")),
            "used twice": lambda: class_with(x=sink.String(), y=sink.String(name="x")),
            "Settings has a method": lambda: class_with(validate=sink.String()),
            "cannot be one of a list": lambda: sink.String(one_of=["a"], per_event=True),
            "can be escaped": lambda: sink.String(escape={"a": "b"}),
            "not among|not allowed": lambda: sink.String(default="b", one_of=["a"]),
            "a string is expected": lambda: sink.String(default=1),
            "a number is expected": lambda: sink.Number(default=True),
            "not a whole number": lambda: sink.Number(default=1.5, whole=True),
            "is not like": lambda: sink.Duration(default="soon"),
        }.items():
            with self.subTest(mistake), self.assertRaisesRegex(Exception, mistake):
                # Python before 3.12 wraps what __set_name__ raises.
                try:
                    make()
                except RuntimeError as error:
                    raise error.__cause__ from None

    def test_blocks(self):
        class Strict(sink.Settings):
            a = sink.String()

        class Loose(sink.Settings):
            b = sink.Size(default="1KiB")

        class Config(sink.Settings):
            strict = sink.Block(Strict)
            loose = sink.Block(Loose)
            many = sink.Blocks(Strict)
            needed = sink.Block(Strict, required=True)

        config = Config.from_dict({"needed": {"a": "x"}, "many": [{"a": "1"}, {"a": "2"}]})
        self.assertIsNone(config.strict)
        self.assertEqual((config.loose.b, [one.a for one in config.many], config.needed.a), (1024, ["1", "2"], "x"))
        with self.assertRaises(sink.InvalidSettings) as caught:
            Config.from_dict({"many": [{"a": "1"}, {}], "strict": {"a": 1}, "loose": 3})
        self.assertEqual(
            sorted(str(mistake) for mistake in caught.exception.mistakes),
            [
                'a block "needed" is required',
                'loose: "loose" is a block',
                'many[1].a: "a" is required',
                "strict.a: a string is expected, not a int",
            ],
        )

    def test_sensitive_values_are_not_told(self):
        class Config(sink.Settings):
            key = sink.String(sensitive=True, one_of=["a"])

        self.assertNotIn("'a'", repr(Config.from_dict({"key": "a"})))
        with self.assertRaises(sink.InvalidSettings) as caught:
            Config.from_dict({"key": "hunter2"})
        self.assertNotIn("hunter2", str(caught.exception))

    def test_defaults_survive_the_wire(self):
        class Config(sink.Settings):
            values = (
                sink.String(default="x", name="s"),
                sink.Number(default=2**40, name="n"),
                sink.Number(default=0.25, name="f"),
                sink.Bool(default=False, name="b"),
                sink.Duration(default="1m0.5s", name="d"),
                sink.Size(default="1GiB", name="z"),
                sink.List(sink.List(sink.String()), default=[["a"], []], name="l"),
                sink.Map(sink.Bool(), default={"k": True}, name="m"),
                sink.Any(default=[None, {"a": 1}], name="a"),
            )

        for field in Config.values:
            sent = pb.Attribute.FromString(field.attribute().SerializeToString())
            self.assertEqual(field.from_wire(sent.default, ()), field.default, field.name)


class LogTest(unittest.TestCase):
    def line(self, *args, **extra):
        record = logging.LogRecord("probe", *args)
        vars(record).update(extra)
        return json.loads(log.format_record(record))

    def test_lines(self):
        line = self.line(logging.WARNING, "f.py", 1, "a %s", ("b",), None, answer=42, other=object, **{"@level": "x"})
        self.assertEqual((line["@level"], line["@message"], line["logger"], line["answer"]), ("warn", "a b", "probe", 42))
        self.assertRegex(line["@timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$")

    def test_tracebacks_keep_their_end(self):
        def deep(n):
            if n == 0:
                raise ValueError("the reason " + "é" * 100)
            other(n - 1)

        def other(n):
            deep(n)

        try:
            deep(20)
        except ValueError as error:
            info = (type(error), error, error.__traceback__)
        text = self.line(logging.ERROR, "f.py", 1, "m", (), info)["traceback"]
        self.assertLessEqual(len(text.encode()), 1024)
        self.assertIn("ValueError: the reason é", text)

    def test_levels(self):
        for text, level in {"DEBUG": 10, "info": 20, "WARN": 30, "ERROR": 40, "": 20, None: 20, "x": 20}.items():
            self.assertEqual(log.level_from(text), level)


class OutcomeTest(unittest.TestCase):
    def test_outcomes(self):
        for error, outcome, message, seconds in (
            (None, pb.OUTCOME_DELIVERED, "", 0),
            (sink.Permanent("no"), pb.OUTCOME_REJECTED, "no", 0),
            (sink.Retry("later"), pb.OUTCOME_RETRY, "later", 0),
            (sink.RetryAfter("later", 90), pb.OUTCOME_RETRY, "later", 90),
            (sink.Throttled("less", -3), pb.OUTCOME_THROTTLED, "less", 0),
            (sink.RetryAfter("never", float("inf")), pb.OUTCOME_RETRY, "never", int(work.MAX_RETRY_AFTER)),
            (sink.RetryAfter("odd", float("nan")), pb.OUTCOME_RETRY, "odd", 0),
            (KeyError("k"), pb.OUTCOME_RETRY, "KeyError: 'k'", 0),
            (ValueError(), pb.OUTCOME_RETRY, "ValueError: ValueError", 0),
            ("text", pb.OUTCOME_RETRY, "the sink returned str instead of None or an exception", 0),
        ):
            result = work.settled("d", error)
            self.assertEqual((result.outcome, result.message, result.retry_after.seconds), (outcome, message, seconds))


class WorkersTest(unittest.TestCase):
    def test_as_many_as_allowed_and_no_more(self):
        workers = work.Workers(3)
        lock, release, done = threading.Lock(), threading.Event(), threading.Semaphore(0)
        running, most = 0, 0

        def task():
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            release.wait(0.01)
            with lock:
                running -= 1
            done.release()

        for _ in range(50):
            workers.submit(task)
        for _ in range(50):
            self.assertTrue(done.acquire(timeout=10))
        self.assertEqual(most, 3)

    def test_stuck(self):
        workers = work.Workers(1)
        begun, release = threading.Event(), threading.Event()

        def task():
            workers.watch(sink.Context(-work.OVERDUE_GRACE - 1))
            begun.set()
            release.wait(10)
            workers.unwatch()

        self.assertFalse(workers.stuck())
        workers.submit(task)
        begun.wait(10)
        self.assertTrue(workers.stuck())
        release.set()


class TransportTest(unittest.TestCase):
    def test_a_folder_that_is_too_deep(self):
        with self.assertRaisesRegex(transport.TransportError, "more than 107 bytes: set TMPDIR"):
            transport.listen(None, {"PLUGIN_UNIX_SOCKET_DIR": "/" + "x" * 100})

    def test_the_certificate_is_one(self):
        key, certificate = transport.make_certificate()
        self.assertIn(b"PRIVATE KEY-----", key)
        self.assertEqual(transport.der(certificate)[:2], b"\x30\x82")


class MetricsTest(unittest.TestCase):
    def test_histogram(self):
        histogram = sink.Histogram("x_bytes", "h", [1, 10])
        for value in (0, 1, 5, 100):
            histogram.observe(value)
        sent = histogram.message().series[0].histogram
        self.assertEqual((sent.count, sent.sum), (4, 106))
        self.assertEqual([(b.upper_bound, b.cumulative_count) for b in sent.buckets], [(1, 2), (10, 3)])

    def test_misuse(self):
        counter = sink.Counter("x_total", "h", ["a"])
        with self.assertRaisesRegex(ValueError, "has 1 labels, not 0"):
            counter.add(1)
        with self.assertRaisesRegex(ValueError, "only ever grows"):
            counter.add(-1, "a")
        for i in range(200):
            counter.add(1, i)
        with self.assertRaisesRegex(ValueError, "more than 200 series"):
            counter.add(1, "one more")


if __name__ == "__main__":
    unittest.main()
