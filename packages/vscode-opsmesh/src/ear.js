'use strict';

// The connection that follows (ADR 0018): whether the agent is there, what waits for a person, and
// what becomes of runs. Nothing here is kept for later: what cannot be asked now is refused.

const { EventEmitter, once } = require('node:events');
const { Line } = require('./line');
const { uuid7 } = require('./uuid7');

//: What is followed. The first two are runs' ends and questions, the last handlers that go and come back.
const TOPICS = ['automation.run.>', 'automation.step.>', 'automation.approval.>', 'mesh.component.>'];
//: Milliseconds that a connection may take at a person's call.
const SOON = 2000;
//: Milliseconds until the agent is looked for again: first, and at most.
const SOONEST = 200;
const LATEST = 30000;
//: Milliseconds that an answer may take: the handlers have 5 s.
const PATIENCE = 8000;
//: Milliseconds after a change until the questions are asked for: at once, and when it is surely in the ledger.
const LOOKS = [50, 1000];
//: Runs that are waited for.
const RUNS = 32;

class Ear extends EventEmitter {
    constructor(socketPath) {
        super();
        this._socketPath = socketPath;
        this._line = null;
        this._asked = [];
        this._runs = new Map();
        this._delay = SOONEST;
        this._retry = null;
        this._looking = null;
        this._wanted = false;
        this.connected = false;
        // [{id, kind, profile, prompt, choices, since, expires, schema, otherwise, may_answer}]
        this.questions = [];
        // Why nobody can say what waits: the broker is away, or no handlers run.
        this.trouble = '';
    }

    start() {
        if (this._wanted)
            return;
        this._wanted = true;
        this._connect();
    }

    stop() {
        this._wanted = false;
        clearTimeout(this._retry);
        clearTimeout(this._looking);
        this._line?.end(null);
    }

    // Look for the agent now, not when its turn comes; whether it is there.
    async here() {
        this.start();
        if (this._line === null) {
            clearTimeout(this._retry);
            this._connect();
        }
        if (!this.connected)
            await Promise.race([once(this, 'turned'), new Promise((resolve) => setTimeout(resolve, SOON).unref())]);
        return this.connected;
    }

    // The answer to a request; rejects while the agent is away, and when it says nothing.
    async ask(request) {
        if (!this.connected && !(await this.here()))
            throw new Error('the agent is away: nothing was done (opsmesh up)');
        return new Promise((resolve, reject) => {
            const about = { resolve, reject, timer: null };
            about.timer = setTimeout(() => {
                reject(new Error('the agent did not answer: nobody knows whether it was done'));
                this._line?.end(null); // a late answer must not be taken for the next one's
            }, PATIENCE);
            this._asked.push(about);
            this._line.write(Buffer.from(JSON.stringify(request)));
        });
    }

    // What waits for a person, asked anew.
    async look() {
        const said = await this.ask({ _questions: true });
        const found = said.ok && Array.isArray(said.questions) ? said.questions.filter((one) => one && typeof one === 'object') : [];
        this.questions = found;
        this.trouble = said.ok ? '' : said.error || 'nobody can say what waits';
        this.emit('changed');
        if (!said.ok)
            throw new Error(this.trouble);
        return found;
    }

    // Start a profile; `ended` of what it gives resolves with how its first attempt ended.
    async run(profile, args) {
        const id = uuid7();
        let end;
        const ended = new Promise((resolve) => {
            end = resolve;
        });
        this._runs.set(id, { profile, end });
        if (this._runs.size > RUNS)
            this._runs.delete(this._runs.keys().next().value);
        const said = await this.ask({ _run: { profile, id, source: 'vscode', widget: 'vscode', args } });
        if (!said.ok) {
            this._runs.delete(id);
            throw new Error(said.error || 'it was not started');
        }
        return { id, ended };
    }

    async answer(question, choice, { reason, value } = {}) {
        const said = await this.ask({ _answer: { run: question.id, choice, reason, answer: value, via: 'vscode' } });
        if (!said.ok)
            throw new Error(said.error || 'the answer was not taken');
        this.questions = this.questions.filter((one) => one.id !== question.id);
        this.emit('changed');
        return said;
    }

    _connect() {
        const line = new Line(this._socketPath, {
            opened: () => this._opened(),
            heard: (said) => this._heard(said),
            ended: () => this._lost(line),
        });
        this._line = line;
    }

    _opened() {
        this.connected = true;
        this._delay = SOONEST;
        this.ask({ _follow: TOPICS }).catch(() => {});
        this.look().catch(() => {});
        this.emit('changed');
        this.emit('turned');
    }

    _lost(line) {
        if (line !== this._line)
            return;
        const was = this.connected;
        this._line = null;
        this.connected = false;
        this.emit('turned');
        this.questions = [];
        this.trouble = '';
        clearTimeout(this._looking);
        for (const about of this._asked.splice(0)) {
            clearTimeout(about.timer);
            about.reject(new Error('the agent went away: nobody knows whether it was done'));
        }
        for (const { end } of this._runs.values())
            end({ state: 'unknown', error: 'the agent went away: opsmesh run ls has how it went' });
        this._runs.clear();
        if (was)
            this.emit('changed');
        if (!this._wanted)
            return;
        this._retry = setTimeout(() => this._connect(), this._delay);
        this._retry.unref();
        this._delay = Math.min(this._delay * 2, LATEST);
    }

    _heard(said) {
        if (typeof said.topic === 'string') {
            if (said.topic.startsWith('automation.run.'))
                this._ended(said);
            else
                this._lookSoon();
        } else if (said._missed !== undefined) {
            this._lookSoon();
        } else if (typeof said.ok === 'boolean') {
            const about = this._asked.shift();
            if (about !== undefined) {
                clearTimeout(about.timer);
                about.resolve(said);
            }
        }
    }

    // The click is the run's cause; other profiles may have heard the same click.
    _ended(event) {
        const told = event.payload ?? {};
        const one = this._runs.get(event.causation_id);
        if (one === undefined || one.profile !== told.profile)
            return;
        this._runs.delete(event.causation_id);
        one.end({
            state: event.topic.slice('automation.run.'.length),
            runId: event.run_id,
            error: told.error || told.reason || '',
            again: told.next_attempt_in_s,
        });
    }

    _lookSoon() {
        clearTimeout(this._looking);
        const next = (left) => {
            if (!left.length)
                return;
            this._looking = setTimeout(() => {
                if (this.connected)
                    this.look().catch(() => {});
                next(left.slice(1));
            }, left[0]);
            this._looking.unref();
        };
        next(LOOKS);
    }
}

module.exports = { Ear };
