"""Writes locales/en/nodeDefs.json from the nodes' schemas: `.venv/bin/python tests/make_locales.py`.

Run it by hand after a change of a schema, and bring the other languages to the same keys.
"""

import json
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


def main() -> None:
    # Here, because pytest has a conftest of its own already: the pack would be loaded twice.
    import conftest  # noqa: F401  the host's modules, and the pack as xavi9videos

    text = json.dumps(node_defs(), indent=2, ensure_ascii=False) + "\n"
    (FOLDER / "en" / "nodeDefs.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
