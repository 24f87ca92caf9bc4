'use strict';

// The commands of the palette. Each says what went wrong, and none does anything later than it was
// asked to.

const vscode = require('vscode');

//: What Recent Events shows at most, of how long.
const SHOWN = 200;
const SINCE = '24h';
//: Milliseconds for which the end of a run is waited for: one that asks a person may wait for hours.
const WAIT = 120000;

function registerCommands({ cli, ear, teller, status, channel }) {
    const command = (name, call) => vscode.commands.registerCommand(name, async (...args) => {
        try {
            return await call(...args);
        } catch (error) {
            const button = await vscode.window.showErrorMessage(`opsmesh: ${error.message}`, 'Show Log');
            if (button === 'Show Log')
                channel.show();
            return undefined;
        }
    });
    return [
        command('opsmesh.trigger', () => trigger({ cli, ear })),
        command('opsmesh.events', () => recentEvents({ cli, ear })),
        command('opsmesh.approve', () => answer({ ear })),
        command('opsmesh.status', () => showStatus({ cli, ear, teller, status, channel })),
    ];
}

async function chooseProfile(cli, title) {
    const rows = await progress('profiles', () => cli.json(['profile', 'ls', '--json']));
    if (!rows.length)
        throw new Error('there is no profile: opsmesh profile enable --shipped NAME');
    const items = rows.map((row) => ({
        label: row.profile,
        description: row.state === 'enabled' ? '' : row.state,
        detail: `on ${row.on} → ${row.steps}`,
        row,
    }));
    return (await vscode.window.showQuickPick(items, { title, placeHolder: 'It runs whatever its conditions say', matchOnDetail: true }))?.row;
}

async function trigger({ cli, ear }) {
    const row = await chooseProfile(cli, 'OpsMesh: Trigger profile');
    if (row === undefined)
        return undefined;
    const { id, ended } = await ear.run(row.profile, argsHere());
    const end = await progress(`${row.profile} runs`, () => Promise.race([ended, waited()]));
    return told(row.profile, id, end);
}

// The file and the folder that the person is at: `event.payload.detail.args` of the profile.
function argsHere() {
    const uri = vscode.window.activeTextEditor?.document.uri;
    const folder = vscode.workspace.workspaceFolders?.[0]?.uri;
    const args = {};
    if (uri?.scheme === 'file')
        args.file = uri.fsPath;
    if (folder?.scheme === 'file')
        args.folder = folder.fsPath;
    return args;
}

function waited() {
    return new Promise((resolve) => setTimeout(resolve, WAIT).unref());
}

function told(profile, id, end) {
    if (end === undefined)
        return { id };
    const again = end.again === undefined || end.again === null ? '' : `, tried again in ${Math.round(end.again)} s`;
    const text = `opsmesh: ${profile} ${end.state}${end.error ? `: ${end.error}` : ''}${again}`;
    if (end.state === 'succeeded' || end.state === 'skipped')
        vscode.window.showInformationMessage(text);
    else
        vscode.window.showWarningMessage(text);
    return { id, ...end };
}

async function recentEvents({ cli, ear }) {
    const events = await progress('events', () =>
        cli.lines(['tail', '--no-follow', '--since', SINCE, '--json'], SHOWN));
    if (!events.length) {
        vscode.window.showInformationMessage(`opsmesh: no event in the last ${SINCE}`);
        return undefined;
    }
    const items = events.reverse().map((event) => ({
        label: `${icon(event.severity)} ${event.topic}`,
        description: `${clock(event.ts_utc)} · ${event.source}@${event.host}`,
        detail: short(event.payload),
        event,
    }));
    const picked = await vscode.window.showQuickPick(items, {
        title: 'OpsMesh: Recent events', placeHolder: 'Type to filter', matchOnDescription: true, matchOnDetail: true,
    });
    if (picked === undefined)
        return undefined;
    const then = await vscode.window.showQuickPick([
        { label: '$(json) Show it whole', what: 'show' },
        { label: '$(play) Trigger a profile for it…', what: 'trigger' },
        { label: '$(question) Why did profiles fire on it, or not?', what: 'why' },
    ], { title: picked.event.topic });
    if (then?.what === 'show')
        await show(JSON.stringify(picked.event, null, 2), 'json');
    else if (then?.what === 'why')
        await show(await progress('why', () => cli.text(['why', picked.event.id], { fine: [0, 1] })), 'plaintext');
    else if (then?.what === 'trigger')
        await triggerFor({ cli, event: picked.event });
    return picked.event;
}

