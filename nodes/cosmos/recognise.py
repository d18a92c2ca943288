"""Which family a NIM belongs to, from what it says of itself: never by sending it a job."""

import re

from ..errors import CosmosFamilyUnknown
from .families import FAMILIES, Family


def strings_in(value) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for item in value.values() for text in strings_in(item)]
        case list():
            return [text for item in value for text in strings_in(item)]
        case _:
            return []


def infer_properties(openapi: dict) -> set[str]:
    """The property names of the body of POST /v1/infer in an OpenAPI document, its $ref followed."""
    content = openapi["paths"]["/v1/infer"]["post"]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    found = set()
    for part in [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]:
        if "$ref" in part:
            part = openapi["components"]["schemas"][part["$ref"].rsplit("/", 1)[-1]]
        found.update(part.get("properties", {}))
    return found


def recognise(metadata: dict, openapi: dict, url: str) -> tuple[type[Family], str | None]:
    """The family of a NIM, and its mode where it has but one, from its own two descriptions; {} stands for none.

    Raises CosmosFamilyUnknown when neither tells.
    """
    names = "\n".join(strings_in(metadata))
    found = {it: re.search(it.model_name, names, re.I) for it in FAMILIES.values()}
    named = [it for it, match in found.items() if match or it.metadata_key in metadata]
    # A variant is also what it is a variant of.
    named = [it for it in named if not any(it in other.__bases__ for other in named)]
    if len(named) == 1:
        match = found[named[0]]
        return named[0], match[1] if match and match.re.groups else None
    try:
        properties = infer_properties(openapi)
    except (KeyError, TypeError, AttributeError):
        properties = set()
    described = [it for it in FAMILIES.values() if it.request_fields and it.request_fields <= properties]
    if len(described) == 1:
        return described[0], None
    told = f"its fields are {', '.join(sorted(properties))}" if properties else "no model name, no list of fields"
    raise CosmosFamilyUnknown(url=url, found=told, allowed=", ".join(FAMILIES))
