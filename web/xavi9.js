import { app } from "../../scripts/app.js"
import { watchFailures } from "./failures.mjs"
import { pageSize, registerPanel } from "./panel.mjs"

// What a node needs above the least height of its widgets: for its video, and for long prompts.
const ROOM = { Xavi9VideoSave: 350, Xavi9GenerateVideo: 220 }

// Nodes 2.0 takes whatever a node with a VIDEO output shows for a video.
function tellKind(node, output) {
    if (node?.comfyClass !== "Xavi9VideoSave" || !output.images?.length) return
    node.previewMediaType = /\.(webp|gif)$/.test(output.images[0].filename) ? "image" : "video"
}

// The classic canvas lays a video below a node's widgets and does not grow the node for it, and the editor's
// DynamicCombo shrinks its node to the least height each time that its value is set, on loading too.
function makeRoom(node) {
    const { computeSize } = node
    node.computeSize = function () {
        const [width, height] = computeSize.apply(this, arguments)
        return [Math.max(width, 400), height + ROOM[node.comfyClass]]
    }
    node.setSize(node.computeSize())
}

// The editor shows the text of no custom node by itself.
function addReport(node) {
    const report = document.createElement("pre")
    report.style.cssText = "margin: 0; padding: 8px; overflow: auto; white-space: pre-wrap; font-size: 12px;" +
        "line-height: 1.4; color: var(--input-text); background: var(--comfy-input-bg); border-radius: 6px;"
    report.setAttribute("role", "status")
    const widget = node.addDOMWidget("health", "xavi9-report", report, { serialize: false, getMinHeight: () => 260 })
    widget.serialize = false
    node.setSize([Math.max(node.size[0], 480), Math.max(node.size[1], 330)])
    const { onExecuted } = node
    node.onExecuted = function (output) {
        report.textContent = output.text?.join("\n") ?? ""
        return onExecuted?.apply(this, arguments)
    }
}

app.registerExtension({
    name: "xavi9.videos",
    settings: [pageSize],
    setup() {
        watchFailures()
        return registerPanel()
    },
    nodeCreated(node) {
        if (node.comfyClass === "Xavi9ModelHealth") addReport(node)
        if (node.comfyClass in ROOM) makeRoom(node)
        if (node.comfyClass !== "Xavi9VideoSave") return
        const { onExecuted } = node
        node.onExecuted = function (output) {
            tellKind(this, output)
            return onExecuted?.apply(this, arguments)
        }
    },
    // Outputs that come back, with a tab or from the history.
    onNodeOutputsUpdated(outputs) {
        for (const [id, output] of Object.entries(outputs)) tellKind(app.graph.getNodeById(Number(id)), output)
    },
})
