'use strict';

// A STAND-IN for the module `vscode`, as much of it as the extension uses: what tests fire, and what
// they see. The real one is tried by tests/producers/test_vscode_real.py, in code-server.

const fs = require('node:fs');
const Module = require('node:module');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');

class Emitter {
    constructor() {
        this._heard = new Set();
        this.event = (call) => {
            this._heard.add(call);
            return { dispose: () => this._heard.delete(call) };
        };
    }

    fire(event) {
        for (const call of this._heard)
            call(event);
    }
}

class TaskGroup {
    constructor(id) {
        this.id = id;
    }
}
TaskGroup.Build = new TaskGroup('build');
TaskGroup.Test = new TaskGroup('test');

const events = {
    started: new Emitter(),
    ended: new Emitter(),
    saved: new Emitter(),
    configured: new Emitter(),
    tested: new Emitter(),
};
// What people would see, and what they answer: a picker takes the first item that `picks` says.
const seen = { shown: [], picked: [], commands: new Map(), bars: [], documents: [] };
const answers = { picks: [], inputs: [] };
const settings = new Map();

const vscode = {
    TaskGroup,
    StatusBarAlignment: { Left: 1, Right: 2 },
    ProgressLocation: { Window: 10, Notification: 15 },
    ThemeColor: class {
        constructor(id) {
            this.id = id;
        }
    },
    env: { sessionId: '1f2e3d4c-aaaa-bbbb-cccc-0123456789ab1700000000000', appName: 'Stand-in', remoteName: undefined },
    tasks: { onDidStartTaskProcess: events.started.event, onDidEndTaskProcess: events.ended.event },
    tests: {
        testResults: [],
        get onDidChangeTestResults() {
            if (!vscode.granted)
                throw new Error("Extension 'opsmesh.opsmesh' CANNOT use API proposal: testObserver.");
            return events.tested.event;
        },
    },
    granted: true,
    workspace: {
        workspaceFolders: undefined,
        onDidSaveTextDocument: events.saved.event,
        onDidChangeConfiguration: events.configured.event,
        getConfiguration: (section) => ({
            get: (name, otherwise) => (settings.has(`${section}.${name}`) ? settings.get(`${section}.${name}`) : otherwise),
        }),
        openTextDocument: async (told) => {
            seen.documents.push(told);
            return told;
        },
    },
    window: {
        activeTextEditor: undefined,
        createOutputChannel: () => ({ lines: [], appendLine(line) {
            this.lines.push(line);
        }, show() {}, dispose() {} }),
        createStatusBarItem: () => {
            const item = { show() {}, dispose() {
                this.gone = true;
            } };
            seen.bars.push(item);
            return item;
        },
        showInformationMessage: async (text) => void seen.shown.push(text),
        showWarningMessage: async (text) => void seen.shown.push(text),
        showErrorMessage: async (text) => void seen.shown.push(text),
        showTextDocument: async () => {},
        showQuickPick: async (items) => {
            seen.picked.push(items);
            const wanted = answers.picks.shift();
            return wanted === undefined ? undefined : items.find((item) => item.label.includes(wanted));
        },
        showInputBox: async (asked) => {
            const text = answers.inputs.shift();
            if (text !== undefined && asked.validateInput?.(text))
                throw new Error(`the box does not take ${text}`);
            return text;
        },
        withProgress: async (_, call) => call({ report() {} }, { onCancellationRequested() {} }),
    },
    commands: {
        registerCommand: (name, call) => {
            seen.commands.set(name, call);
            return { dispose: () => seen.commands.delete(name) };
        },
        executeCommand: (name, ...args) => seen.commands.get(name)(...args),
    },
};

process.setMaxListeners(100);

const resolve = Module._resolveFilename;
Module._resolveFilename = function resolveStub(request, ...rest) {
    return request === 'vscode' ? __filename : resolve.call(this, request, ...rest);
};

// ------------------------------------------------------------------ what tests share

