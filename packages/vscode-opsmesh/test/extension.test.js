'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { stub } = require('./stub');

const { events, seen, settings, task, uri, vscode } = stub;
const VERSION_7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

// The extension with an agent; `body` is given both, and all is taken down after it.
function withAgent(body, answer) {
    return async () => {
        const place = stub.home();
        const agent = await new stub.Agent(place.socket, answer ?? ((asked) => ({ ok: true, id: asked.id, questions: [] }))).start();
        const running = stub.started(place);
        try {
            await body({ place, agent, running });
        } finally {
            await running.end();
            await agent.stop();
            fs.rmSync(place.folder, { recursive: true });
        }
    };
}

function fail(about, exitCode) {
    const execution = { task: about };
    events.started.fire({ execution, processId: 1 });
    events.ended.fire({ execution, exitCode });
}

test('a task that fails is told, with what is known of it', withAgent(async ({ place, agent }) => {
    const folder = path.join(place.folder, 'app');
    fs.mkdirSync(path.join(folder, '.git'), { recursive: true });
    fs.mkdirSync(path.join(folder, 'sub'));
    fail(task('make all', {
        scope: { uri: uri(folder) },
        group: vscode.TaskGroup.Build,
        execution: { command: { value: 'make' }, args: ['all', { value: 'two words' }], options: { cwd: '${workspaceFolder}/sub' } },
    }), 2);
    const [event] = await stub.until(() => agent.events.length && agent.events);
    assert.equal(event.topic, 'editor.task.failed');
    const { duration_ms: took, ...payload } = event.payload;
    assert.deepEqual(payload, {
        task: 'make all', group: 'build', command: "make all 'two words'", exit_code: 2, cwd: `${folder}/sub`, editor: 'vscode',
    });
    assert.ok(took >= 0 && took < 5000);
    assert.match(event.id, VERSION_7);
    assert.deepEqual(
        [event.source, event.component, event.session_id, event.workspace, event.exit_code, event.seq, event._reply],
        ['vscode', 'make all', 'vscode:1f2e3d4c', fs.realpathSync(folder), 2, 1, true],
    );
    assert.equal(event.duration_ms, took);
}));

test('a task of the test group that fails is two events of one correlation', withAgent(async ({ agent }) => {
    fail(task('unit tests', { group: vscode.TaskGroup.Test, execution: { commandLine: 'pytest -q' } }), 1);
    const [one, two] = await stub.until(() => agent.events.length === 2 && agent.events);
    assert.deepEqual([one.topic, two.topic], ['editor.task.failed', 'editor.test.failed']);
    assert.equal(two.payload.command, 'pytest -q');
    assert.equal(two.payload.message, 'task unit tests ended with exit code 1');
    assert.equal(one.correlation_id, two.correlation_id);
    assert.notEqual(one.id, two.id);
}));

test('a task that was terminated has no exit code', withAgent(async ({ agent }) => {
    fail(task('serve', { execution: { process: '/usr/bin/serve', args: [] } }), undefined);
    const [event] = await stub.until(() => agent.events.length && agent.events);
    assert.equal('exit_code' in event.payload, false);
    assert.equal('exit_code' in event, false);
    assert.equal(event.payload.command, '/usr/bin/serve');
}));

test('a task that ends well is no news, and one whose start was not seen has no duration', withAgent(async ({ agent }) => {
    fail(task('fine'), 0);
    events.ended.fire({ execution: { task: task('late') }, exitCode: 1 });
    const [event] = await stub.until(() => agent.events.length && agent.events);
    assert.deepEqual(event.payload, { task: 'late', exit_code: 1, editor: 'vscode' });
}));

test('a save of a file here is told, one elsewhere is not', withAgent(async ({ place, agent }) => {
    const file = path.join(place.folder, 'a.py');
    events.saved.fire({ uri: uri('/x.py', 'vscode-vfs'), languageId: 'python', lineCount: 1 });
    events.saved.fire({ uri: uri(file), languageId: 'python', lineCount: 3 });
    const [event] = await stub.until(() => agent.events.length && agent.events);
    assert.equal(event.topic, 'editor.save');
    assert.deepEqual(event.payload, { path: file, language: 'python', lines: 3, editor: 'vscode' });
    assert.equal(event.workspace, fs.realpathSync(place.folder));
}));

test('what a setting turns off is not told', withAgent(async ({ agent }) => {
    settings.set('opsmesh.events.save', false);
    settings.set('opsmesh.events.taskFailed', false);
    events.saved.fire({ uri: uri('/tmp/a.py'), languageId: 'python', lineCount: 3 });
    fail(task('t', { group: vscode.TaskGroup.Test }), 1);
    const [event] = await stub.until(() => agent.events.length && agent.events);
    assert.equal(event.topic, 'editor.test.failed');
}));

