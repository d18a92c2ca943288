import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { fill } from "./failures.mjs"

export const PAGE_SIZE = "Xavi9Videos.HistoryPageSize"
const NEEDS_CURE = ["starting", "unreachable", "files missing", "room failed"]
const MB = 1e6, GB = 1e9
// The host obeys /free within a second, and the server keeps what it knows of the models for two.
const FREED_MS = 3000
const STYLE = `
.xavi9-panel { padding: 12px; color: var(--fg-color); font-size: 13px; line-height: 1.4; overflow-wrap: anywhere; }
.xavi9-panel header { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin-bottom: 8px; }
.xavi9-panel h2 { flex: 1; margin: 0; font-size: 15px; font-weight: 600; }
.xavi9-panel h3 { margin: 0; font-size: 13px; font-weight: 600; }
.xavi9-panel p { margin: 0; }
.xavi9-panel section + section { margin-top: 20px; }
.xavi9-panel [role=alert]:not(:empty) { position: sticky; top: 0; z-index: 1; margin-bottom: 8px; padding: 8px;
    background: var(--comfy-input-bg); border-left: 4px solid #d33; }
.xavi9-panel [role=status]:not(:empty) { margin-bottom: 6px; }
.xavi9-panel button, .xavi9-panel .button { padding: 3px 6px; font: inherit; font-size: 12px; text-decoration: none;
    cursor: pointer; color: var(--input-text); background: var(--comfy-input-bg); border: 1px solid var(--border-color);
    border-radius: 6px; }
.xavi9-panel button:disabled { opacity: .5; cursor: default; }
.xavi9-panel :focus-visible { outline: 2px solid #3b82f6; outline-offset: 2px; }
.xavi9-panel article { margin-bottom: 8px; padding: 8px; border: 1px solid var(--border-color); border-radius: 8px; }
.xavi9-panel .row { display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: center; justify-content: space-between; }
.xavi9-panel .badge::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 5px;
    border-radius: 50%; background: #2e9e4f; }
.xavi9-panel .badge.cure::before { background: #e5484d; }
.xavi9-panel .badge { padding: 0 8px; border: 1px solid var(--border-color); border-radius: 9px; font-size: 12px; }
.xavi9-panel .faint { color: var(--descrip-text); font-size: 12px; }
.xavi9-panel meter { display: block; width: 100%; height: 12px; margin: 4px 0; }
.xavi9-panel .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 8px; }
.xavi9-panel .cards article { margin: 0; min-width: 0; }
.xavi9-panel .view { aspect-ratio: 16 / 9; margin-bottom: 6px; background: #000; color: #ccc; }
.xavi9-panel .view > * { display: block; width: 100%; height: 100%; object-fit: contain; }
.xavi9-panel .prompt { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
.xavi9-panel .buttons { display: flex; flex-wrap: wrap; gap: 4px; margin-top: 6px; }
.xavi9-panel nav { margin-top: 8px; }
.xavi9-panel [hidden] { display: none; }
`

function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties)
    element.append(...children)
    return element
}

class Panel {
    constructor({ panel: texts, failures }, locale) {
        this.texts = texts
        this.failures = failures
        this.locale = locale
        this.size = app.extensionManager.setting.get(PAGE_SIZE)
        this.page = 1
        this.turn = 0
        // By id. A card stays the same element as long as it is shown, so that its video plays on.
        this.cards = new Map()
        this.health = this.section("health", this.button("refresh", () => this.refresh()),
            this.button("unload", () => this.unload()))
        this.history = this.section("history")
        this.history.body.className = "cards"
        this.previous = this.button("previous", () => this.showPage(this.page - 1))
        this.next = this.button("next", () => this.showPage(this.page + 1))
        this.position = make("span")
        this.pager = make("nav", { className: "row", ariaLabel: texts.pages }, this.previous, this.position, this.next)
        this.root = make("div", { className: "xavi9-panel" }, make("style", {}, STYLE), this.health.root,
            this.history.root, this.pager)
        api.addEventListener("status", this.onStatus)
        this.refresh()
    }

    close() {
        api.removeEventListener("status", this.onStatus)
        // What is still on its way is of no use any more.
        this.turn = -1
    }

    say(key, values) {
        return fill(this.texts[key], values)
    }

    number(value, digits = 1) {
        return value.toLocaleString(this.locale, { minimumFractionDigits: digits, maximumFractionDigits: digits })
    }

