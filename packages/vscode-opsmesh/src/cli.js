'use strict';

// The command opsmesh: where it is, and what it says in JSON. It runs only at a person's call.

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const paths = require('./paths');

//: Milliseconds that a command may take, and bytes that it may say.
const PATIENCE = 20000;
const MOST = 16 * 1024 * 1024;

class Cli {
    constructor({ told = () => '', env = process.env, most = MOST } = {}) {
        this._told = told;
        this._most = most;
        this._env = env;
    }

    // The setting opsmesh.path, the one that installed the extension, PATH, ~/.local/bin: the first
    // that can be run. Throws when there is none.
    find() {
        const told = this._told();
        if (told) {
            const place = told.startsWith('~/') ? path.join(os.homedir(), told.slice(2)) : told;
            if (runnable(place))
                return place;
            throw new Error(`opsmesh.path: ${told} is no program that can be run`);
        }
        const installed = read(paths.command(this._env));
        if (installed.startsWith('/') && runnable(installed))
            return installed;
        const folders = (this._env.PATH || '').split(':').filter((folder) => folder.startsWith('/'));
        for (const folder of [...folders, path.join(this._env.HOME || os.homedir(), '.local/bin')]) {
            const place = path.join(folder, 'opsmesh');
            if (runnable(place))
                return place;
        }
        throw new Error('the command opsmesh is neither on PATH nor in ~/.local/bin: set opsmesh.path');
    }

    // One JSON document; exit codes in `fine` are no error (status says 1 for a mesh that is degraded).
    async json(args, { fine = [0] } = {}) {
        const text = await this.text(args, { fine });
        try {
            return JSON.parse(text);
        } catch {
            throw new Error(`opsmesh ${args[0]} said no JSON: ${text.slice(0, 200)}`);
        }
    }

    // JSON objects, one a line: the last `count`, however many there are.
    async lines(args, count) {
        const lines = (await this.text(args, { end: true })).split('\n').filter(Boolean);
        return lines.slice(-count).map(parsed).filter((line) => line !== null);
    }

    // `end`: only the end of what it says is wanted.
    text(args, { fine = [0], end = false } = {}) {
        const program = this.find();
        return new Promise((resolve, reject) => {
            const options = { env: this._env, stdio: ['ignore', 'pipe', 'pipe'], cwd: this._env.HOME || os.homedir(), detached: true };
            const child = spawn(program, args, options);
            const said = { out: [], err: [], size: 0 };
            let why = '';
            const stop = (text) => {
                why = text;
                kill(child);
                child.stdout.destroy();
                child.stderr.destroy();
            };
            const timer = setTimeout(() => stop(`took longer than ${PATIENCE / 1000} s`), PATIENCE);
            const take = (into) => (chunk) => {
                if (why !== '')
                    return;
                said.size += chunk.length;
                into.push(chunk);
                while (end && said.size > this._most && into.length > 1)
                    said.size -= into.shift().length;
                if (said.size > this._most)
                    stop(`said more than ${this._most} bytes`);
            };
            child.stdout.on('data', take(said.out));
            child.stderr.on('data', take(said.err));
            child.on('error', (error) => {
                clearTimeout(timer);
                reject(new Error(`${program}: ${error.message}`));
            });
            child.on('close', (code) => {
                clearTimeout(timer);
                const out = Buffer.concat(said.out).toString();
                if (why === '' && fine.includes(code)) {
                    resolve(out);
                    return;
                }
                const text = why || plain(Buffer.concat(said.err).toString()) || plain(out) || `ended with exit code ${code}`;
                reject(new Error(`opsmesh ${args.slice(0, 2).join(' ')}: ${text}`));
            });
        });
    }
}

function parsed(line) {
    try {
        return JSON.parse(line);
    } catch {
        return null; // the first one may have lost its beginning
    }
}

// The whole group: the command may be a script that has started the real one.
function kill(child) {
    try {
        process.kill(-child.pid, 'SIGKILL');
    } catch {
        // it has ended already
    }
}

// Without colours, in one line.
function plain(text) {
    return text.replace(/\x1b\[[0-9;]*m/g, '').trim().replace(/\s*\n\s*/g, ' · ').slice(0, 500);
}

function read(name) {
    try {
        return fs.readFileSync(name, 'utf8').trim();
    } catch {
        return '';
    }
}

function runnable(place) {
    try {
        fs.accessSync(place, fs.constants.X_OK);
        return fs.statSync(place).isFile();
    } catch {
        return false;
    }
}

module.exports = { Cli };
