'use strict';

// Events on their way: to the agent, and to the spool while nobody takes them there.
// The one rule: `add` never waits and never throws, and events leave in the order they came. One
// thing happens at a time: connecting, sending, or writing to the spool.

const spool = require('./spool');
const { Line } = require('./line');

//: Events that may wait; beyond that the oldest go, counted.
const LIMIT = 1000;
//: Events that are under way to the agent at once.
const WINDOW = 64;
//: Milliseconds that the agent has for an answer, and for which it is left alone after it had none.
const PATIENCE = 5000;
//: Milliseconds until the spool is tried again that could not be written.
const AGAIN = 5000;

class Outbox {
    constructor({ socketPath, spoolDir, limit = LIMIT, patience = PATIENCE, log = () => {} }) {
        this._socketPath = socketPath;
        this._spoolDir = spoolDir;
        this._limit = limit;
        this._patience = patience;
        this._log = log;
        this._waiting = []; // {id, line, sent}; what was sent is in front
        this._line = null;
        this._state = 'idle'; // or connecting, open, spooling, resting
        this._avoid = 0;
        this._heard = false;
        this._timer = null;
        this._finishing = null;
        this.counts = { sent: 0, spooled: 0, dropped: 0, refused: 0 };
        this.lastError = '';
    }

    get waiting() {
        return this._waiting.length;
    }

    add(id, line) {
        this._waiting.push({ id, line, sent: false });
        if (this._waiting.length > this._limit)
            this._dropOldest();
        this._go();
    }

    // Resolves once every event is with the agent or in the spool, or after `ms`: then the spool
    // takes what has no answer, under the same id; the broker drops the second copy.
    async finish(ms) {
        if (this._waiting.length) {
            await new Promise((resolve) => {
                const timer = setTimeout(resolve, ms);
                this._finishing = () => {
                    clearTimeout(timer);
                    resolve();
                };
                this._go();
            });
        }
        this._finishing = null;
        this._avoid = Infinity;
        if (this._state === 'spooling')
            await this._spooled;
        this._line?.end(null);
        if (this._waiting.length)
            await this._spool();
        this._rest(null);
    }

    _go() {
        if (this._state === 'open')
            this._send();
        else if (this._state === 'idle' && this._waiting.length)
            this._connect();
    }

    _connect() {
        if (Date.now() < this._avoid) {
            this._spool();
            return;
        }
        this._state = 'connecting';
        this._heard = false;
        this._patient();
        const line = new Line(this._socketPath, {
            opened: () => {
                this._state = 'open';
                this._send();
            },
            heard: (said) => this._answered(said),
            ended: () => this._lost(line),
        });
        this._line = line;
    }

    _send() {
        let under = this._waiting.findIndex((event) => !event.sent);
        if (under < 0)
            return;
        while (under < this._waiting.length && under < WINDOW) {
            const event = this._waiting[under];
            event.sent = true;
            this._line.write(event.line);
            under += 1;
        }
        this._patient();
    }

    // Answers come in the order of the events.
    _answered(said) {
        if (typeof said.ok !== 'boolean' || !this._waiting.length || !this._waiting[0].sent)
            return;
        this._waiting.shift();
        this._heard = true;
        if (said.ok) {
            this.counts.sent += 1;
        } else {
            this.counts[said.dropped === true ? 'dropped' : 'refused'] += 1;
            this._say(`the agent refuses an event: ${said.error}`);
        }
        this._rest(null);
        if (this._waiting.length) {
            this._patient();
            this._send();
        } else {
            this._finishing?.();
        }
    }

    _lost(line) {
        if (line !== this._line)
            return;
        const wasOpen = this._state === 'open';
        this._line = null;
        this._rest(null);
        for (const event of this._waiting)
            event.sent = false;
        this._state = 'idle';
        if (!this._waiting.length || this._avoid === Infinity)
            return;
        if (wasOpen && this._heard)
            this._connect(); // the agent was restarted: the same events, with the same ids
        else
            this._spool();
    }

    // The agent hangs when it says nothing for so long.
    _patient() {
        this._rest(setTimeout(() => {
            this._avoid = Date.now() + this._patience;
            this._state = 'connecting'; // so that it is not asked again at once
            this._line?.end(null);
        }, this._patience));
    }

    _spool() {
        this._state = 'spooling';
        this._spooled = this._toSpool();
        return this._spooled;
    }

    async _toSpool() {
        const batch = this._waiting.slice();
        for (const event of batch)
            event.sent = true; // nobody drops it meanwhile
        let became = 'dropped';
        try {
            became = await spool.write(this._spoolDir, batch.map((event) => event.line));
        } catch (error) {
            this._say(`the spool cannot be written: ${error.message}`);
            this._state = 'resting';
            for (const event of batch)
                event.sent = false;
            if (this._avoid === Infinity)
                return;
            this._rest(setTimeout(() => {
                this._state = 'idle';
                this._go();
            }, AGAIN));
            return;
        }
        this.counts[became] += batch.length;
        const kept = new Set(batch);
        this._waiting = this._waiting.filter((event) => !kept.has(event));
        this._state = 'idle';
        if (!this._waiting.length)
            this._finishing?.();
        else if (this._avoid !== Infinity)
            this._connect();
    }

    _dropOldest() {
        // what is under way keeps its place: its answer is still to come
        const at = this._waiting.findIndex((event) => !event.sent);
        this._waiting.splice(at, 1);
        this.counts.dropped += 1;
        if (this.counts.dropped === 1)
            this._say('events are lost: neither the agent nor the spool takes them');
    }

    _rest(timer) {
        clearTimeout(this._timer);
        this._timer = timer;
        timer?.unref();
    }

    _say(text) {
        this.lastError = text;
        this._log(text);
    }
}

module.exports = { Outbox };
