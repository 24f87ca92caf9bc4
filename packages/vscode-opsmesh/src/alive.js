'use strict';

// A file that says that this extension host runs, and where its logs are. The producer `vscode`
// watches the process: when it ends with the file still there, it was not the editor that ended it.

const fs = require('node:fs');
const path = require('node:path');

class Alive {
    constructor(folder, facts) {
        this._path = '';
        this._leave = null;
        const start = started(process.pid);
        if (start === '')
            return; // no /proc: not Linux
        fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
        const name = `${process.pid}-${start}.json`;
        const data = JSON.stringify({
            pid: process.pid,
            start,
            parent: process.ppid,
            parent_start: started(process.ppid),
            pid_namespace: link('/proc/self/ns/pid'),
            boot_id: read('/proc/sys/kernel/random/boot_id').trim(),
            ...facts,
        });
        const hidden = path.join(folder, `.${name}`);
        fs.writeFileSync(hidden, data, { mode: 0o600 });
        fs.renameSync(hidden, path.join(folder, name));
        this._path = path.join(folder, name);
        this._leave = (code) => {
            if (code === 0)
                this.goodbye();
        };
        process.once('exit', this._leave);
    }

    // From here on the end of the process is nobody's news.
    goodbye() {
        if (this._path === '')
            return;
        process.removeListener('exit', this._leave);
        fs.rmSync(this._path, { force: true });
        this._path = '';
    }
}

// When a process was started, in ticks since the boot (proc(5)): a number that its successor under
// the same pid does not have. The name in parentheses may hold anything.
function started(pid) {
    const stat = read(`/proc/${pid}/stat`);
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

function read(name) {
    try {
        return fs.readFileSync(name, 'utf8');
    } catch {
        return '';
    }
}

function link(name) {
    try {
        return fs.readlinkSync(name);
    } catch {
        return '';
    }
}

module.exports = { Alive };
