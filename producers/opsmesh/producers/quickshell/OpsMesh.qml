pragma Singleton

// The desktop shell's end of opsmesh: events go to the agent's socket, questions come from it.
// The one rule: nothing here waits. What the agent has not acknowledged stays in a bounded queue,
// and is sent again with the same id after a connection was lost, so that it is stored once.
//
// Written by `opsmesh install quickshell`; `opsmesh uninstall quickshell` takes it away.

import QtQml
import Quickshell
import Quickshell.Io

Singleton {
    id: root

    // The agent is there.
    readonly property bool connected: _events !== null && _events.connected
    // What became of the last event, run or answer: {ok, id, …}, or {ok: false, error}. A run is
    // told twice: when it was started, and with its `state` when it has ended.
    property var lastResult: null
    // What waits for a person: [{id, kind, profile, prompt, choices, since, expires, schema,
    // otherwise, may_answer}]; kind is run or approval.
    property var pendingApprovals: []
    // Events that were given up: no room in the queue, or none in the agent's spool.
    property int dropped: 0
    // Events that wait for the agent's acknowledgement.
    property int queued: 0

    readonly property int limit: 256
    property string path: _socketPath()

    // A control was used. `detail` is text or an object. Gives the event's id.
    function action(name, detail, widget) {
        const payload = { action: _text(name) };
        if (detail !== undefined && detail !== null)
            payload.detail = _isRecord(detail) ? detail : _text(detail);
        return _emit("shell.action.invoked", _with(payload, { widget: widget }), widget);
    }

    // Somebody asked for a workflow; profiles listen for its name.
    function workflow(name, args) {
        const payload = { workflow: _text(name) };
        if (_isRecord(args))
            payload.args = args;
        return _emit("shell.workflow.triggered", payload, "");
    }

    // A widget failed. QML has no hook for that: call it where you see it.
    function widgetError(widget, message, path, line) {
        const payload = { widget: _text(widget), message: _text(message) };
        const more = { path: path };
        if (Number.isInteger(line))
            more.line = line;
        return _emit("shell.widget.error", _with(payload, more), widget);
    }

    // Run a profile now. Never queued: it is refused while agent, broker or handlers are away.
    function run(profile, args, widget) {
        const id = _uuid7();
        const asked = { profile: _text(profile), id: id, source: "quickshell" };
        if (_isRecord(args))
            asked.args = args;
        if (!_ask({ _run: _with(asked, { widget: widget }) }, { id: id, run: _text(profile) }))
            return "";
        _runs.push({ id: id, run: _text(profile), unsure: false });
        if (_runs.length > _window)
            _runs.shift();
        return id;
    }

    // Answer one of `pendingApprovals` with one of its choices. An approval that has a schema takes
    // the value with it; the agent says who its user is.
    function answer(id, choice, reason, value) {
        const given = { run: _text(id), choice: _text(choice), via: "quickshell" };
        if (value !== undefined && value !== null)
            given.answer = value;
        return _ask({ _answer: _with(given, { reason: reason }) }, { id: _text(id), answer: _text(choice) });
    }

    function approve(id, comment, value) {
        return answer(id, "approve", comment, value);
    }

    function deny(id, comment) {
        return answer(id, "deny", comment);
    }

    // ---------------------------------------------------------------- events to the agent

    readonly property int _window: 32
    readonly property int _longest: 262144
    property var _waiting: []
    property var _sent: []
    property var _events: null

    function _emit(topic, payload, widget) {
        const id = _uuid7();
        let line = "";
        try {
            line = JSON.stringify({
                topic: topic,
                id: id,
                ts_utc: new Date().toISOString().replace("Z", "000Z"),
                source: "quickshell",
                component: _isText(widget) ? widget : "quickshell",
                payload: payload,
                _reply: true
            });
        } catch (error) {
            lastResult = { ok: false, topic: topic, error: String(error) };
            return "";
        }
        if (line.length > _longest) {
            lastResult = { ok: false, topic: topic, error: "event of " + line.length + " characters exceeds " + _longest };
            return "";
        }
        _waiting.push({ id: id, topic: topic, line: line });
        while (_waiting.length + _sent.length > limit) {
            _waiting.shift();
            dropped += 1;
        }
        _send();
        if (!_there())
            _hurry();
        return id;
    }

    // `connected` is a binding: the signal that changes it may come here first.
    function _there() {
        return _events !== null && _events.connected;
    }

    function _send() {
        const sent = _sent.length;
        while (_there() && _waiting.length && _sent.length < _window) {
            const event = _waiting.shift();
            _sent.push(event);
            _events.write(event.line + "\n");
        }
        if (_sent.length > sent)
            _events.flush();
        queued = _waiting.length + _sent.length;
    }

    function _acknowledged(text) {
        const said = _parsed(text);
        if (said === null || typeof said.ok !== "boolean" || !_sent.length)
            return;
        // answers come in the order of the events; one without an id is for the oldest
        const at = said.id === undefined ? 0 : _sent.findIndex(event => event.id === said.id);
        if (at < 0)
            return;
        const event = _sent.splice(at, 1)[0];
        if (said.dropped === true)
            dropped += 1;
        lastResult = _with({ id: event.id, topic: event.topic }, said);
        _send();
    }

    function _eventsTurned(socket) {
        if (socket !== _events)
            return;
        if (socket.connected) {
            _delay = _soonest;
            _send();
            return;
        }
        _lost();
    }

    // ---------------------------------------------------------------- questions and errands

    property var _ear: null
    property var _asked: []
    // Runs whose end was not told yet, the newest 32.
    property var _runs: []
    property int _looks: 0

    function _ask(request, about) {
        let problem = "";
        if (_ear === null || !_ear.connected)
            problem = "the agent is away: nothing was done";
        else if (_asked.length >= _window)
            problem = "the agent does not answer: nothing was done";
        if (problem === "") {
            try {
                const line = JSON.stringify(request);
                _asked.push(about);
                _ear.write(line + "\n");
                _ear.flush();
                return true;
            } catch (error) {
                problem = String(error);
            }
        }
        if (!about.silent)
            lastResult = _with({ ok: false, error: problem }, about);
        return false;
    }

    function _heard(text) {
        const said = _parsed(text);
        if (said === null)
            return;
        if (typeof said.ok === "boolean" && said.topic === undefined) {
            const about = _asked.shift();
            if (about !== undefined)
                _answered(about, said);
        } else if (said._missed !== undefined) {
            _look();
            _unsure("events were missed");
        } else if (typeof said.topic === "string") {
            if (said.topic.startsWith("automation.run."))
                _ended(said);
            else
                _look();
        }
    }

    // An attempt of some run has ended. The click is its cause; other profiles may have heard the
    // same click.
    function _ended(event) {
        const told = _isRecord(event.payload) ? event.payload : {};
        const at = _runs.findIndex(one => one.id === event.causation_id && one.run === told.profile);
        if (at < 0)
            return;
        const state = event.topic.slice("automation.run.".length);
        const more = { run_id: event.run_id, error: told.error || told.reason, next_attempt_in_s: told.next_attempt_in_s };
        lastResult = _with({ ok: state === "succeeded", id: _runs[at].id, run: told.profile, state: state }, more);
        if (told.next_attempt_in_s === undefined || told.next_attempt_in_s === null)
            _runs.splice(at, 1);
    }

    // The end of these runs may have been told to nobody; it is still listened for.
    function _unsure(why) {
        for (const one of _runs) {
            if (!one.unsure)
                lastResult = { ok: false, id: one.id, run: one.run, error: why + ": see opsmesh run ls for how it went" };
            one.unsure = true;
        }
    }

    function _answered(about, said) {
        if (about.questions) {
            pendingApprovals = said.ok && Array.isArray(said.questions) ? said.questions.filter(_isRecord) : [];
            return;
        }
        if (about.silent)
            return;
        if (about.answer !== undefined) {
            if (said.ok)
                pendingApprovals = pendingApprovals.filter(one => one.id !== about.id);
            else
                _look();
        }
        if (about.run !== undefined) {
            const at = _runs.findIndex(one => one.id === about.id);
            if (said.ok && at < 0)
                return; // its end was told already
            if (!said.ok && at >= 0)
                _runs.splice(at, 1);
        }
        lastResult = _with(_with({}, about), said);
    }

    function _look() {
        _looks = 2;
        _looking.interval = 50;
        _looking.restart();
    }

    function _earTurned(socket) {
        if (socket !== _ear)
            return;
        if (!socket.connected) {
            _lost();
            return;
        }
        _ask({ _follow: ["automation.run.>", "automation.step.>", "automation.approval.>", "mesh.component.started"] }, { silent: true });
        _ask({ _questions: true }, { silent: true, questions: true });
    }

    // Once soon, and once when what was told is surely in the ledger.
    property var _looking: Timer {
        onTriggered: {
            root._ask({ _questions: true }, { silent: true, questions: true });
            root._looks -= 1;
            if (root._looks > 0) {
                interval = 1000;
                restart();
            }
        }
    }

    // ---------------------------------------------------------------- connections

    readonly property int _soonest: 100
    readonly property int _latest: 30000
    property int _delay: 100

    // A Socket that failed to connect once never connects again (Quickshell 0.3.1,
    // src/io/socket.cpp: setConnected asks for socket == nullptr, which only a disconnect brings):
    // each attempt has one of its own.
    property Component _line: Component {
        Socket {
            id: line

            property var heard
            property var turned

            onConnectedChanged: turned(line)
            parser: SplitParser {
                onRead: text => line.heard(text)
            }
        }
    }

    function _connect() {
        _close();
        if (path === "")
            return;
        _events = _line.createObject(root, { path: path, turned: _eventsTurned, heard: _acknowledged });
        _ear = _line.createObject(root, { path: path, turned: _earTurned, heard: _heard });
        _events.connected = true;
        if (_ear !== null)
            _ear.connected = true;
        if (!_there())
            _again();
    }

    function _close() {
        const old = [_events, _ear];
        _events = null;
        _ear = null;
        for (const socket of old) {
            if (socket !== null) {
                socket.connected = false;
                socket.destroy();
            }
        }
        // what was not answered goes first, with the ids that it had
        _waiting = _sent.concat(_waiting);
        _sent = [];
        queued = _waiting.length;
        for (const about of _asked.splice(0)) {
            if (!about.silent)
                lastResult = _with({ ok: false, error: "the agent went away: nobody knows whether it was done" }, about);
        }
    }

    function _lost() {
        _unsure("the agent went away");
        _close();
        pendingApprovals = [];
        _again();
    }

    function _again() {
        _retry.interval = _delay;
        _delay = Math.min(_delay * 2, _latest);
        _retry.restart();
    }

    function _hurry() {
        if (_retry.running && _retry.interval > 1000) {
            _retry.interval = 1000;
            _retry.restart();
        }
    }

    property var _retry: Timer {
        onTriggered: if (!root._there()) root._connect()
    }

    // Reading it connects: a singleton is made when it is first used.
    Component.onCompleted: _connect()
    Component.onDestruction: _close()

    function _socketPath() {
        const set = name => {
            const value = Quickshell.env(name);
            return typeof value === "string" && value.startsWith("/") ? value : "";
        };
        if (set("XDG_RUNTIME_DIR"))
            return set("XDG_RUNTIME_DIR") + "/opsmesh/ingest.sock";
        const state = set("XDG_STATE_HOME") || set("HOME") + "/.local/state";
        return state + "/opsmesh/run/ingest.sock";
    }

    // ---------------------------------------------------------------- values

    property real _lastMs: 0
    property int _count: 0

    // RFC 9562, version 7: milliseconds, a counter within one, and chance.
    function _uuid7() {
        const now = Math.max(Date.now(), _lastMs);
        if (now === _lastMs && _count < 4095) {
            _count += 1;
        } else {
            _lastMs = now === _lastMs ? now + 1 : now;
            _count = Math.floor(Math.random() * 1024);
        }
        const hex = (number, digits) => number.toString(16).padStart(digits, "0");
        const chance = () => hex(Math.floor(Math.random() * 65536), 4);
        const ms = hex(_lastMs, 12);
        const variant = hex(0x8000 + Math.floor(Math.random() * 16384), 4);
        return ms.slice(0, 8) + "-" + ms.slice(8) + "-7" + hex(_count, 3) + "-" + variant + "-" + chance() + chance() + chance();
    }

    function _parsed(text) {
        try {
            const value = JSON.parse(text);
            return _isRecord(value) ? value : null;
        } catch (error) {
            return null;
        }
    }

    function _isRecord(value) {
        return typeof value === "object" && value !== null && !Array.isArray(value);
    }

    function _isText(value) {
        return typeof value === "string" && value !== "";
    }

    // Of whatever it is: a ring has no JSON, an object without a prototype no String.
    function _text(value) {
        try {
            return typeof value === "object" && value !== null && !(value instanceof Error) ? JSON.stringify(value) : String(value);
        } catch (error) {
            return Object.prototype.toString.call(value);
        }
    }

    // `more` over `base`, without what is undefined, null or empty.
    function _with(base, more) {
        for (const name in more) {
            if (more[name] !== undefined && more[name] !== null && more[name] !== "")
                base[name] = more[name];
        }
        return base;
    }
}
