'use strict';

// Tasks: editor.task.failed for each that ends badly, and editor.test.failed besides when it is of
// the test group.

const vscode = require('vscode');
const { uuid7 } = require('./uuid7');

//: Tasks whose start is remembered; one that never ends must not be kept for ever.
const LIMIT = 500;

function watchTasks(teller, wanted) {
    const started = new Map();
    const begun = (event) => {
        if (started.size >= LIMIT)
            started.delete(started.keys().next().value);
        started.set(event.execution, process.hrtime.bigint());
    };
    const ended = (event) => {
        const since = started.get(event.execution);
        started.delete(event.execution);
        if (event.exitCode === 0)
            return;
        const took = since === undefined ? undefined : Number(process.hrtime.bigint() - since) / 1e6;
        tellTask(teller, wanted, event.execution.task, event.exitCode, took);
    };
    return [
        vscode.tasks.onDidStartTaskProcess(teller.guarded('tasks.started', begun)),
        vscode.tasks.onDidEndTaskProcess(teller.guarded('tasks.ended', ended)),
    ];
}

function tellTask(teller, wanted, task, exitCode, took) {
    const folder = folderOf(task);
    const definition = task.definition ?? {};
    const run = task.execution;
    const payload = {
        group: groupOf(task),
        command: commandLine(run) ?? textOf(definition.command) ?? textOf(definition.script),
        exit_code: exitCode,
        duration_ms: took === undefined ? undefined : Math.round(took * 1000) / 1000,
    };
    const cwd = cwdOf(run?.options?.cwd, folder);
    const about = {
        at: cwd ?? folder,
        component: task.name,
        correlationId: uuid7(), // the two events are about one task
        exitCode,
        durationMs: payload.duration_ms,
    };
    if (wanted('taskFailed'))
        teller.tell('editor.task.failed', { task: task.name || 'task', ...payload, cwd: cwd ?? folder }, about);
    if (wanted('testFailed') && payload.group === 'test')
        teller.tell('editor.test.failed', {
            command: payload.command ?? task.name,
            exit_code: exitCode,
            duration_ms: payload.duration_ms,
            message: ending(task.name, exitCode),
        }, about);
}

function ending(name, exitCode) {
    return exitCode === undefined ? `task ${name} was terminated` : `task ${name} ended with exit code ${exitCode}`;
}

// Groups of our own have an id from 1.71 on.
function groupOf(task) {
    const group = task.group;
    if (group === undefined || group === null)
        return undefined;
    return textOf(group.id) ?? ['Build', 'Test', 'Clean', 'Rebuild'].find((name) => vscode.TaskGroup[name] === group)?.toLowerCase();
}

function folderOf(task) {
    const uri = task.scope?.uri ?? vscode.workspace.workspaceFolders?.[0]?.uri;
    return uri?.scheme === 'file' ? uri.fsPath : undefined;
}

// `${workspaceFolder}` is not resolved in what VS Code tells; other variables are left out.
function cwdOf(told, folder) {
    const cwd = textOf(told);
    if (cwd === undefined)
        return undefined;
    const place = cwd.replaceAll('${workspaceFolder}', folder ?? '${workspaceFolder}');
    if (place.includes('${'))
        return undefined;
    return place.startsWith('/') || folder === undefined ? place : `${folder}/${place}`;
}

// ShellExecution has a command line, or a command with arguments; ProcessExecution a process.
function commandLine(run) {
    if (run === undefined || run === null)
        return undefined;
    if (textOf(run.commandLine))
        return run.commandLine;
    const program = valueOf(run.command) ?? textOf(run.process);
    if (program === undefined)
        return undefined;
    return [program, ...(run.args ?? []).map((arg) => valueOf(arg) ?? '')].map(quoted).join(' ');
}

function valueOf(word) {
    return textOf(word) ?? textOf(word?.value);
}

function textOf(value) {
    return typeof value === 'string' && value !== '' ? value : undefined;
}

function quoted(word) {
    return /^[\w@%+=:,./${}-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

module.exports = { watchTasks, commandLine };
