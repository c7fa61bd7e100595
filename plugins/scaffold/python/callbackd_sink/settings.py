"""The settings of a sink: declared as a class, checked, and made an object.

    class Config(sink.Settings):
        url = sink.String("where to send")                       # required
        key = sink.String("the account's key", sensitive=True)
        retries = sink.Number("how often", default=3, whole=True)
        mode = sink.String("how", default="fast", one_of=["fast", "safe"])
        text = sink.String("of a message", per_event=True, escape={"<": "&lt;"})

A setting without a default is required; default=None makes one that may be left
out. Per-event settings are expressions that callbackd evaluates for each event:
their value is `config.text.get(event)`.
"""

import fractions
import json
import math
import re

from . import sink_pb2 as pb
from .errors import Invalid, InvalidSettings

REQUIRED = object()

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


class Field:
    """A setting written NAME = VALUE.

    doc        what it does, for people
    default    its value where it is not set; without one the setting is required
    sensitive  its value is never printed
    per_event  it may be an expression over the event, see PerEvent
    escape     of a per-event setting: a dict of what is replaced by what in text
               that comes from events, so that it means nothing special to the receiver
    name       its name in the configuration, where that cannot be one in Python
    """

    kind = pb.KIND_UNSPECIFIED
    expected = "a value"
    wire_kinds = ()  # which kinds of pb.Value it comes as

    def __init__(self, doc="", *, default=REQUIRED, sensitive=False, per_event=False, escape=None, name=None):
        if escape and not per_event:
            raise ValueError("only what is evaluated per event can be escaped")
        self.doc, self.sensitive, self.per_event = doc, sensitive, per_event
        self.escape = dict(escape or {})
        self.name = name
        self.required = default is REQUIRED
        self.default = None if self.required or default is None else self.parse(default, ())

    def __set_name__(self, owner, attribute):
        self.name = checked_name(self.name or attribute)

    def wire_type(self):
        return pb.Type(kind=self.kind)

    def attribute(self):
        """Returns the setting as it is declared to callbackd."""
        out = pb.Attribute(
            name=self.name,
            type=self.wire_type(),
            doc=self.doc,
            required=self.required,
            sensitive=self.sensitive,
            per_event=self.per_event,
            one_of=getattr(self, "one_of", ()),
        )
        for old, new in self.escape.items():
            out.escape.add(**{"from": old, "to": new})
        if self.default is not None:
            out.default.CopyFrom(self.to_wire(self.default))
        return out

    def from_wire(self, value, path):
        """Returns the value as the author sees it. Raises Invalid."""
        kind = value.WhichOneof("kind")
        if kind not in self.wire_kinds:
            raise Invalid(path, f"{self.expected} is expected, not {_WIRE_NAMES.get(kind, 'null')}")
        return self.read(getattr(value, kind), path)

    def read(self, value, path):
        """Returns what is in a pb.Value of the right kind. Raises Invalid."""
        return value

    def parse(self, value, path):
        """Returns the value of a default or a test, checked. Raises Invalid."""
        raise NotImplementedError

    def to_wire(self, value):
        raise NotImplementedError

    def wrong(self, value, path):
        return Invalid(path, f"{self.expected} is expected, not a {type(value).__name__}")


class String(Field):
    """Text: a str. one_of lists the values that are allowed."""

    kind = pb.KIND_STRING
    expected = "a string"
    wire_kinds = ("text",)

    def __init__(self, doc="", *, one_of=(), **options):
        self.one_of = tuple(one_of)
        super().__init__(doc, **options)
        if self.one_of and self.per_event:
            raise ValueError("what is evaluated per event cannot be one of a list of values")

    def read(self, value, path):
        if self.one_of and value not in self.one_of:
            shown = "the value" if self.sensitive else json.dumps(value, ensure_ascii=False)
            raise Invalid(path, f"{shown} is not allowed here: it is one of {', '.join(self.one_of)}")
        return value

    def parse(self, value, path):
        if not isinstance(value, str):
            raise self.wrong(value, path)
        return self.read(value, path)

    def to_wire(self, value):
        return pb.Value(text=value)


class Path(Field):
    """A file system path: a str, absolute. callbackd resolves it against the folder
    of its configuration."""

    kind = pb.KIND_PATH
    expected = "a path"
    wire_kinds = ("text",)

    def parse(self, value, path):
        if not isinstance(value, str):
            raise self.wrong(value, path)
        return value

    def to_wire(self, value):
        return pb.Value(text=value)


