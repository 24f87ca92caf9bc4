'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { stub } = require('./stub');
const { Cli } = require('../src/cli');

const { answers, seen, settings } = stub;
const ASKED = {
    id: 'run-1', kind: 'approval', profile: 'restart', prompt: 'Restart nginx?', choices: ['approve', 'deny'],
    since: '2026-11-27T10:00:00.000000Z', expires: null, schema: null, otherwise: 'skip', may_answer: [],
};

// A STAND-IN for the agent's answers to what a person asks, and for the command opsmesh.
function withMesh(body, { questions = [ASKED], refuse = '', bar = true } = {}) {
    return async () => {
        const place = stub.home();
        const mesh = { questions, refuse };
        const agent = await new stub.Agent(place.socket, (asked) => {
            if (asked._questions)
                return mesh.refuse ? { ok: false, error: mesh.refuse } : { ok: true, questions: mesh.questions };
            if (asked._answer || asked._run)
                return mesh.refuse ? { ok: false, error: mesh.refuse } : { ok: true, id: asked._run?.id };
            return { ok: true };
        }).start();
        const program = path.join(place.folder, 'opsmesh');
        fs.writeFileSync(program, `#!/bin/sh
echo "$@" >> '${place.folder}/called'
case "$1 $2" in
'profile ls') echo '[{"profile": "deploy", "state": "enabled", "on": "a.b", "steps": "one two"}]';;
'profile trigger') echo "triggered $3";;
'tail --no-follow') echo '{"topic": "a.b", "id": "id-1", "host": "h", "source": "s", "severity": "error", "ts_utc": "2026-11-27T10:00:00Z", "payload": {"unit": "x"}}';;
'why id-1') echo 'deploy: fired'; exit 1;;
'status --json') echo '{"verdict": "degraded", "problems": [{"what": "no handlers", "fix": "opsmesh up"}]}'; exit 1;;
esac
`, { mode: 0o755 });
        settings.set('opsmesh.path', program);
        settings.set('opsmesh.statusBar', bar);
        seen.bars.length = seen.shown.length = seen.picked.length = seen.documents.length = 0;
        answers.picks = [];
        answers.inputs = [];
        const running = stub.started(place);
        const called = () => fs.readFileSync(`${place.folder}/called`, 'utf8').trim().split('\n');
        try {
            await body({ place, agent, running, mesh, called, run: (name) => seen.commands.get(`opsmesh.${name}`)() });
        } finally {
            await running.end();
            await agent.stop();
        }
    };
}

const bar = () => seen.bars.at(-1);

test('the bar shows what waits, and that the agent went away', withMesh(async ({ agent, mesh }) => {
    await stub.until(() => bar().text === '$(bell-dot) opsmesh 1');
    assert.equal(bar().command, 'opsmesh.approve');
    assert.equal(bar().tooltip, 'restart: Restart nginx?');
    mesh.questions = [];
    agent.say({ topic: 'automation.approval.granted', payload: {} });
    await stub.until(() => bar().text === '$(pulse) opsmesh');
    await agent.stop();
    await stub.until(() => bar().text === '$(debug-disconnect) opsmesh');
}));

test('the bar warns while nobody can say what waits, and no longer', withMesh(async ({ agent, mesh }) => {
    await stub.until(() => bar().text === '$(warning) opsmesh');
    assert.equal(bar().tooltip, 'opsmesh: no handlers are running');
    mesh.refuse = '';
    agent.say({ topic: 'mesh.component.started', payload: {} });
    await stub.until(() => bar().text === '$(bell-dot) opsmesh 1');
}, { refuse: 'no handlers are running' }));

test('the bar comes back with the agent', withMesh(async ({ place, agent }) => {
    await stub.until(() => bar().text.includes('bell'));
    await agent.stop();
    await stub.until(() => bar().text.includes('disconnect'));
    const again = await new stub.Agent(place.socket, () => ({ ok: true, questions: [] })).start();
    await stub.until(() => bar().text === '$(pulse) opsmesh' && again.lines.length);
    assert.equal(again.lines[0]._follow.at(-1), 'mesh.component.>');
    await again.stop();
}));

test('without the bar nobody follows, and commands connect when they are called', withMesh(async ({ agent, run }) => {
    assert.equal(seen.bars.length, 0);
    answers.picks = ['deny'];
    answers.inputs = ['not now'];
    assert.deepEqual(await run('approve'), { id: 'run-1', choice: 'deny' });
    const { _answer: given } = agent.lines.find((line) => line._answer);
    assert.deepEqual(given, { run: 'run-1', choice: 'deny', reason: 'not now', via: 'vscode' });
}, { bar: false }));

test('an approval with a schema takes a value; Escape answers nothing', withMesh(async ({ agent, run }) => {
    answers.picks = ['approve'];
    answers.inputs = ['{"n": 3}', ''];
    await run('approve');
    const { _answer: given } = agent.lines.find((line) => line._answer);
    assert.deepEqual(given, { run: 'run-1', choice: 'approve', answer: { n: 3 }, via: 'vscode' });
    answers.picks = ['deny'];
    assert.equal(await run('approve'), undefined);
    assert.equal(agent.lines.filter((line) => line._answer).length, 1);
}, { questions: [{ ...ASKED, schema: { type: 'object' } }] }));

