"""What a sink raises: outcomes of a delivery, and mistakes in settings."""

import re

from . import sink_pb2 as pb

MAX_TEXT_BYTES = 4096


def clean_text(text):
    """Returns text for people: valid UTF-8 of at most 4 KiB."""
    encoded = str(text).encode("utf-8", "replace")
    return encoded[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def describe(error):
    """Returns the text of an exception; never empty, never raises."""
    try:
        text = str(error)
    except Exception as broken:  # the author's __str__
        text = f"(its text cannot be had: {type(broken).__name__})"
    return text or type(error).__name__


class DeliveryError(Exception):
    """Base of the exceptions that say what becomes of a delivery."""

    outcome = pb.OUTCOME_RETRY

    def __init__(self, message, after=0):
        """after: not before this many seconds. 0: as the sink's retry settings say."""
        super().__init__(message)
        self.after = max(0.0, float(after))


class Retry(DeliveryError):
    """The delivery is to be tried again, as the sink's retry settings say."""

    def __init__(self, message):
        super().__init__(message)


class RetryAfter(DeliveryError):
    """The delivery is to be tried again, not before `after` seconds have passed."""

    def __init__(self, message, after):
        super().__init__(message, after)


class Throttled(DeliveryError):
    """The receiver wants less: the delivery is tried again, not before `after`
    seconds have passed, and the daemon slows the whole sink down."""

    outcome = pb.OUTCOME_THROTTLED


class Permanent(DeliveryError):
    """Trying again is of no use: the delivery becomes a dead letter."""

    outcome = pb.OUTCOME_REJECTED

    def __init__(self, message):
        super().__init__(message)


class Invalid(Exception):
    """A mistake in a setting. callbackd shows it at its place in the configuration.

    path leads from the config block to the setting: "url", "tls.cert_file",
    "route[0].url", 'headers["X-Trace"]'; "" means the block as a whole. A list or
    tuple of the steps does, too. summary says in one sentence what is wrong, detail
    what to do about it. Neither may hold a secret.
    """

    def __init__(self, path, summary, detail=""):
        super().__init__(path, summary, detail)
        try:
            self.path = parse_path(path) if isinstance(path, str) else tuple(path)
        except ValueError:
            # A path that the author got wrong must not hide what is wrong.
            self.path, summary = (), f"{path}: {summary}"
        self.summary = summary
        self.detail = detail

    def __str__(self):
        where = f"{path_text(self.path)}: " if self.path else ""
        what_to_do = f" ({self.detail})" if self.detail else ""
        return f"{where}{self.summary}{what_to_do}"

    def diagnostic(self):
        out = pb.Diagnostic(
            severity=pb.SEVERITY_ERROR,
            summary=clean_text(self.summary),
            detail=clean_text(self.detail),
        )
        for step in self.path:
            if isinstance(step, int):
                out.path.add(index=step)
            else:
                out.path.add(name=clean_text(step))
        return out


class InvalidSettings(Exception):
    """Several mistakes in settings: `mistakes` is a list of Invalid."""

    def __init__(self, mistakes):
        self.mistakes = list(mistakes)
        super().__init__("; ".join(str(mistake) for mistake in self.mistakes))


_STEP = re.compile(r'\[(\d{1,9})\]|\["((?:[^"\\]|\\.)*)"\]|(\.?)([^.\[\]]+)')


def parse_path(path):
    """Reads "a.b[0].c" and 'headers["X-Y"]' into a tuple of its steps."""
    steps, at = [], 0
    while at < len(path):
        match = _STEP.match(path, at)
        if not match:
            raise ValueError(f"{path!r} is not the path of a setting")
        index, key, dot, name = match.groups()
        if name is not None and bool(dot) != bool(steps):
            raise ValueError(f"{path!r} is not the path of a setting")
        if index is not None:
            steps.append(int(index))
        elif key is not None:
            steps.append(re.sub(r"\\(.)", r"\1", key))
        else:
            steps.append(name)
        at = match.end()
    return tuple(steps)


def path_text(steps):
    """Writes the steps of a path as parse_path reads it."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", step):
            escaped = step.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{escaped}"]'
        else:
            text += f".{step}" if text else step
    return text