    button(key, action, name) {
        const label = this.texts[key]
        return make("button", { type: "button", ariaLabel: name ? `${label}: ${name}` : label, onclick: action }, label)
    }

    section(key, ...buttons) {
        const head = make("header", {}, make("h2", {}, this.texts[key]), ...buttons)
        const status = make("p", { role: "status", className: "faint" })
        const alert = make("p", { role: "alert" })
        const body = make("div")
        const root = make("section", { ariaLabel: this.texts[key] }, head, alert, status, body)
        return { root, status, alert, body }
    }

    async ask(path, options) {
        const reply = await api.fetchApi(path, options)
        if (reply.ok) return reply.json()
        // The host's own refusals are no JSON.
        const { error } = await reply.json().catch(() => ({}))
        throw new Error(error ? `${error.message} ${error.remedy}` : this.say("unanswered", { status: reply.status }))
    }

    async attempt(section, action) {
        section.alert.textContent = ""
        try {
            await action()
        } catch (error) {
            section.alert.textContent = error.message
        }
    }

    // Of the whole queue: what another tab or a script renders is told to nobody else. It falls when a render ends.
    onStatus = ({ detail }) => {
        const remaining = detail?.exec_info?.queue_remaining
        if (remaining < (this.remaining ?? Infinity)) this.refresh()
        this.remaining = remaining
    }

    refresh() {
        this.showHealth()
        this.showPage(this.page)
    }

    async unload() {
        await api.freeMemory({ freeExecutionCache: true })
        setTimeout(() => this.showHealth(), FREED_MS)
    }

    resize(size) {
        this.size = size
        this.showPage(1)
    }

    showHealth() {
        return this.attempt(this.health, async () => {
            this.health.status.textContent = this.texts.asking
            try {
                const found = await this.ask("/xavi9/health")
                this.health.body.replaceChildren(...found.modes.map(it => this.mode(it)), ...this.machine(found))
            } finally {
                this.health.status.textContent = ""
            }
        })
    }

    mode({ mode, state, bytes, on_device, what, cure, code, values }) {
        const { text, remedy } = this.failures[code] ?? { text: what, remedy: cure }
        const needsCure = NEEDS_CURE.includes(state)
        const badge = make("span", { className: needsCure ? "badge cure" : "badge" }, this.texts.states[state] ?? state)
        const sizes = []
        if (bytes) sizes.push(this.say("size", { size: this.number(bytes / GB) }))
        if (on_device) sizes.push(this.say("on_device", { size: this.number(on_device / GB) }))
        const row = make("article", {}, make("div", { className: "row" },
            make("h3", {}, this.texts.modes[mode] ?? mode), badge), make("p", { className: "faint" }, fill(text, values)))
        if (needsCure) row.append(make("p", { className: "cure" }, fill(remedy, values)))
        if (sizes.length) row.append(make("p", { className: "faint" }, sizes.join(", ")))
        return row
    }

    machine({ machine: { name, free, total, unified, device }, versions }) {
        const kind = unified ? "unified" : device === "cpu" ? "system" : "own"
        const line = this.say(kind, { name, free: this.number(free / GB), total: this.number(total / GB) })
        return [make("p", {}, line), make("meter", { max: total, value: total - free, ariaLabel: this.texts.used }),
            make("p", { className: "faint" }, Object.entries(versions).map(it => it.join(" ")).join(", "))]
    }

    showPage(page) {
        const turn = ++this.turn
        return this.attempt(this.history, async () => {
            const found = await this.ask(`/xavi9/videos?${new URLSearchParams({ page, size: this.size })}`)
            if (turn !== this.turn) return
            // The last video of the last page was deleted.
            if (page > found.pages) return this.showPage(found.pages)
            this.page = page
            this.fill(found)
        })
    }

    fill({ videos, page, pages, total, bytes, limits }) {
        const values = { total: this.number(total, 0), size: this.number(bytes / GB, 2) }
        const lines = [total ? this.say("total", values) : this.texts.empty]
        if (limits.files) lines.push(this.say("limit_files", { files: this.number(limits.files, 0) }))
        if (limits.bytes) lines.push(this.say("limit_bytes", { size: this.number(limits.bytes / GB, 2) }))
        this.history.status.textContent = lines.join(" ")
        this.position.textContent = this.say("page", { page, pages })
        this.previous.disabled = page === 1
        this.next.disabled = page === pages
        this.pager.hidden = pages === 1
        const before = this.cards
        this.cards = new Map(videos.map(it => [it.id, before.get(it.id) ?? this.card(it)]))
        for (const [id, card] of before) if (!this.cards.has(id)) card.remove()
        const list = this.history.body
        // Whatever is moved stops playing.
        ;[...this.cards.values()].forEach((card, index) => {
            if (list.children[index] !== card) list.insertBefore(card, list.children[index] ?? null)
        })
    }

