"""Translations and help pages: up to date, complete, and found by the host."""

import copy
import json
import re
import subprocess
import sys

import pytest
from make_locales import FOLDER, failures, node_defs
from node_diff import missing
from setup_host import REPO


def read(name: str) -> list[dict]:
    """A file of locales/en and the same of locales/es."""
    return [json.loads((FOLDER / language / name).read_text("utf-8")) for language in ("en", "es")]


EN, ES = read("nodeDefs.json")
MAIN_EN, MAIN_ES = read("main.json")
DOCS = REPO / "web" / "docs"
# What a translation keeps: code and sizes.
KEPT = r"`[^`]+`|\d+x\d+"
# What a failure's text keeps: values, code, and names of settings and flags.
FIXED = r"\{\w+\}|`[^`]+`|[A-Z]+(?:_[A-Z0-9]+)+|--[\w-]+"


def texts(tree: dict, trail: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Every text of a file of locales, by the keys that lead to it."""
    found = {}
    for key, value in tree.items():
        found |= texts(value, (*trail, key)) if isinstance(value, dict) else {(*trail, key): value}
    return found


def test_english_is_what_the_schemas_and_the_failures_say():
    assert EN == node_defs(), "run tests/make_locales.py"
    assert MAIN_EN["xavi9"]["failures"] == failures(), "run tests/make_locales.py"


def test_what_a_change_takes_from_workflows_is_named(tmp_path):
    new = copy.deepcopy(EN)
    del new["Xavi9SVDLoader"], new["Xavi9LTX2Sampler"]["inputs"]["seed"], new["Xavi9VideoSave"]["outputs"]["0"]
    new["Xavi9VideoJoin"]["inputs"]["more"] = {"name": "more"}
    assert list(missing(EN, EN)) == []
    assert set(missing(EN, new)) == {
        "the node Xavi9SVDLoader", "of Xavi9LTX2Sampler what inputs had as seed",
        "of Xavi9VideoSave what outputs had as 0"}  # fmt: skip
    (tmp_path / "new.json").write_text(json.dumps(new))
    command = [sys.executable, REPO / "tests" / "node_diff.py", FOLDER / "en" / "nodeDefs.json", tmp_path / "new.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "the node Xavi9SVDLoader" in done.stderr


def test_every_failure_is_told_in_spanish_with_the_same_values_and_commands():
    english, spanish = (texts(main["xavi9"]["failures"]) for main in (MAIN_EN, MAIN_ES))
    assert list(english) == list(spanish)
    for keys, text in english.items():
        assert sorted(set(re.findall(FIXED, text))) == sorted(set(re.findall(FIXED, spanish[keys]))), keys
        assert spanish[keys] != text or text == "{cure}", keys


def test_spanish_has_every_text_in_its_own_words():
    english, spanish = texts(EN), texts(ES)
    assert list(english) == list(spanish)
    assert [keys for keys, text in spanish.items() if not text.strip()] == []
    assert [keys for keys, text in spanish.items() if text == english[keys] and keys[-1] != "name"] == []


@pytest.mark.parametrize("locale", [EN, ES], ids=["en", "es"])
def test_the_editor_can_read_every_text(locale):
    for keys, text in texts(locale).items():
        assert not any("." in key for key in keys), keys
        # To its message format these are placeholders, links and plurals.
        assert not re.search(r"[{}@|]", text), keys


@pytest.mark.parametrize("node", EN)
def test_help_is_the_same_in_both_languages_and_names_every_input_and_output(node):
    english, spanish = ((DOCS / name).read_text("utf-8").replace("*", "") for name in (f"{node}.md", f"{node}/es.md"))
    assert re.findall("^#+ ", english, re.M) == re.findall("^#+ ", spanish, re.M) != []
    assert set(re.findall(KEPT, english)) <= set(re.findall(KEPT, spanish))
    names = [(part["name"], ES[node][side][key]["name"])
             for side in ("inputs", "outputs") for key, part in EN[node][side].items()]
    for given, shown in names:
        # A message names an input as a workflow file does, the editor in its own language.
        both = shown if shown == given else f"{shown} (`{given}`)"
        for page, said in ((english, given), (spanish, both)):
            found = re.findall(rf"^[ |-]+{re.escape(said)}(?=:| \|| \(|$)", page, re.M)
            assert len(found) == names.count((given, shown)), said


def messages(page: str) -> list[str]:
    """What the page's table of messages quotes of each."""
    table = page.partition("\n| Message |")[2] or page.partition("\n| Mensaje |")[2]
    return re.findall(r"^\| (.+?) \|", table.partition("\n\n")[0], re.M)[1:]


def said(words: str, failures: dict) -> set[str]:
    """The codes of the failures whose text has these words; "..." stands for any."""
    found = re.compile(".*".join(re.escape(part) for part in words.split("...")), re.S)
    return {code for code, failure in failures.items() if found.search(failure["text"])}


@pytest.mark.parametrize("node", EN)
def test_a_help_page_quotes_a_failure_as_the_editor_shows_it(node):
    english, spanish = (messages((DOCS / name).read_text("utf-8")) for name in (f"{node}.md", f"{node}/es.md"))
    assert len(english) == len(spanish)
    # What fills a text's braces, and a warning on a node, is English in every language.
    known = [(said(one, MAIN_EN["xavi9"]["failures"]), other) for one, other in zip(english, spanish, strict=True)]
    assert [other for codes, other in known if codes and not codes & said(other, MAIN_ES["xavi9"]["failures"])] == []


def test_the_host_serves_them(server):
    served = server.http.get("/i18n").raise_for_status().json()
    assert {language: served[language]["nodeDefs"] for language in ("en", "es")} == {"en": EN, "es": ES}
    assert {language: served[language]["xavi9"] for language in ("en", "es")} == {
        "en": MAIN_EN["xavi9"], "es": MAIN_ES["xavi9"]}
