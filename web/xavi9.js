import { app } from "../../scripts/app.js"

const VIDEO_HEIGHT = 350

// Nodes 2.0 takes whatever a node with a VIDEO output shows for a video.
function tellKind(node, output) {
    if (node?.comfyClass !== "Xavi9VideoSave" || !output.images?.length) return
    node.previewMediaType = /\.(webp|gif)$/.test(output.images[0].filename) ? "image" : "video"
}

app.registerExtension({
    name: "xavi9.videos",
    // The classic canvas lays a video below a node's widgets and does not grow the node for it, and the editor's
    // DynamicCombo shrinks its node to the least height each time that its value is set, on loading too.
    nodeCreated(node) {
        if (node.comfyClass !== "Xavi9VideoSave") return
        const { computeSize } = node
        node.computeSize = function () {
            const [width, height] = computeSize.apply(this, arguments)
            return [Math.max(width, 400), height + VIDEO_HEIGHT]
        }
        node.setSize(node.computeSize())
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
