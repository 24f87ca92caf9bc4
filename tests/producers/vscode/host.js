'use strict';

// A STAND-IN for an extension host: a process with the real extension in it, and the module `vscode`
// of the extension's own tests. Does what stdin says, one JSON array a line, and answers each.
// argv: the folder of the extension, the folder of the host's logs.

const path = require('node:path');
const readline = require('node:readline');

const [extensionFolder, logs] = process.argv.slice(2);
const { stub } = require(path.join(extensionFolder, 'test/stub.js'));
const extension = require(path.join(extensionFolder, 'src/extension.js'));

const api = extension.activate({
    subscriptions: [],
    logUri: stub.uri(path.join(logs, 'opsmesh.opsmesh')),
    environmentVariableCollection: { replace() {} },
});

const does = {
    pid: () => process.pid,
    fail: (name, code, group, cwd) => {
        const execution = { task: stub.task(name, {
            group: group === 'test' ? stub.vscode.TaskGroup.Test : undefined,
            execution: { commandLine: name, options: { cwd } },
        }) };
        stub.events.started.fire({ execution });
        stub.events.ended.fire({ execution, exitCode: code });
    },
    save: (file) => stub.events.saved.fire({ uri: stub.uri(file), languageId: 'python', lineCount: 3 }),
    status: () => api.status(),
    bar: () => stub.seen.bars.at(-1).text,
    command: (name, picks, inputs) => {
        stub.answers.picks = picks;
        stub.answers.inputs = inputs;
        return stub.vscode.commands.executeCommand(name);
    },
    shown: () => stub.seen.shown,
    time: (count) => {
        const since = process.hrtime.bigint();
        for (let number = 0; number < count; number += 1)
            does.save('/tmp/a.py');
        return Number(process.hrtime.bigint() - since) / 1e3 / count;
    },
    leave: () => extension.deactivate(),
};

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
    const [what, ...args] = JSON.parse(line);
    const said = await does[what](...args);
    process.stdout.write(`${JSON.stringify(said ?? null)}\n`);
    if (what === 'leave')
        process.exit(0);
});
