"""Failures in the real editor: each is a toast that names the node and says in the editor's language what to do."""

import json
import re
from string import Formatter

import pytest
from editor import BLANK, Editor
from graphs import SVD, changed, node, until
from make_locales import FOLDER, failure_classes
from xavi9videos.nodes.errors import BadSetting
from xavi9videos.nodes.extension import room_failed

SPANISH = json.loads((FOLDER / "es" / "main.json").read_text("utf-8"))["xavi9"]["failures"]
COSMOS = {
    "1": node("Xavi9CosmosText2World", prompt="A fox.", negative_prompt="", aspect_ratio="16:9", resolution="720",
              frames=25, fps=24, steps=10, guidance_scale=5.0, seed=1, prompt_upsampling=False),
    "2": node("Xavi9VideoSave", video=["1", 0], filename_prefix="failures/video", format="auto", save_to="output"),
}  # fmt: skip
GENERATE = {
    "1": node("Xavi9GenerateVideo", prompt="A fox.", seed=1, model="Cosmos Text2World",
              **{f"model.{name}": value for name, value in COSMOS["1"]["inputs"].items()
                 if name not in ("prompt", "seed")}),
    "2": COSMOS["2"],
}  # fmt: skip
FOREIGN = {
    "1": node("EmptyImage", width=16384, height=16384, batch_size=4096, color=0),
    "2": node("PreviewImage", images=["1", 0]),
}
TOASTS = """[...document.querySelectorAll(".p-toast-message")].map(it =>
    [it.querySelector(".p-toast-summary").innerText, it.querySelector(".p-toast-detail").innerText])"""
TRANSLATE = """async ([messages, locales]) => {
    const {translate} = await import("/extensions/xavi9videos/failures.mjs")
    locales ??= await app.api.getCustomNodesI18n()
    return messages.map(it => translate(it, locales))
}"""
# What a value can hold: another sentence, what a regular expression or a replacement would take for its own, lines.
AWKWARD = "C:\\no (a) [b]* {seed}? $& $1 ^.+|: It broke. Try {x}, \"so\".\nSecond line"


@pytest.fixture(scope="module", params=[(True, "en"), (False, "en"), (True, "es")],
                ids=["nodes2", "classic", "spanish"])  # fmt: skip
def open_editor(server, request):
    vue, locale = request.param
    with Editor(server, vue=vue, locale=locale) as opened:
        yield opened


@pytest.fixture
def editor(open_editor):
    open_editor.page.evaluate(BLANK)
    open_editor.page.evaluate("app.extensionManager.toast.removeAll()")
    open_editor.page.wait_for_function(f"{TOASTS}.length === 0")
    yield open_editor
    # What the host refuses, the editor reports as an error of its own.
    assert [it for it in open_editor.errors if "PromptExecutionError" not in it and "400" not in it] == []
    open_editor.errors.clear()


def press_run(editor: Editor, graph: dict) -> None:
    editor.page.evaluate("graph => app.loadApiJson(graph, 'failure')", graph)
    editor.page.wait_for_function("count => app.graph.nodes.length === count", arg=len(graph))
    editor.settle()
    editor.page.get_by_test_id("queue-button").click()


def toasts(editor: Editor, graph: dict) -> list[list[str]]:
    """Title and words of every toast that a run of this graph leaves."""
    press_run(editor, graph)
    editor.page.locator(".p-toast-message").first.wait_for()
    editor.settle()
    return editor.page.evaluate(TOASTS)


def said(editor: Editor, english: str, spanish: str) -> str:
    return spanish if editor.locale == "es" else english


def test_a_run_that_fails(editor, nim, uncached):
    nim.fault = "guardrail"
    [[title, words]] = toasts(editor, COSMOS)
    assert title == said(editor, "Cosmos Text to World", "Cosmos Texto a Mundo")
    assert words.startswith(said(editor, f"Cosmos at {nim.url} blocked the job (HTTP 422): ",
                                 f"Cosmos en {nim.url} ha bloqueado el trabajo (HTTP 422): "))
    assert words.endswith(said(editor, "so try to leave it empty.", "así que prueba a dejarlo vacío."))


def test_the_node_that_became_others_is_named_as_in_its_subgraph(editor, nim, uncached):
    nim.fault = "guardrail"
    editor.page.evaluate("graph => app.loadApiJson(graph, 'failure')", GENERATE)
    editor.page.evaluate("app.graph.getNodeById(1).title = 'The fox'")
    editor.page.evaluate("app.graph.convertToSubgraph(new Set([app.graph.getNodeById(1)])) && null")
    editor.settle()
    editor.page.get_by_test_id("queue-button").click()
    editor.page.wait_for_function(f"{TOASTS}.length")
    [[title, _]] = editor.page.evaluate(TOASTS)
    assert title == "The fox"


