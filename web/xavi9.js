import { app } from "../../scripts/app.js"

const VIDEO_HEIGHT = 350

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
    },
})
