"""Writes locales/en from the nodes' schemas and from nodes/errors.py: `.venv/bin/python tests/make_locales.py`.

Run it by hand after a change of a schema or a failure, and bring the other languages to the same keys.
"""

import json
import re
from importlib import import_module

from setup_host import REPO

FOLDER = REPO / "locales"


def named(part) -> dict[str, str]:
    """The two texts of an input or output."""
    return {"name": part.display_name or part.id, "tooltip": part.tooltip}


def node_defs() -> dict[str, dict]:
    """The English texts of every node, keyed as the editor looks them up."""
    from xavi9videos.nodes.extension import ROOMS

    found = {}
    for room in ROOMS:
        for schema in (node.define_schema() for node in import_module(f"xavi9videos.nodes.{room}.nodes").NODES):
            found[schema.node_id] = {
                "display_name": schema.display_name,
                "description": schema.description,
                # One inside a DynamicCombo is called format.crf, and the editor makes "_" of every ".".
                "inputs": {part.id if part is it else f"{it.id}_{part.id}": named(part)
                           for it in schema.inputs for part in it.get_all()},
                "outputs": {str(index): named(part) for index, part in enumerate(schema.outputs)},
            }
    return found


def failure_classes() -> list[type]:
    from xavi9videos.nodes import errors

    return [it for it in vars(errors).values() if hasattr(it, "code")]


def failures() -> dict[str, dict[str, str]]:
    """The English texts of every failure by its code, with bare names in their braces: the editor fills them in."""
    return {it.code: {part: re.sub(r"[:!][^{}]*}", "}", getattr(it, part)) for part in ("text", "remedy")}
            for it in failure_classes()}


def write(name: str, texts: dict) -> None:
    (FOLDER / "en" / name).write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    # Here, because pytest has a conftest of its own already: the pack would be loaded twice.
    import conftest  # noqa: F401  the host's modules, and the pack as xavi9videos

    write("nodeDefs.json", node_defs())
    ours = json.loads((FOLDER / "en" / "main.json").read_text("utf-8"))
    ours["xavi9"]["failures"] = failures()
    write("main.json", ours)


if __name__ == "__main__":
    main()