def test_what_a_node_refuses(editor):
    # This one is reported once for each of its inputs.
    [[title, words]] = toasts(editor, changed(GENERATE, **{"1_prompt": " "}))
    assert title == said(editor, "Generate Video", "Generar video")
    assert words == said(editor, "The prompt is empty. Describe the video that you want in a sentence or two.",
                         "El prompt está vacío. Describe el video que quieres en una o dos frases.")
    # The next Run takes it away.
    imageless = changed(SVD)
    del imageless["picture"], imageless["animate"]["inputs"]["image"]
    press_run(editor, imageless)
    words = said(editor, "SVD-XT needs an image: ", "SVD-XT necesita una imagen: ")
    editor.page.wait_for_function(f"words => {TOASTS}.length === 1 && {TOASTS}[0][1].startsWith(words)", arg=words)


def test_what_the_host_refuses_of_ours(editor):
    [[_, words]] = toasts(editor, changed(COSMOS, **{"1_frames": -4}))
    assert re.search("smaller than min.*frames", words)


def test_the_remedy_of_a_long_one_stays_on_the_screen(editor):
    [[_, words]] = toasts(editor, changed(COSMOS, **{"2_filename_prefix": "../" + "many words " * 300}))
    assert " … " in words
    assert words.endswith(SPANISH["bad_filename_prefix"]["remedy"].format(save_to="output") if editor.locale == "es"
                          else "folder, such as xavi9videos/video.")
    editor.page.wait_for_timeout(1000)  # it slides in
    box = editor.page.locator(".p-toast-message").bounding_box()
    assert box["y"] + box["height"] <= editor.height


def test_nothing_of_other_nodes(editor):
    press_run(editor, FOREIGN)
    editor.page.wait_for_function("app.lastExecutionError")
    press_run(editor, changed(FOREIGN, **{"1_width": -1}))
    editor.page.wait_for_function("app.lastNodeErrors")
    editor.settle()
    assert editor.page.evaluate(TOASTS) == []


def test_nothing_of_an_interrupt(editor, server, nim, uncached):
    nim.fault = "silence"
    press_run(editor, COSMOS)
    until(lambda: nim.requests)
    server.interrupt()
    until(lambda: not server.http.get("/queue").json()["queue_running"])
    editor.settle()
    assert editor.page.evaluate(TOASTS) == []


@pytest.mark.parametrize("open_editor", [(True, "es")], indirect=True, ids=["spanish"])
def test_every_failure_is_found_and_told_in_spanish(editor):
    given, told = [], []
    for failure in failure_classes():
        parts = list(Formatter().parse(f"{failure.text} {failure.remedy}"))
        fields = [(name, spec, conversion) for _, name, spec, conversion in parts if name]
        values = {name: 1234.5 if spec else AWKWARD for name, spec, _ in fields}
        values |= {"cure": AWKWARD.replace("\n", " ")} if "cure" in values else {}
        given.append(f"{failure(**values)}\nWhat the host adds.")
        filled = {name: format(repr(values[name]) if conversion else values[name], spec)
                  for name, spec, conversion in fields}
        own = SPANISH[failure.code]
        told.append(f"{own['text']} {own['remedy']}".format(**filled))
    assert editor.page.evaluate(TRANSLATE, [given, None]) == told
    assert editor.page.evaluate(TRANSLATE, [["KeyError: 'x'\n"], None]) == ["KeyError: 'x'"]
    # Two that fit: the one that says more by itself is meant.
    own = {"any": {"text": "{x}.", "remedy": "Wait."}, "one": {"text": "It is {x}.", "remedy": "Wait."}}
    assert editor.page.evaluate(TRANSLATE, [["It is late. Wait."], {
        "en": {"xavi9": {"failures": own}},
        "es": {"xavi9": {"failures": {code: {"text": f"{code}: {{x}}", "remedy": "!"} for code in own}}},
    }]) == ["one: late !"]  # fmt: skip


@pytest.mark.parametrize("open_editor", [(True, "es")], indirect=True, ids=["spanish"])
def test_what_kept_a_room_from_loading_is_told_in_spanish_too(editor):
    inner = BadSetting(variable="COSMOS_TIMEOUT_SECONDS", value="soon", rule="it must be a number")
    missing = ImportError("No module named 'x'")
    ours, foreign = editor.page.evaluate(TRANSLATE, [[str(room_failed("cosmos", it)) for it in (inner, missing)], None])
    text, remedy = SPANISH["bad_setting"].values()
    cause = text.format(**inner.values).rstrip(".")
    assert ours == f"{SPANISH['room_failed']['text'].format(room='cosmos', cause=cause)} {remedy}"
    assert "no se pudo cargar (No module named 'x'). With ComfyUI's own Python run" in foreign