    card(video) {
        const { id, name, filename, subfolder, type, kind, seconds, size, bytes, mode, seed, prompt, saved } = video
        // A later file may have the same name.
        const url = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type, id })}`)
        const poster = make("img", { loading: "lazy", alt: this.say("poster", { name }),
            src: api.apiURL(`/xavi9/videos/${id}/poster`) })
        const view = make("div", { className: "view" }, poster)
        const facts = [seconds && `${this.number(seconds)} s`, Array.isArray(size) && size.join("x"), `${this.number(bytes / MB)} MB`]
        const origin = [mode && (this.texts.modes[mode] ?? mode), seed != null && this.say("seed", { seed })]
        const date = new Date(saved * 1000).toLocaleString(this.locale, { dateStyle: "medium", timeStyle: "short" })
        const play = this.button("play", () => this.play(play, view, poster, kind, url), name)
        play.hidden = !kind
        return make("article", {}, view, make("h3", {}, name),
            make("p", {}, facts.filter(Boolean).join(", ")),
            make("p", {}, origin.filter(Boolean).join(", ")),
            make("p", { className: "prompt", title: prompt ?? "" }, prompt ?? ""),
            make("p", { className: "faint" }, date),
            make("div", { className: "buttons" }, play,
                make("a", { className: "button", href: url, download: name,
                    ariaLabel: `${this.texts.download}: ${name}` }, this.texts.download),
                this.button("open", () => this.open(video), name),
                this.button("delete", () => this.remove(video), name)))
    }

    play(button, view, poster, kind, url) {
        const plays = view.firstChild === poster
        button.firstChild.data = this.texts[plays ? "stop" : "play"]
        // A player that is made plays, also where nobody sees it.
        if (!plays) return view.replaceChildren(poster)
        const player = kind === "image" ? make("img", { src: url, alt: poster.alt })
            : make("video", { src: url, controls: true, autoplay: true, loop: true, ariaLabel: poster.alt })
        view.replaceChildren(player)
    }

    open({ id, name }) {
        return this.attempt(this.history, async () => {
            const { workflow, prompt } = await this.ask(`/xavi9/videos/${id}/workflow`)
            const title = name.replace(/\.\w+$/, "")
            if (workflow) await app.loadGraphData(workflow, true, true, title)
            else app.loadApiJson(prompt, title)
        })
    }

    remove({ id, name }) {
        return this.attempt(this.history, async () => {
            const sure = await app.extensionManager.dialog.confirm({ title: this.texts.delete_title,
                message: this.texts.delete_message, type: "delete", itemList: [name] })
            if (!sure) return
            await this.ask(`/xavi9/videos/${id}`, { method: "DELETE" })
            const card = this.cards.get(id)
            // A removed button loses the focus.
            const near = card?.nextElementSibling ?? card?.previousElementSibling
            await this.showPage(this.page)
            near?.querySelector("button:last-child").focus()
        })
    }
}

let panel

export const pageSize = {
    id: PAGE_SIZE,
    category: ["Xavi9Videos", "History", "PageSize"],
    name: "Videos on a page of the history",
    tooltip: "How many saved videos the Xavi9Videos tab of the sidebar shows at a time.",
    type: "number",
    attrs: { min: 6, max: 100 },
    defaultValue: 24,
    // It is not stored yet.
    onChange: size => panel?.resize(size),
}

export async function registerPanel() {
    const served = await (await api.fetchApi("/i18n")).json()
    app.extensionManager.registerSidebarTab({
        id: "xavi9videos",
        icon: "pi pi-video",
        title: "Xavi9Videos",
        label: "Xavi9",
        tooltip: "Xavi9Videos",
        type: "custom",
        render(el) {
            // The editor calls this again whenever it looks at the tab anew.
            if (panel && el.contains(panel.root)) return
            panel?.close()
            const locale = app.extensionManager.setting.get("Comfy.Locale")
            const spoken = served[locale]?.xavi9?.panel ? locale : "en"
            panel = new Panel(served[spoken].xavi9, spoken)
            el.replaceChildren(panel.root)
        },
        destroy() {
            panel?.close()
            panel = undefined
        },
    })
}