test('a hostile task costs an entry in the log, and no more', withAgent(async ({ agent, running }) => {
    fail({ get name() {
        throw new Error('no name');
    } }, 1);
    fail(task('x'.repeat(100000), { execution: { commandLine: `${'y'.repeat(200000)}\ud83d` } }), 1);
    const [event] = await stub.until(() => agent.events.length && agent.events);
    assert.ok(event.payload.command.length <= 8192);
    const { errors } = running.api.status();
    assert.equal(errors, 1);
}));

test('the test explorer is an extra: each test that failed itself is told, a run once', withAgent(async ({ agent }) => {
    const leaf = (label, state, more = {}) => ({
        id: label, label, children: [], uri: uri('/app/test_a.py'), taskStates: [{ state, duration: 3, messages: [{ message: `${label} is wrong`, location: { range: { start: { line: 6 } } } }] }], ...more,
    });
    vscode.tests.testResults = [{
        completedAt: Date.now(),
        // the first is the controller, as code-server has it
        results: [{ id: 'c', label: 'Python', taskStates: [], children: [
            { id: 'f', label: 'test_a.py', taskStates: [{ state: 4 }], children: [leaf('one', 4), leaf('two', 3), leaf('three', 6)] },
        ] }],
    }];
    events.tested.fire();
    events.tested.fire();
    vscode.tests.testResults = [{ completedAt: Date.now() - 3600000, results: [leaf('old', 4)] }];
    events.tested.fire();
    events.saved.fire({ uri: uri('/tmp/end'), languageId: 'x', lineCount: 1 });
    const told = await stub.until(() => agent.events.at(-1)?.topic === 'editor.save' && agent.events.slice(0, -1));
    assert.deepEqual(told.map((event) => event.payload.nodeid), ['Python › test_a.py › one', 'Python › test_a.py › three']);
    assert.deepEqual(told[0].payload, {
        nodeid: 'Python › test_a.py › one', message: 'one is wrong', path: '/app/test_a.py', line: 7, duration_ms: 3, failed: 2, editor: 'vscode',
    });
}));

test('without the proposal the rest works', async () => {
    vscode.granted = false;
    await withAgent(async ({ agent, running }) => {
        fail(task('t'), 1);
        await stub.until(() => agent.events.length);
        assert.equal(running.api.status().errors, 0);
    })();
    vscode.granted = true;
});

test('terminals are told the session, and a person can name it', async () => {
    const place = stub.home();
    const running = stub.started(place, { OPSMESH_SESSION: 'refactor' });
    assert.equal(running.variables.get('OPSMESH_EDITOR_SESSION'), 'vscode:1f2e3d4c');
    assert.equal(running.context.environmentVariableCollection.persistent, false);
    fail(task('t'), 1);
    await running.end();
    assert.equal(stub.spooled(place.spool)[0].session_id, 'refactor');
});

test('a host says that it runs, and takes its leave', async () => {
    const place = stub.home();
    const folder = path.join(place.env.XDG_STATE_HOME, 'opsmesh/producers/vscode/hosts');
    const running = stub.started(place);
    const [name] = fs.readdirSync(folder);
    const told = JSON.parse(fs.readFileSync(path.join(folder, name), 'utf8'));
    assert.equal(name, `${process.pid}-${told.start}.json`);
    assert.deepEqual([told.pid, told.parent, told.session], [process.pid, process.ppid, 'vscode:1f2e3d4c']);
    assert.equal(told.logs, path.join(place.folder, 'logs/exthost1'));
    assert.match(told.boot_id, /^[0-9a-f-]{36}$/);
    await running.end();
    assert.deepEqual(fs.readdirSync(folder), []);
});

test('what happens while the agent is away is spooled in order, and what happens at the end is kept', async () => {
    const place = stub.home();
    const running = stub.started(place);
    for (let number = 0; number < 5; number += 1)
        fail(task(`t${number}`), 1);
    await stub.until(() => running.api.status().spooled === 5);
    fail(task('t5'), 1);
    await running.end();
    assert.deepEqual(stub.spooled(place.spool).map((event) => event.payload.task), ['t0', 't1', 't2', 't3', 't4', 't5']);
});

test('a folder that cannot be written breaks nothing', async () => {
    const place = stub.home();
    fs.rmSync(place.env.XDG_STATE_HOME, { recursive: true });
    fs.writeFileSync(place.env.XDG_STATE_HOME, 'a file');
    const running = stub.started(place);
    fail(task('t'), 1);
    await stub.until(() => running.api.status().waiting === 1 && running.api.status().errors === 1);
    assert.ok(seen.commands.has('opsmesh.status'));
    await running.end();
});