class Bool(Field):
    """True or false: a bool."""

    kind = pb.KIND_BOOL
    expected = "true or false"
    wire_kinds = ("bool",)

    def parse(self, value, path):
        if not isinstance(value, bool):
            raise self.wrong(value, path)
        return value

    def to_wire(self, value):
        return pb.Value(bool=value)


class Number(Field):
    """A number: an int where it is a whole one within 64 bits, else a float.
    whole: others are refused."""

    kind = pb.KIND_NUMBER
    expected = "a number"
    wire_kinds = ("integer", "number")

    def __init__(self, doc="", *, whole=False, **options):
        self.whole = whole
        super().__init__(doc, **options)

    def read(self, value, path):
        if isinstance(value, float) and not math.isfinite(value):
            raise Invalid(path, "the number is not finite")
        if isinstance(value, float) and value.is_integer() and -(2**63) <= value < 2**63:
            value = int(value)
        if self.whole and not isinstance(value, int):
            raise Invalid(path, f"{value} is not a whole number")
        return value

    def parse(self, value, path):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(value, path)
        return self.read(value, path)

    def to_wire(self, value):
        if isinstance(value, int) and -(2**63) <= value < 2**63:
            return pb.Value(integer=value)
        return pb.Value(number=value)


class Duration(Field):
    """A length of time, written "1m30s" in the configuration: a float of seconds.
    As a default, either."""

    kind = pb.KIND_DURATION
    expected = "a duration"
    wire_kinds = ("duration",)

    def read(self, value, path):
        return value.seconds + value.nanos / 1e9

    def parse(self, value, path):
        if isinstance(value, str):
            return parse_duration(value, path)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.wrong(value, path)
        return float(value)

    def to_wire(self, value):
        out = pb.Value()
        out.duration.SetInParent()
        nanos = round(value * 1e9)
        sign = -1 if nanos < 0 else 1
        out.duration.seconds, out.duration.nanos = sign * (abs(nanos) // 10**9), sign * (abs(nanos) % 10**9)
        return out


class Size(Field):
    """A number of bytes, written "10MiB" in the configuration: an int. As a default,
    either."""

    kind = pb.KIND_SIZE
    expected = "a size"
    wire_kinds = ("integer",)

    def parse(self, value, path):
        if isinstance(value, str):
            return parse_size(value, path)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(value, path)
        return value

    def to_wire(self, value):
        return pb.Value(integer=value)


class Any(Field):
    """Any value of the configuration, as the module json would read it."""

    kind = pb.KIND_ANY
    expected = "a value"
    wire_kinds = ("json",)

    def read(self, value, path):
        try:
            return json.loads(value)
        except ValueError as error:
            raise Invalid(path, f"the value is not JSON: {error}") from error

    def parse(self, value, path):
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise Invalid(path, f"the value cannot be written as JSON: {error}") from error

    def to_wire(self, value):
        return pb.Value(json=json.dumps(value).encode())


class List(Field):
    """A list of an element: List(String(), "where to")."""

    kind = pb.KIND_LIST
    expected = "a list"
    wire_kinds = ("list",)

    def __init__(self, element, doc="", **options):
        self.element = element
        super().__init__(doc, **options)

    def wire_type(self):
        return pb.Type(kind=self.kind, element=self.element.wire_type())

    def read(self, value, path):
        items = ((item, (*path, i)) for i, item in enumerate(value.items))
        if self.per_event:  # of what an event does not have, nothing is left
            items = ((item, where) for item, where in items if not _is_null(item))
        return [self.element.from_wire(item, where) for item, where in items]

    def parse(self, value, path):
        if not isinstance(value, (list, tuple)):
            raise self.wrong(value, path)
        return [self.element.parse(item, (*path, i)) for i, item in enumerate(value)]

    def to_wire(self, value):
        return pb.Value(list=pb.List(items=[self.element.to_wire(item) for item in value]))


class Map(Field):
    """A dict from text to an element: Map(String(), "headers"). What is null is left
    out."""

    kind = pb.KIND_MAP
    expected = "a map"
    wire_kinds = ("object",)

    def __init__(self, element, doc="", **options):
        self.element = element
        super().__init__(doc, **options)

    def wire_type(self):
        return pb.Type(kind=self.kind, element=self.element.wire_type())

    def read(self, value, path):
        return {
            key: self.element.from_wire(item, (*path, key)) for key, item in value.fields.items() if not _is_null(item)
        }

    def parse(self, value, path):
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self.wrong(value, path)
        return {key: self.element.parse(item, (*path, key)) for key, item in value.items()}

    def to_wire(self, value):
        return pb.Value(object=pb.Object(fields={key: self.element.to_wire(item) for key, item in value.items()}))


class Block:
    """A nested block, NAME { … }, whose content is a Settings class. Where it is not
    there, the value is None; unless all that is in it may be left out: then it is an
    object of the defaults."""

    def __init__(self, settings, doc="", *, required=False, name=None):
        self.settings, self.doc, self.name = settings, doc, name
        self.min_items, self.max_items = (1 if required else 0), 0

    def __set_name__(self, owner, attribute):
        self.name = checked_name(self.name or attribute)

    def block(self):
        return pb.Block(
            name=self.name,
            doc=self.doc,
            repeated=isinstance(self, Blocks),
            min_items=self.min_items,
            max_items=self.max_items,
            schema=self.settings.schema(),
        )

    def decode(self, decoder, value, path):
        if not decoder.is_set(value):
            if self.min_items:
                decoder.mistake(Invalid(path[:-1], f'a block "{self.name}" is required'))
                return None
            return None if self.settings.needs_something() else decoder.settings(self.settings, {}, path)
        fields = decoder.fields(value)
        if fields is None:
            decoder.mistake(Invalid(path, f'"{self.name}" is a block'))
            return None
        return decoder.settings(self.settings, fields, path)


class Blocks(Block):
    """Any number of nested blocks of the same name: a list of objects. max_items 0:
    no limit."""

    def __init__(self, settings, doc="", *, min_items=0, max_items=0, name=None):
        super().__init__(settings, doc, name=name)
        self.min_items, self.max_items = min_items, max_items

    def decode(self, decoder, value, path):
        out = []
        for i, item in enumerate(decoder.items(value)):
            fields = decoder.fields(item)
            if fields is None:
                decoder.mistake(Invalid((*path, i), f'"{self.name}" is a block'))
            else:
                out.append(decoder.settings(self.settings, fields, (*path, i)))
        return out


class PerEvent:
    """The value of a setting that may be an expression over the event."""

    def __init__(self, *, fixed=None, key=None, function=None):
        self._fixed, self._key, self._function = fixed, key, function

    def get(self, event):
        """Returns the value for the event; None where it is null or not set."""
        if self._function is not None:
            return self._function(event)
        if self._key is not None:
            return event.per_event.get(self._key)
        return self._fixed

    def is_set(self):
        """Tells whether the configuration sets it."""
        return any(part is not None for part in (self._fixed, self._key, self._function))


class Settings:
    """Base of the class that declares a sink's settings."""

    _declared = {}  # what is declared, by its name in Python, in order

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        own = {key: value for key, value in vars(cls).items() if isinstance(value, (Field, Block))}
        for key in own:
            if hasattr(Settings, key):
                raise ValueError(f'{cls.__name__}.{key}: Settings has a method of that name: call it another, with name="{key}"')
        cls._declared = {**cls._declared, **own}
        names = [declared.name for declared in cls._declared.values()]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{cls.__name__}: the name {name!r} is used twice")

    def validate(self):
        """Checks what the schema cannot say, without side effects: raises Invalid, or
        returns a list of Invalid."""

    @classmethod
    def schema(cls):
        """Returns what is declared as it is sent to callbackd."""
        out = pb.Schema()
        for declared in cls._declared.values():
            if isinstance(declared, Block):
                out.blocks.append(declared.block())
            else:
                out.attributes.append(declared.attribute())
        return out

    @classmethod
    def needs_something(cls):
        """Tells whether something has to be set, so that a block cannot be left out."""
        return any(
            declared.min_items > 0 if isinstance(declared, Block) else declared.required
            for declared in cls._declared.values()
        )

    @classmethod
    def from_dict(cls, settings):
        """Makes an object of Python values, for tests, checked as callbackd would:
        raises InvalidSettings. Durations and sizes may be text ("30s", "10MiB"), a
        block is a dict, and a per-event setting its value or a function of the event."""
        return _decode(_PythonDecoder(), cls, settings)

    @classmethod
    def from_wire(cls, settings):
        """Returns an object of what callbackd sent, and the per-event settings whose
        values come with the events, by their keys. Raises InvalidSettings."""
        decoder = _WireDecoder()
        return _decode(decoder, cls, settings.fields), decoder.per_event

    def __repr__(self):
        parts = []
        for key, declared in self._declared.items():
            hidden = isinstance(declared, Field) and declared.sensitive
            parts.append(f"{key}={'***' if hidden else repr(getattr(self, key))}")
        return f"{type(self).__name__}({', '.join(parts)})"


class _Decoder:
    """Fills Settings and gathers what is wrong."""

    def __init__(self):
        self.mistakes = []
        self.per_event = {}

    def mistake(self, invalid):
        self.mistakes.append(invalid)

    def settings(self, cls, values, path):
        out = cls.__new__(cls)
        known = set()
        for key, declared in cls._declared.items():
            known.add(declared.name)
            where, value = (*path, declared.name), values.get(declared.name)
            if isinstance(declared, Block):
                decoded = declared.decode(self, value, where)
            else:
                decoded = self._field(declared, value, where)
            setattr(out, key, decoded)
        for name in values:
            if name not in known:
                self.mistake(Invalid((*path, name), f'"{name}" is not a setting of this sink'))
        return out

    def _field(self, field, value, path):
        decoded = field.default
        try:
            if self.is_set(value):
                decoded = self.value(field, value, path)
            elif field.required:
                raise Invalid(path, f'"{field.name}" is required')
        except Invalid as invalid:
            if field.sensitive and self.is_set(value):
                invalid.summary = "the value is not of the type and range that is expected here"
            self.mistake(invalid)
        if field.per_event and not isinstance(decoded, PerEvent):
            decoded = PerEvent(fixed=decoded)
        return decoded


class _WireDecoder(_Decoder):
    """Reads what callbackd sends."""

    def is_set(self, value):
        return value is not None and not _is_null(value)

    def fields(self, value):
        return value.object.fields if value.WhichOneof("kind") == "object" else None

    def items(self, value):
        return value.list.items if self.is_set(value) and value.WhichOneof("kind") == "list" else ()

    def value(self, field, value, path):
        if field.per_event and value.WhichOneof("kind") == "per_event":
            self.per_event[value.per_event.key] = field
            return PerEvent(key=value.per_event.key)
        return field.from_wire(value, path)


class _PythonDecoder(_Decoder):
    """Reads what tests write."""

    def is_set(self, value):
        return value is not None

    def fields(self, value):
        return value if isinstance(value, dict) else None

    def items(self, value):
        return value or ()

    def value(self, field, value, path):
        if field.per_event and callable(value):
            return PerEvent(function=value)
        return field.parse(value, path)


def _decode(decoder, cls, values):
    out = decoder.settings(cls, values, ())
    if not decoder.mistakes:
        try:
            decoder.mistakes.extend(out.validate() or ())
        except Invalid as invalid:
            decoder.mistakes.append(invalid)
        except InvalidSettings as several:
            decoder.mistakes.extend(several.mistakes)
    if decoder.mistakes:
        raise InvalidSettings(decoder.mistakes)
    return out


def _is_null(value):
    return value.WhichOneof("kind") is None


_WIRE_NAMES = {
    "text": "a string",
    "bool": "true or false",
    "integer": "a number",
    "number": "a number",
    "duration": "a duration",
    "list": "a list",
    "object": "a map",
    "json": "a value in JSON",
    "per_event": "a per-event value",
}


def checked_name(name):
    """Returns the name of a sink type or setting. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: a name starts with a letter or _ and has at most 63 letters, digits, _ and -")
    return name


_DURATION = re.compile(r"(?:(?P<days>\d+)d)?(?P<rest>(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h))*)")
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def parse_duration(text, path=()):
    """Reads "30s", "1h30m" or "7d" into seconds. Raises Invalid."""
    match = _DURATION.fullmatch(text)
    if not text or not match:
        raise Invalid(path, f'duration "{text}" is not like "30s", "1h30m" or "7d"')
    seconds = 86400.0 * int(match["days"] or 0)
    return seconds + sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(match["rest"]))


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|KiB|MiB|GiB|TiB|PiB|kB|KB|MB|GB|TB|PB)")
_BYTES = {"B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    _BYTES[_letter + "iB"], _BYTES[_letter + "B"] = 1024**_power, 1000**_power
_BYTES["kB"] = 1000


def parse_size(text, path=()):
    """Reads "10MiB" or "1.5 GiB" into bytes. Raises Invalid."""
    match = _SIZE.fullmatch(text)
    if not match or len(match[1]) > 20:
        raise Invalid(path, f'size "{text}" is not a number with a unit, like "10MiB" or "512B"')
    size = fractions.Fraction(match[1]) * _BYTES[match[2]]
    if size.denominator != 1 or size >= 2**63:
        raise Invalid(path, f'size "{text}" is not a whole number of bytes below 2^63')
    return int(size)
