'use strict';

// One connection to the agent's socket: whole lines out, whole lines in. It never throws; how it
// ends is told once, by `ended`.

const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');

//: The longest path of a UNIX socket's address on Linux.
const MAX_ADDRESS = 107;
//: Characters that may wait for the end of a line; the agent's own limit is 1 MiB.
const LONGEST = 4 * 1024 * 1024;

class Line {
    constructor(socketPath, { opened, heard, ended }) {
        this._held = '';
        this._over = false;
        this._ended = ended;
        let folder = -1;
        let address = socketPath;
        try {
            if (Buffer.byteLength(address) > MAX_ADDRESS) {
                folder = fs.openSync(path.dirname(socketPath), fs.constants.O_DIRECTORY);
                address = `/proc/self/fd/${folder}/${path.basename(socketPath)}`;
            }
        } catch (error) {
            setImmediate(() => this.end(error));
            return;
        }
        const done = () => {
            if (folder >= 0)
                fs.closeSync(folder);
            folder = -1;
        };
        this._socket = net.createConnection({ path: address });
        this._socket.setEncoding('utf8');
        this._socket.on('connect', () => {
            done();
            if (!this._over)
                opened();
        });
        this._socket.on('data', (text) => this._take(text, heard));
        this._socket.on('error', (error) => {
            done();
            this.end(error);
        });
        this._socket.on('close', () => {
            done();
            this.end(null);
        });
    }

    write(line) {
        if (!this._over)
            this._socket.write(Buffer.concat([line, Buffer.from('\n')]));
    }

    end(error) {
        if (this._over)
            return;
        this._over = true;
        this._socket?.destroy();
        this._ended(error);
    }

    _take(text, heard) {
        const lines = (this._held + text).split('\n');
        this._held = lines.pop();
        if (this._held.length > LONGEST) {
            this.end(new Error('a line of the agent does not end'));
            return;
        }
        for (const line of lines) {
            const said = parsed(line);
            if (said !== null && !this._over)
                heard(said);
        }
    }
}

function parsed(text) {
    try {
        const value = JSON.parse(text);
        return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : null;
    } catch {
        return null;
    }
}

module.exports = { Line };
