'use strict';

// The extension: puts the parts together when VS Code starts it, and takes its leave when VS Code
// ends it.

const path = require('node:path');
const vscode = require('vscode');
const { Alive } = require('./alive');
const { statusBar } = require('./bar');
const { Cli } = require('./cli');
const { registerCommands } = require('./commands');
const { Ear } = require('./ear');
const { Outbox } = require('./outbox');
const paths = require('./paths');
const { watchResults } = require('./results');
const { watchSaves } = require('./saves');
const { editorSession, session, workspace } = require('./session');
const { watchTasks } = require('./tasks');
const { Teller } = require('./teller');

//: Milliseconds that VS Code waits for the agent's last answers when it ends.
const FAREWELL = 1000;

let running = null;

function activate(context) {
    const env = process.env;
    const channel = vscode.window.createOutputChannel('OpsMesh');
    const log = (text) => channel.appendLine(`${new Date().toISOString()} ${text}`);
    const settings = () => vscode.workspace.getConfiguration('opsmesh');
    const wanted = (name) => settings().get(`events.${name}`, true) !== false;

    const outbox = new Outbox({ socketPath: paths.socket(env), spoolDir: paths.spool(env), log });
    const own = session(env, vscode.env.sessionId);
    const teller = new Teller({ outbox, session: own, workspace: (at) => workspace(at, env), log });
    const ear = new Ear(paths.socket(env));
    const cli = new Cli({ told: () => settings().get('path', ''), env });
    running = { outbox, ear, alive: null };

    const guard = (what, call) => teller.guarded(what, call)();
    context.subscriptions.push(channel);
    guard('alive', () => {
        running.alive = new Alive(paths.hosts(env), {
            session: own,
            workspace: workspace(vscode.workspace.workspaceFolders?.[0]?.uri.fsPath ?? '', env),
            app: vscode.env.appName,
            remote: vscode.env.remoteName ?? '',
            logs: context.logUri ? path.dirname(context.logUri.fsPath) : '',
        });
    });
    guard('environment', () => {
        const variables = context.environmentVariableCollection;
        variables.persistent = false; // the next window is another session
        variables.description = 'what is started here belongs to this session of opsmesh';
        variables.replace('OPSMESH_EDITOR_SESSION', editorSession(vscode.env.sessionId));
    });
    for (const [what, watch] of [['tasks', watchTasks], ['saves', watchSaves], ['results', watchResults]])
        guard(what, () => context.subscriptions.push(...watch(teller, wanted)));

    const status = () => ({
        ...outbox.counts,
        waiting: outbox.waiting,
        errors: teller.errors,
        session: own,
        text: `${own}: ${outbox.counts.sent} sent, ${outbox.counts.spooled} spooled, ${outbox.waiting} waiting`
            + `${outbox.counts.dropped + outbox.counts.refused ? `, ${outbox.counts.dropped + outbox.counts.refused} lost (${outbox.lastError})` : ''}`
            + `${teller.errors ? `, ${teller.errors} errors` : ''}`,
    });
    guard('commands', () => context.subscriptions.push(...registerCommands({ cli, ear, teller, status, channel })));
    let bar = null;
    const follow = () => {
        if (settings().get('statusBar', true) !== false) {
            bar ??= statusBar(ear, teller);
            ear.start();
        } else {
            bar?.dispose();
            bar = null;
            ear.stop();
        }
    };
    guard('bar', follow);
    guard('settings', () => context.subscriptions.push(
        vscode.workspace.onDidChangeConfiguration(teller.guarded('settings', (event) => {
            if (event.affectsConfiguration('opsmesh.statusBar'))
                follow();
        })),
        { dispose: () => bar?.dispose() },
    ));
    return { status };
}

// What has no answer by then goes to the spool.
async function deactivate() {
    if (running === null)
        return;
    const { outbox, ear, alive } = running;
    running = null;
    try {
        alive?.goodbye();
        ear.stop();
        await outbox.finish(FAREWELL);
    } catch {
        // VS Code ends: there is nobody to tell
    }
}

module.exports = { activate, deactivate };