async function triggerFor({ cli, event }) {
    const row = await chooseProfile(cli, `OpsMesh: Trigger for ${event.topic}`);
    if (row === undefined)
        return;
    const text = await progress(row.profile, () => cli.text(['profile', 'trigger', row.profile, '--event', event.id]));
    vscode.window.showInformationMessage(`opsmesh: ${text.trim().split('\n')[0] || `${row.profile} was triggered`}`);
}

async function answer({ ear }) {
    const questions = await ear.look();
    if (!questions.length) {
        vscode.window.showInformationMessage('opsmesh: nothing waits for you');
        return undefined;
    }
    const items = questions.map((one) => ({
        label: one.prompt || one.profile,
        description: one.profile,
        detail: [`since ${clock(one.since)}`, one.expires ? `until ${clock(one.expires)}, then ${one.otherwise}` : ''].filter(Boolean).join(', '),
        one,
    }));
    const picked = items.length === 1 ? items[0] : await vscode.window.showQuickPick(items, { title: 'OpsMesh: Answer approval' });
    if (picked === undefined)
        return undefined;
    const { one } = picked;
    const choice = (await vscode.window.showQuickPick(
        (one.choices ?? []).map((label) => ({ label })),
        { title: `${one.profile}: ${one.prompt}`, placeHolder: picked.detail },
    ))?.label;
    if (choice === undefined)
        return undefined;
    const given = {};
    if (one.schema && choice === 'approve') {
        const text = await vscode.window.showInputBox({
            title: `${one.profile}: ${one.prompt}`,
            prompt: `The value, as JSON: ${JSON.stringify(one.schema).slice(0, 300)}`,
            validateInput: (value) => (isJson(value) ? undefined : 'This is no JSON'),
            ignoreFocusOut: true,
        });
        if (text === undefined)
            return undefined;
        given.value = JSON.parse(text);
    }
    const reason = await vscode.window.showInputBox({
        title: `${choice}: ${one.prompt}`, prompt: 'Why? It goes on record. Enter alone: no reason; Escape: no answer.', ignoreFocusOut: true,
    });
    if (reason === undefined)
        return undefined;
    if (reason)
        given.reason = reason;
    await ear.answer(one, choice, given);
    vscode.window.showInformationMessage(`opsmesh: ${one.profile}: ${choice}`);
    return { id: one.id, choice };
}

async function showStatus({ cli, ear, teller, status, channel }) {
    await ear.here();
    let mesh;
    try {
        mesh = await progress('status', () => cli.json(['status', '--json'], { fine: [0, 1, 69] }));
    } catch (error) {
        mesh = { verdict: 'unknown', reason: error.message };
    }
    const facts = status();
    channel.appendLine(JSON.stringify({ mesh, extension: facts }, null, 2));
    const problems = mesh.problems ?? [];
    const picked = await vscode.window.showQuickPick([
        { label: `$(pulse) The mesh: ${mesh.verdict}`, detail: mesh.reason || problems.map((one) => (one.fix ? `${one.what} (${one.fix})` : one.what)).join(' · ') || undefined, what: 'log' },
        { label: `$(plug) The agent: ${ear.connected ? 'connected' : 'away'}`, detail: facts.text, what: 'log' },
        { label: `$(bell) Waiting for an answer: ${ear.questions.length}`, what: 'opsmesh.approve' },
        { label: '$(play) Trigger a profile…', what: 'opsmesh.trigger' },
        { label: '$(list-unordered) Recent events', what: 'opsmesh.events' },
        { label: '$(output) Show the log', detail: teller.lastError ? `last error: ${teller.lastError}` : undefined, what: 'log' },
    ], { title: 'OpsMesh: Status' });
    if (picked?.what === 'log')
        channel.show();
    else if (picked !== undefined)
        await vscode.commands.executeCommand(picked.what);
    return { mesh, ...facts };
}

function progress(what, call) {
    return vscode.window.withProgress({ location: vscode.ProgressLocation.Window, title: `opsmesh: ${what}` }, call);
}

async function show(content, language) {
    const document = await vscode.workspace.openTextDocument({ content, language });
    await vscode.window.showTextDocument(document, { preview: true });
}

function icon(severity) {
    return { error: '$(error)', critical: '$(flame)', warn: '$(warning)' }[severity] ?? '$(info)';
}

function clock(utc) {
    const time = new Date(utc);
    return Number.isNaN(time.getTime()) ? String(utc ?? '') : time.toLocaleTimeString();
}

function short(payload) {
    return Object.entries(payload ?? {}).map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`).join('  ').replace(/\s*\n\s*/g, ' ').slice(0, 300);
}

function isJson(text) {
    try {
        JSON.parse(text);
        return true;
    } catch {
        return false;
    }
}

module.exports = { registerCommands };