// Folders of a mesh of the test's own, and the environment that names them.
function home() {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'opsmesh-vscode-'));
    process.once('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
    const env = { HOME: folder, PATH: process.env.PATH };
    for (const [name, part] of [['XDG_STATE_HOME', 'state'], ['XDG_RUNTIME_DIR', 'run']]) {
        env[name] = path.join(folder, part);
        fs.mkdirSync(env[name], { recursive: true });
    }
    return { folder, env, socket: path.join(env.XDG_RUNTIME_DIR, 'opsmesh/ingest.sock'), spool: path.join(env.XDG_STATE_HOME, 'opsmesh/spool') };
}

// A STAND-IN for the agent: takes lines on the socket, and answers each as `answer` says.
class Agent {
    constructor(socketPath, answer = (event) => ({ ok: true, id: event.id, seq: 1 })) {
        this.lines = [];
        this.answer = answer;
        this._open = new Set();
        this._path = socketPath;
    }

    async start() {
        fs.mkdirSync(path.dirname(this._path), { recursive: true });
        fs.rmSync(this._path, { force: true });
        this._stopping = false;
        this._server = net.createServer((socket) => {
            if (this._stopping)
                socket.destroy(); // it was accepted before, and told only now
            this._open.add(socket);
            let held = '';
            socket.on('error', () => {});
            socket.on('close', () => this._open.delete(socket));
            socket.on('data', (data) => {
                const lines = (held + data).split('\n');
                held = lines.pop();
                for (const line of lines) {
                    const asked = JSON.parse(line);
                    this.lines.push(asked);
                    const said = this.answer(asked, socket);
                    if (said !== undefined)
                        socket.write(`${JSON.stringify(said)}\n`);
                }
            });
        });
        await new Promise((done) => this._server.listen(this._path, done));
        return this;
    }

    get events() {
        return this.lines.filter((line) => line.topic !== undefined);
    }

    say(line) {
        for (const socket of this._open)
            socket.write(`${JSON.stringify(line)}\n`);
    }

    async stop() {
        this._stopping = true;
        for (const socket of this._open)
            socket.destroy();
        await new Promise((done) => this._server.close(done));
    }
}

// The events in the spool, in the order in which the agent would send them.
function spooled(folder) {
    if (!fs.existsSync(folder))
        return [];
    const names = fs.readdirSync(folder).filter((name) => name.endsWith('.spool') && !name.startsWith('.')).sort();
    return names.flatMap((name) => fs.readFileSync(path.join(folder, name), 'utf8').split('\n').filter(Boolean)
        .map((record) => record.slice(9)).filter((line) => !line.startsWith('=')).map((line) => JSON.parse(line)));
}

async function until(condition, what = String(condition)) {
    for (const deadline = Date.now() + 10000; Date.now() < deadline;) {
        const found = await condition();
        if (found)
            return found;
        await new Promise((done) => setTimeout(done, 5));
    }
    throw new Error(`never true: ${what}`);
}

const uri = (fsPath, scheme = 'file') => ({ scheme, fsPath });

// A task as VS Code describes it.
function task(name, more = {}) {
    return { name, definition: { type: 'shell' }, source: 'Workspace', scope: undefined, group: undefined, ...more };
}

// The extension, activated as VS Code does it; `end` is VS Code's end.
function started(place, more = {}) {
    const saved = { ...process.env };
    for (const name of Object.keys(process.env)) {
        if (/^(OPSMESH|XDG)_/.test(name))
            delete process.env[name];
    }
    Object.assign(process.env, place.env, more);
    const extension = require('../src/extension');
    const variables = new Map();
    const context = {
        subscriptions: [],
        logUri: uri(path.join(place.folder, 'logs/exthost1/opsmesh.opsmesh')),
        environmentVariableCollection: { replace: (name, value) => variables.set(name, value) },
    };
    const api = extension.activate(context);
    return { api, variables, context, end: async () => {
        await extension.deactivate();
        for (const one of context.subscriptions)
            one.dispose();
        for (const name of Object.keys(process.env)) {
            if (!(name in saved))
                delete process.env[name];
        }
        Object.assign(process.env, saved);
        settings.clear();
    } };
}

// what the extension requires is the same object: tests change it
module.exports = Object.setPrototypeOf(
    { stub: { vscode, events, seen, answers, settings, home, Agent, spooled, until, uri, task, started } }, vscode,
);
