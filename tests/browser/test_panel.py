"""The tab in the editor's sidebar: what each mode can do, and our videos, played, opened, downloaded and deleted."""

import json
import logging
import os
import re
import shutil
import socket
import time
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from editor import BLANK, Editor
from graphs import SVD, changed, index, run, until
from playwright.sync_api import expect
from samples import put_samples
from setup_host import REPO
from tiny.models import put_models

log = logging.getLogger(__name__)

EN, ES = (json.loads((REPO / "locales" / it / "main.json").read_text("utf-8"))["xavi9"]["panel"] for it in ("en", "es"))
PROMPT = "A \u4e2d <b>fox</b> runs " + "through deep snow " * 30
MANY = 1000


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A server with SVD-XT, without LTX-2, and with an address of Cosmos where nobody listens."""
    base = tmp_path_factory.mktemp("panel")
    put_models(base / "models")
    shutil.rmtree(base / "models" / "diffusers")
    for checkpoint in (base / "models" / "checkpoints").glob("ltx*"):
        checkpoint.unlink()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        env = {"COSMOS_NIM_URL": f"http://127.0.0.1:{closed.getsockname()[1]}", "OMP_NUM_THREADS": "1",
               "XAVI9_KEEP_FILES": "5000"}
        with ComfyHost(base, env=env) as opened:
            put_samples(opened.base)
            yield opened


@pytest.fixture(scope="module")
def editor(host):
    with Editor(host, vue=True) as opened:
        yield opened


def save(host: ComfyHost, prefix: str, **inputs) -> Path:
    return run(host, changed(SVD, write_filename_prefix=prefix, animate_seed=time.time_ns() % 10**6, **inputs))


def add(host: ComfyHost, like: Path, count: int) -> list[Path]:
    """Copies of a saved video, with their lines, the last one the newest."""
    file = host.base / "user" / "__xavi9videos" / "videos.jsonl"
    line = [it for it in index(host) if it["path"] == str(like)][-1]
    made = [like.with_name(f"copy_{number:04}{like.suffix}") for number in range(count)]
    now = int(time.time())
    with file.open("a", encoding="utf-8") as lines:
        for number, path in enumerate(made):
            shutil.copy(like, path)
            os.utime(path, (now, now - count + number))
            line |= {"path": str(path), "mtime": path.stat().st_mtime, "seed": number, "prompt": PROMPT}
            lines.write(json.dumps(line) + "\n")
    return made


def empty(host: ComfyHost) -> None:
    for line in index(host):
        Path(line["path"]).unlink(missing_ok=True)


def close_panel(editor: Editor):
    """Where the tab was, and will be."""
    panel = editor.page.locator(".xavi9-panel")
    if panel.count():
        editor.page.locator(".xavi9videos-tab-button").click()
        expect(panel).to_have_count(0)
    return panel


def open_panel(editor: Editor):
    """The tab, opened anew, and filled."""
    panel = close_panel(editor)
    editor.page.locator(".xavi9videos-tab-button").click()
    expect(panel.locator("meter")).to_be_visible(timeout=10_000)
    expect(panel.get_by_role("status").last).not_to_be_empty()
    return panel


def cards(panel):
    return panel.locator(".cards article")


def mode(panel, name: str):
    return panel.locator("article", has=panel.page.get_by_role("heading", name=name, exact=True))


def texts(tree: dict) -> dict[str, str]:
    found = {}
    for key, value in tree.items():
        found |= {f"{key}/{name}": it for name, it in texts(value).items()} if isinstance(value, dict) else {key: value}
    return found


def test_both_languages_have_every_text_and_are_served(host):
    english, spanish = texts(EN), texts(ES)
    assert list(english) == list(spanish)
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", spanish[key])), key
    assert [it for it, text in english.items() if text == spanish[it]] == ["modes/ltx2", "modes/svd",
        "modes/Xavi9LTX2Sampler", "modes/Xavi9SVDImageToVideo", "modes/Xavi9LTX2Upscale"]  # fmt: skip
    names = [json.loads((REPO / "locales" / it / "settings.json").read_text("utf-8")) for it in ("en", "es")]
    assert list(names[0]) == list(names[1]) and names[0] != names[1]
    served = host.http.get("/i18n").raise_for_status().json()
    assert [served[it]["settings"] for it in ("en", "es")] == names
    assert [served[it]["xavi9"]["panel"] for it in ("en", "es")] == [EN, ES]


def test_health_says_what_is_broken_missing_and_loaded(editor, host):
    save(host, "panel/v")
    panel = open_panel(editor)
    cosmos, ltx2, svd = (mode(panel, name) for name in ("Cosmos Text to World", "LTX-2", "SVD-XT"))
    expect(cosmos.locator(".badge")).to_have_text("unreachable")
    expect(cosmos).to_contain_text("docker compose")
    expect(ltx2.locator(".badge")).to_have_text("files missing")
    expect(ltx2).to_contain_text("download_models.sh ltx2")
    expect(svd.locator(".badge")).to_have_text("loaded")
    expect(svd).to_contain_text("GB on the device")
    expect(svd.locator("p.cure")).to_have_count(0)
    expect(panel).to_contain_text(re.compile(r"[\d.]+ of [\d.]+ GB free"))
    panel.get_by_role("button", name="Unload models").click()
    expect(svd.locator(".badge")).to_have_text("available")
    assert editor.errors == []


def test_a_tab_key_and_enter_refresh(editor, host):
    panel = open_panel(editor)
    missing = host.base / "models" / "checkpoints" / "svd_xt.safetensors"
    away = missing.rename(host.base / "away")
    try:
        panel.get_by_role("button", name="Unload models").focus()
        editor.page.keyboard.press("Shift+Tab")
        expect(panel.get_by_role("button", name="Refresh")).to_be_focused()
        time.sleep(2.1)
        editor.page.keyboard.press("Enter")
        expect(mode(panel, "SVD-XT").locator(".badge")).to_have_text("files missing")
    finally:
        away.rename(missing)


def test_a_video_is_played_opened_downloaded_and_deleted_after_asking(editor, host):
    empty(host)
    path = save(host, "panel/one")
    panel = open_panel(editor)
    expect(cards(panel)).to_have_count(1)
    card = cards(panel).first
    expect(card).to_contain_text(path.name)
    expect(card).to_contain_text(re.compile(r"0\.7 s, 128x64, 0\.\d MB"))
    expect(card).to_contain_text(re.compile(r"SVD-XT, seed \d+"))
    expect(panel.get_by_role("status").last).to_contain_text("Videos: 1, 0.00 GB in all. Only the newest 5,000")
    expect(panel.locator("nav")).to_be_hidden()
    card.scroll_into_view_if_needed()
    until(lambda: card.locator("img").evaluate("it => it.naturalWidth") == 128)

    # One that is made and not shown would play all the same.
    editor.page.evaluate("""() => {
        const make = document.createElement
        document.made = []
        document.createElement = function (tag) {
            const made = make.apply(this, arguments)
            if (tag === "video") document.made.push(made)
            return made
        }
    }""")
    card.get_by_role("button", name="Play").click()
    editor.page.wait_for_function("document.querySelector('.xavi9-panel video')?.currentTime > 0")
    card.get_by_role("button", name="Play").click()
    expect(card.locator("video")).to_have_count(0)
    editor.settle()
    assert editor.page.evaluate("document.made.map(it => it.paused)") == [True]
    editor.page.evaluate("() => { delete document.createElement }")

    with editor.page.expect_download() as download:
        card.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == path.name
    assert Path(download.value.path()).read_bytes() == path.read_bytes()

    # A script saves no workflow, only the prompt.
    editor.page.evaluate(BLANK)
    card.get_by_role("button", name="Workflow").click()
    editor.page.wait_for_function("app.graph.nodes.some(it => it.comfyClass === 'Xavi9SVDImageToVideo')")

    card.get_by_role("button", name="Delete").click()
    dialog = editor.page.get_by_role("dialog")
    expect(dialog).to_contain_text(path.name)
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    assert path.exists() and cards(panel).count() == 1
    card.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(cards(panel)).to_have_count(0)
    expect(panel.get_by_role("status").last).to_contain_text("No videos yet.")
    assert not path.exists()
    assert editor.errors == []


def test_a_workflow_of_the_editor_comes_back_in_a_tab_of_its_own(editor, host):
    empty(host)
    workflow = {"version": 0.4, "nodes": [{"id": 7, "type": "Note", "pos": [0, 0], "size": [200, 100], "flags": {},
                                           "order": 0, "mode": 0, "widgets_values": ["mine"]}], "links": []}
    path = host.files(host.run(changed(SVD, write_filename_prefix="panel/two", animate_seed=5), workflow))[0]
    panel = open_panel(editor)
    cards(panel).first.get_by_role("button", name="Workflow").click()
    editor.page.wait_for_function("app.graph.nodes.length === 1 && app.graph.nodes[0].type === 'Note'")
    until(lambda: path.stem in editor.page.evaluate("app.extensionManager.workflow.activeWorkflow.path"))


def test_what_fails_is_said(editor, host):
    empty(host)
    path = save(host, "panel/gone")
    panel = open_panel(editor)
    expect(cards(panel)).to_have_count(1)
    path.unlink()
    cards(panel).first.get_by_role("button", name="Workflow").click()
    expect(panel.get_by_role("alert").last).to_contain_text("video")
    [error] = editor.errors
    assert "404" in error
    editor.errors.clear()


def test_it_updates_itself_when_a_render_of_anybody_ends_and_what_plays_plays_on(editor, host):
    empty(host)
    save(host, "panel/first")
    panel = open_panel(editor)
    card = cards(panel).first
    card.get_by_role("button", name="Play").click()
    editor.page.wait_for_function("document.querySelector('.xavi9-panel video')?.currentTime > 0")
    path = save(host, "panel/second")
    expect(cards(panel)).to_have_count(2)
    expect(cards(panel).first).to_contain_text(path.name)
    assert editor.page.evaluate("!document.querySelector('.xavi9-panel video').paused")
    # A tab that is closed asks for nothing.
    close_panel(editor)
    asked = []
    editor.page.on("request", lambda it: asked.append(it.url))
    save(host, "panel/third")
    editor.settle()
    assert [it for it in asked if "/xavi9/" in it] == []
    assert editor.errors == []


def test_a_thousand_videos_are_asked_for_by_the_page(editor, host):
    empty(host)
    paths = add(host, save(host, "panel/like"), MANY - 1)
    asked = []
    page = editor.page
    panel = close_panel(editor)
    page.on("request", lambda it: asked.append(it.url))
    milliseconds = page.evaluate("""async () => {
        const began = performance.now()
        document.querySelector(".xavi9videos-tab-button").click()
        while (!document.querySelector(".xavi9-panel .cards article")) await new Promise(requestAnimationFrame)
        await new Promise(requestAnimationFrame)
        return performance.now() - began
    }""")
    log.info("First paint with %d videos: %.0f ms", MANY, milliseconds)
    editor.settle()
    expect(cards(panel)).to_have_count(24)
    expect(panel.get_by_role("status").last).to_contain_text("Videos: 1,000, ")
    assert len([it for it in asked if "/xavi9/videos?" in it]) == 1
    cards(panel).first.scroll_into_view_if_needed()
    until(lambda: cards(panel).first.locator("img").evaluate("it => it.naturalWidth") == 128)
    assert 0 < len([it for it in asked if it.endswith("/poster")]) < 12
    cards(panel).last.scroll_into_view_if_needed()
    until(lambda: cards(panel).last.locator("img").evaluate("it => it.naturalWidth") == 128)
    asked.clear()
    panel.get_by_role("button", name="Next").click()
    expect(panel.locator("nav")).to_contain_text("Page 2 of 42")
    assert len([it for it in asked if "/xavi9/videos?" in it]) == 1
    # The newest is the one they were copied from.
    expect(cards(panel).first).to_contain_text(paths[-24].name)
    assert PROMPT in cards(panel).first.locator(".prompt").get_attribute("title")
    assert cards(panel).first.locator("b").count() == 0
    expect(panel.get_by_role("button", name="Previous")).to_be_enabled()
    page.evaluate("app.extensionManager.setting.set('Xavi9Videos.HistoryPageSize', 100)")
    expect(cards(panel)).to_have_count(100)
    expect(panel.locator("nav")).to_contain_text("Page 1 of 10")
    expect(panel.get_by_role("button", name="Previous")).to_be_disabled()
    page.evaluate("app.extensionManager.setting.set('Xavi9Videos.HistoryPageSize', 24)")
    assert editor.errors == []


@pytest.mark.parametrize(("locale", "palette"), [("en", "dark"), ("en", "light"), ("es", "dark")])
@pytest.mark.parametrize("count", [0, 3])
def test_it_fits_the_sidebar_and_can_be_read(editor, host, locale, palette, count, tmp_path):
    empty(host)
    if count:
        add(host, save(host, "panel/like"), count - 1)
    host.http.post("/api/settings", json={"Comfy.ColorPalette": palette, "Comfy.Locale": locale}).raise_for_status()
    page = editor.page
    page.reload()
    page.wait_for_function("window.app?.extensionManager && app.canvas && app.graph")
    panel = open_panel(editor)
    expect(cards(panel)).to_have_count(count)
    said = {"en": EN, "es": ES}[locale]
    words = {"en": "The model file", "es": "El archivo de modelo"}
    expect(mode(panel, "LTX-2")).to_contain_text(words[locale])
    for key in ("health", "history"):
        expect(panel.get_by_role("heading", name=said[key], exact=True)).to_be_visible()
    for button in panel.get_by_role("button").all():
        assert any(button.inner_text() == said[it] for it in said), button.inner_text()
    assert panel.evaluate("it => it.parentElement.scrollWidth <= it.parentElement.clientWidth")
    editor.settle()
    folder = Path(os.environ.get("PANEL_SHOTS", tmp_path))
    editor.screenshot(folder / f"panel_{locale}_{palette}_{count}.png")
    panel.locator("section").last.evaluate("it => it.scrollIntoView()")
    editor.settle()
    editor.screenshot(folder / f"panel_{locale}_{palette}_{count}_end.png")
    host.http.post("/api/settings", json={"Comfy.ColorPalette": "dark", "Comfy.Locale": "en"}).raise_for_status()
