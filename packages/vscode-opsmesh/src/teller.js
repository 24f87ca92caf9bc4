'use strict';

// Makes an event of what happened, and gives it to the outbox. It never throws: an error of ours is
// counted, and shown by the command OpsMesh: Status.

const { uuid7 } = require('./uuid7');

//: Longest text of a field, in characters; a command line can be a script.
const LONGEST = 8192;
//: Longest event, in bytes: the agent's own limit is 1 MiB.
const MAX_EVENT = 256 * 1024;

class Teller {
    // `session`: the editor's; `workspace`: gives that of a path.
    constructor({ outbox, session, workspace, log = () => {} }) {
        this._outbox = outbox;
        this._session = session;
        this._workspace = workspace;
        this._log = log;
        this._boot = uuid7();
        this._seq = 0;
        this.errors = 0;
        this.lastError = '';
    }

    // The event's id, or '' when it could not be told. `at`: the path that it is about.
    tell(topic, payload, { at = '', component = 'vscode', correlationId, durationMs, exitCode, atMs } = {}) {
        try {
            const id = uuid7();
            const event = {
                topic,
                ts_utc: new Date(atMs ?? Date.now()).toISOString().replace('Z', '000Z'),
                source: 'vscode',
                component: cut(component) || 'vscode',
                correlation_id: correlationId ?? id,
                session_id: this._session,
                workspace: this._workspace(at),
                payload: known({ ...payload, editor: 'vscode' }),
                exit_code: exitCode,
                duration_ms: durationMs,
                id,
                schema_version: '1.0',
                seq: this._seq + 1,
                boot_id: this._boot,
                _reply: true,
            };
            const line = Buffer.from(JSON.stringify(known(event), paired));
            if (line.length > MAX_EVENT)
                throw new Error(`an event of ${line.length} bytes exceeds ${MAX_EVENT}`);
            this._seq += 1;
            this._outbox.add(id, line);
            return id;
        } catch (error) {
            this.failed(topic, error);
            return '';
        }
    }

    // A function that is called by VS Code: what it throws stays here.
    guarded(what, call) {
        return (...args) => {
            try {
                return call(...args);
            } catch (error) {
                this.failed(what, error);
                return undefined;
            }
        };
    }

    failed(what, error) {
        this.errors += 1;
        this.lastError = `${what}: ${error?.message ?? error}`;
        this._log(this.lastError);
    }
}

// Without what is not known; texts within their bound.
function known(record) {
    const kept = {};
    for (const [name, value] of Object.entries(record)) {
        if (value === undefined || value === null || value === '' || Number.isNaN(value))
            continue;
        kept[name] = typeof value === 'string' ? cut(value) : value;
    }
    return kept;
}

// Half of a surrogate pair is a text to JavaScript, and no JSON to others: shown by its number.
function paired(_name, value) {
    return typeof value === 'string' ? value.replace(/\p{Cs}/gu, (half) => `\\u${half.charCodeAt(0).toString(16)}`) : value;
}

function cut(text) {
    const whole = String(text ?? '');
    if (whole.length <= LONGEST)
        return whole;
    return whole.slice(0, LONGEST - 1).replace(/[\ud800-\udbff]$/, '') + '…';
}

module.exports = { Teller };
