"""What a person is told who starts the plugin by hand."""

import json

from . import sink_pb2 as pb

_KINDS = {
    pb.KIND_STRING: "string",
    pb.KIND_NUMBER: "number",
    pb.KIND_BOOL: "true or false",
    pb.KIND_DURATION: "duration",
    pb.KIND_SIZE: "size",
    pb.KIND_PATH: "path",
    pb.KIND_LIST: "list",
    pb.KIND_MAP: "map",
    pb.KIND_ANY: "value",
}


def usage(info, schema, program):
    """Returns the text."""
    lines = [f"{info.name} {info.version}: a sink plugin of callbackd"]
    if info.doc:
        lines += ["", info.doc]
    lines += [
        "",
        "It is not started by hand. Name it in callbackd's configuration:",
        "",
        f'  plugin "{info.name}" {{',
        f'    command = ["/usr/bin/python3", {json.dumps(program)}]',
        "  }",
        "",
        f'  sink "{info.name}" "NAME" {{',
        "    config {",
        "      ...",
        "    }",
        "  }",
        "",
    ]
    rows = list(_rows(schema, "  "))
    if not rows:
        return "\n".join([*lines, "It has no settings.", ""])
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines += ["Settings:", ""]
    lines += [f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {doc}".rstrip() for name, kind, doc in rows]
    return "\n".join([*lines, ""])


def _rows(schema, indent):
    for attribute in schema.attributes:
        yield indent + attribute.name, _attribute_text(attribute), attribute.doc
    for block in schema.blocks:
        kind = "block, required" if block.min_items else "block"
        yield indent + block.name + " { }", "any number of blocks" if block.repeated else kind, block.doc
        yield from _rows(block.schema, indent + "  ")


def _attribute_text(attribute):
    words = [_type_text(attribute.type)]
    if attribute.per_event:
        words.append("evaluated per event")
    if attribute.one_of:
        words.append("one of " + " ".join(attribute.one_of))
    if attribute.required:
        words.append("required")
    elif attribute.HasField("default") and not attribute.sensitive:
        words.append("default " + _value_text(attribute.default))
    return ", ".join(words)


def _type_text(kind):
    text = _KINDS[kind.kind]
    return f"{text} of {_type_text(kind.element)}" if kind.HasField("element") else text


def _value_text(value):
    kind = value.WhichOneof("kind")
    if kind == "duration":
        return f'"{value.duration.seconds + value.duration.nanos / 1e9:g}s"'
    if kind == "json":
        return value.json.decode()
    if kind == "list":
        return "[" + ", ".join(_value_text(item) for item in value.list.items) + "]"
    if kind == "object":
        return "{" + ", ".join(f"{key} = {_value_text(item)}" for key, item in value.object.fields.items()) + "}"
    return json.dumps(getattr(value, kind), ensure_ascii=False)
