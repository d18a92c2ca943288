"""The real editor of a ComfyHost, in a headless Chromium."""

import base64
import json
import mimetypes
import re
import shutil
from pathlib import Path

from comfy_host import ComfyHost
from playwright.sync_api import ConsoleMessage, expect, sync_playwright

# A machine may be busy, and what never comes is a failure all the same.
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)
READY = "window.app?.extensionManager && app.canvas && app.graph"
# What the editor reports by itself: files that a new user has not, help pages that it first looks for in the editor's
# language, addresses outside, which are blocked here.
NOISE = re.compile(r"/user\.css|/api/userdata|/docs/\w+/\w+\.md|^(?!http://127\.0\.0\.1)https?:"
                   r"|graph accessed before initialization")
BLANK = "app.loadGraphData({version: 0.4, nodes: [], links: []})"
EXPORT = """async () => {
    const {output, workflow} = await app.graphToPrompt()
    return JSON.stringify({output, workflow})
}"""
# An opened tab keeps what it was set to.
AS_FORM = """() => {
    const {activeMode, initialMode} = app.extensionManager.workflow.activeWorkflow
    return (activeMode ?? initialMode) === "app"
}"""
SAVED = "[...document.querySelectorAll('video')].find(it => it.outerHTML.includes('type=output'))"
BOXES = """vue => Object.fromEntries(app.graph.nodes.map(node => {
    if (!vue) return [node.id, [...node.getBounding()]]
    const box = document.querySelector(`[data-node-id='${node.id}']`).getBoundingClientRect()
    return [node.id, [box.x, box.y, box.width, box.height].map(length => length / app.canvas.ds.scale)]
}))"""
DROP = """([name, type, base64]) => {
    const transfer = new DataTransfer()
    transfer.items.add(new File([Uint8Array.from(atob(base64), letter => letter.charCodeAt(0))], name, {type}))
    for (const kind of ["dragover", "drop"])
        document.querySelector("#graph-canvas").dispatchEvent(
            new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}))
}"""


class Editor:
    """A context manager: the editor is open and ready inside the block.

    vue: Nodes 2.0, else the classic canvas. locale: the editor's language. Attributes: page (of playwright), for
    whatever has no method here; errors: what the console reported and no editor without this pack reports.
    """

    def __init__(self, host: ComfyHost, *, vue: bool, locale: str = "en", width: int = 1600, height: int = 900):
        self.host, self.vue, self.locale, self.width, self.height = host, vue, locale, width, height
        self.errors: list[str] = []

    def __enter__(self) -> "Editor":
        # The settings live on the server and are read once, when the page loads.
        self.host.http.post("/api/settings", json={
            "Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": self.vue, "Comfy.Locale": self.locale,
            "Comfy.RightSidePanel.IsOpen": False, "Comfy.Minimap.Visible": False}).raise_for_status()
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(
                executable_path=shutil.which("chromium"),
                args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            self.page = self._browser.new_page(viewport={"width": self.width, "height": self.height})
            self.page.set_default_timeout(PATIENCE)
            self.page.on("console", self._hear)
            self.page.on("pageerror", lambda error: self.errors.append(str(error)))
            self.page.route(lambda url: not url.startswith(self.host.url), lambda route: route.abort())
            self.page.goto(self.host.url)
            self.page.wait_for_function(READY)
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self._browser.close()
        self._playwright.stop()

    def _hear(self, message: ConsoleMessage) -> None:
        place = message.location["url"]
        if message.type == "error" and not NOISE.search(place) and not NOISE.search(message.text):
            self.errors.append(f"{message.text} ({place})")

    def load(self, workflow: Path, form: bool = False) -> None:
        """Opens a workflow file of the editor's own format. form: in app mode."""
        graph = json.loads(workflow.read_text("utf-8"))
        self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, workflow.stem])
        if self.page.evaluate(AS_FORM) != form:
            self.page.evaluate("app.extensionManager.command.execute('Comfy.ToggleLinear')")
        self.settle()

    def settle(self) -> None:
        """Gives the editor time for what no event tells the end of: Vue makes the nodes, and the view fits them."""
        self.page.evaluate("() => new Promise(done => setTimeout(() => requestAnimationFrame(done), 300))")

    def export(self) -> tuple[dict, dict]:
        """The graph in API format, as POST /prompt takes it, and in the editor's own."""
        # Made into text in the page, because playwright would turn every undefined into null.
        both = json.loads(self.page.evaluate(EXPORT))
        return both["output"], both["workflow"]

    def boxes(self) -> dict[str, list[float]]:
        """x, y, width and height of every node with its title, by node id, in units of the graph."""
        return self.page.evaluate(BOXES, self.vue)

    def run(self, seconds: float = 120) -> dict:
        """Presses Run, waits for a saved video and plays it. Returns its width, height and duration."""
        self.page.get_by_test_id("queue-button").click()
        self.page.wait_for_function(f"{SAVED}?.readyState === 4", timeout=seconds * 1000)
        self.page.evaluate(f"{SAVED}.play()")
        self.page.wait_for_function(f"{SAVED}.currentTime > 0")
        return self.page.evaluate(f"""() => {{
            const {{videoWidth: width, videoHeight: height, duration}} = {SAVED}
            return {{width, height, duration}}
        }}""")

    def drop(self, file: Path) -> None:
        """Drops a file on the canvas of an empty graph and waits until the editor has its workflow."""
        data = base64.b64encode(file.read_bytes()).decode()
        self.page.evaluate(DROP, [file.name, mimetypes.guess_type(file)[0], data])
        self.page.wait_for_function("app.graph.nodes.length > 0")
        self.settle()

    def screenshot(self, target: Path, **options) -> None:
        self.page.screenshot(path=target, **options)
