import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

// Of what a wrong file lacks there can be hundreds; the remedy below has to stay on the screen.
const LONGEST = 600

// Of one that is made to, a longer message would take minutes to recognise.
const LONGEST_READ = 4000

// What the last Run has shown.
const shown = []

const cut = words => words.length > LONGEST ? `${words.slice(0, LONGEST)} …` : words

const whole = ({ text, remedy }) => `${text} ${remedy}`
const literals = template => template.replace(/\{\w+\}/g, "").length

function pattern(template) {
    const source = template.replace(/[.*+?^$(){}|[\]\\]/g, "\\$&").replace(/\\\{(\w+)\\\}/g, (all, name, at, text) =>
        text.indexOf(all) < at ? `\\k<${name}>` : `(?<${name}>[^]*?)`)
    // After a line break the host adds hints of its own.
    return new RegExp(`^${source}(\n[^]*)?$`)
}

export const fill = (template, values) => template.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all)

function recognise(message, english, own) {
    // One text can match another's message with a long value; the one that says more by itself is meant.
    const codes = Object.keys(english).sort((a, b) => literals(whole(english[b])) - literals(whole(english[a])))
    for (const code of codes) {
        const found = message.match(pattern(whole(english[code])))
        if (!found) continue
        const values = { ...found.groups }
        // What keeps a room from loading can be another failure.
        const cause = "cure" in values && recognise(`${values.cause}. ${values.cure}`, english, own)
        if (cause) Object.assign(values, { cause: cause.text.replace(/\.$/, ""), cure: cause.remedy })
        return { text: fill(own[code].text, values), remedy: fill(own[code].remedy, values) }
    }
}

// The server speaks English only: a message is found among the English texts, and what filled their braces is put into
// those of the editor's language. locales: what GET /i18n answers.
export function translate(message, locales) {
    const english = locales.en.xavi9.failures
    const own = locales[app.extensionManager.setting.get("Comfy.Locale")]?.xavi9?.failures ?? english
    const found = message.length <= LONGEST_READ && recognise(message, english, own)
    return found ? whole({ ...found, text: cut(found.text) }) : cut(message.trim())
}

// The id of a node in a subgraph starts with those of the nodes around it. By now the editor may show another graph.
function titleOf(id, type) {
    let graph = app.rootGraph, node
    for (const part of id.split(":")) {
        node = graph?.getNodeById(part)
        graph = node?.subgraph
    }
    return node?.comfyClass === type ? node.title : LiteGraph.registered_node_types[type].title
}

async function show(id, type, messages) {
    if (!type.startsWith("Xavi9")) return
    const locales = await api.getCustomNodesI18n()
    const summary = titleOf(id, type)
    for (const message of messages) {
        const detail = translate(message, locales)
        if (shown.some(it => it.summary === summary && it.detail === detail)) continue
        const toast = { severity: "error", summary, detail }
        shown.push(toast)
        app.extensionManager.toast.add(toast)
    }
}

// The host repeats a node's own words for every input that they could be about, with its name in front, and says less
// of the same by itself.
function wordsOf(errors) {
    const own = errors.filter(it => it.type === "custom_validation_failed")
    return own.length
        ? own.map(it => it.details.slice(`${it.extra_info.input_name} - `.length))
        : errors.map(it => `${it.message}: ${it.details}`)
}

export function watchFailures() {
    api.addEventListener("execution_error", ({ detail }) =>
        show(detail.node_id, detail.node_type, [detail.exception_message]))
    // No event tells of a prompt that was refused.
    const { queuePrompt } = app
    app.queuePrompt = async function () {
        for (const toast of shown.splice(0)) app.extensionManager.toast.remove(toast)
        const queued = await queuePrompt.apply(this, arguments)
        for (const [id, { class_type, errors }] of Object.entries(app.lastNodeErrors ?? {}))
            show(id, class_type, wordsOf(errors))
        return queued
    }
}
