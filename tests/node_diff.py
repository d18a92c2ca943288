"""What of the nodes is missing that workflows people have use: `python tests/node_diff.py OLD NEW`, two nodeDefs.json.

locales/en/nodeDefs.json is what the schemas say, by a test. ComfyUI's own node-diff reads NODE_CLASS_MAPPINGS, which a
pack of V3 nodes has not. Their types are not compared.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path


def missing(old: dict, new: dict) -> Iterator[str]:
    """The nodes, inputs and outputs that are gone, in words."""
    for node, it in old.items():
        if node not in new:
            yield f"the node {node}"
            continue
        for side in ("inputs", "outputs"):
            gone = it.get(side, {}).keys() - new[node].get(side, {}).keys()
            yield from (f"of {node} what {side} had as {key}" for key in sorted(gone))


if __name__ == "__main__":
    gone = list(missing(*(json.loads(Path(it).read_text("utf-8")) for it in sys.argv[1:])))
    sys.exit("Workflows that people have need these, and they are gone:\n" + "\n".join(gone) if gone else 0)