test('one of several questions is chosen', withMesh(async ({ agent, run }) => {
    answers.picks = ['Second', 'approve'];
    answers.inputs = [''];
    await run('approve');
    assert.equal(agent.lines.find((line) => line._answer)._answer.run, 'run-2');
}, { questions: [ASKED, { ...ASKED, id: 'run-2', prompt: 'Second?' }] }));

test('nothing waits', withMesh(async ({ run }) => {
    await run('approve');
    assert.deepEqual(seen.shown, ['opsmesh: nothing waits for you']);
}, { questions: [] }));

test('a profile is triggered, and its end is told', withMesh(async ({ agent, run }) => {
    answers.picks = ['deploy'];
    const ended = run('trigger');
    const { _run: asked } = await stub.until(() => agent.lines.find((line) => line._run));
    assert.deepEqual([asked.profile, asked.source, asked.widget], ['deploy', 'vscode', 'vscode']);
    agent.say({ topic: 'automation.run.succeeded', causation_id: 'another', payload: { profile: 'deploy' } });
    agent.say({ topic: 'automation.run.failed', causation_id: asked.id, payload: { profile: 'deploy', error: 'boom', next_attempt_in_s: 2.2 }, run_id: 'r' });
    assert.deepEqual(await ended, { id: asked.id, state: 'failed', runId: 'r', error: 'boom', again: 2.2 });
    assert.deepEqual(seen.shown, ['opsmesh: deploy failed: boom, tried again in 2 s']);
}));

test('a profile that is refused is said', withMesh(async ({ run }) => {
    answers.picks = ['deploy'];
    await run('trigger');
    assert.deepEqual(seen.shown, ['opsmesh: no handlers are running']);
}, { refuse: 'no handlers are running' }));

test('recent events are shown whole, explained, and taken as a cause', withMesh(async ({ run, called }) => {
    answers.picks = ['a.b', 'Show'];
    await run('events');
    assert.equal(JSON.parse(seen.documents[0].content).id, 'id-1');
    assert.equal(seen.picked[0][0].detail, 'unit=x');
    answers.picks = ['a.b', 'Why'];
    await run('events');
    assert.equal(seen.documents[1].content, 'deploy: fired\n');
    answers.picks = ['a.b', 'Trigger', 'deploy'];
    await run('events');
    assert.deepEqual(called().at(-1), 'profile trigger deploy --event id-1');
    assert.deepEqual(seen.shown, ['opsmesh: triggered deploy']);
}));

test('the status is the mesh’s and ours', withMesh(async ({ run }) => {
    const told = await run('status');
    assert.equal(told.mesh.verdict, 'degraded');
    assert.equal(seen.picked[0][0].detail, 'no handlers (opsmesh up)');
    assert.match(seen.picked[0][1].detail, /^vscode:1f2e3d4c: 0 sent, 0 spooled, 0 waiting$/);
}));

test('with neither mesh nor command, status says so', withMesh(async ({ agent, run }) => {
    await agent.stop();
    settings.set('opsmesh.path', '/nowhere/opsmesh');
    const told = await run('status');
    assert.equal(told.mesh.verdict, 'unknown');
    assert.match(seen.picked[0][0].detail, /no program that can be run/);
    await run('approve');
    assert.match(seen.shown.at(-1), /the agent is away/);
}));

test('the command is found on PATH, or in ~/.local/bin, and never in the folder one is in', () => {
    const place = stub.home();
    const cli = (env) => new Cli({ env });
    assert.throws(() => cli({ HOME: place.folder, PATH: '.:relative' }).find(), /set opsmesh.path/);
    const local = path.join(place.folder, '.local/bin');
    fs.mkdirSync(local, { recursive: true });
    fs.writeFileSync(path.join(local, 'opsmesh'), '', { mode: 0o755 });
    assert.equal(cli({ HOME: place.folder, PATH: '/usr/bin' }).find(), path.join(local, 'opsmesh'));
});

test('the command that installed the extension goes before what is on PATH, while it is there', () => {
    const place = stub.home();
    const env = { HOME: place.folder, PATH: place.folder, XDG_DATA_HOME: path.join(place.folder, 'data') };
    for (const name of ['opsmesh', 'another'])
        fs.writeFileSync(path.join(place.folder, name), '', { mode: 0o755 });
    fs.mkdirSync(path.join(place.folder, 'data/opsmesh/vscode'), { recursive: true });
    const told = path.join(place.folder, 'data/opsmesh/vscode/command');
    fs.writeFileSync(told, `${place.folder}/another\n`);
    assert.equal(new Cli({ env }).find(), `${place.folder}/another`);
    fs.writeFileSync(told, `${place.folder}/gone\n`);
    assert.equal(new Cli({ env }).find(), `${place.folder}/opsmesh`);
});

test('a command that floods or fails is an error with its reason', async () => {
    const place = stub.home();
    const program = path.join(place.folder, 'opsmesh');
    const cli = new Cli({ told: () => program, env: place.env, most: 200000 });
    const write = (body) => fs.writeFileSync(program, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    write('echo "\x1b[31merror\x1b[0m: no broker" >&2; exit 69');
    await assert.rejects(cli.json(['status', '--json']), /^Error: opsmesh status --json: error: no broker$/);
    write('yes');
    await assert.rejects(cli.text(['tail']), /said more than/);
    write('yes \'{"n": 1}\' | head -c 900000; echo \'{"n": 2}\'');
    assert.deepEqual(await cli.lines(['tail'], 2), [{ n: 1 }, { n: 2 }]);
    write('echo not json');
    await assert.rejects(cli.json(['profile', 'ls']), /said no JSON/);
});
