'use strict';

// What VS Code's test explorer saw fail. An extra: the API is a proposal ("testObserver"), which
// code-server grants, and VS Code only to who starts it with --enable-proposed-api opsmesh.opsmesh.

const vscode = require('vscode');
const { uuid7 } = require('./uuid7');

//: TestResultState of the proposal.
const FAILED = 4;
const ERRORED = 6;
//: Tests of one run that are told one by one, and tests that are looked at.
const LIMIT = 50;
const LOOKED_AT = 20000;
//: Milliseconds for which a run is news.
const FRESH = 60000;

// Nothing when the proposal is refused.
function watchResults(teller, wanted) {
    let told = 0;
    const changed = () => {
        const run = vscode.tests.testResults?.[0];
        // a run is published when it ends, and again when another window loads what was stored
        if (run === undefined || run.completedAt <= told || Date.now() - run.completedAt > FRESH)
            return;
        told = run.completedAt;
        if (wanted('testFailed'))
            tellRun(teller, run);
    };
    try {
        return [vscode.tests.onDidChangeTestResults(teller.guarded('results', changed))];
    } catch {
        return [];
    }
}

function tellRun(teller, run) {
    const failed = failures(run.results ?? []);
    const correlationId = uuid7();
    for (const test of failed.slice(0, LIMIT)) {
        const state = test.taskStates.find(bad);
        const message = state.messages?.[0];
        const text = typeof message?.message === 'string' ? message.message : message?.message?.value;
        const line = message?.location?.range?.start?.line ?? test.range?.start?.line;
        const path = test.uri?.scheme === 'file' ? test.uri.fsPath : undefined;
        teller.tell('editor.test.failed', {
            nodeid: [...test.above, test.label].join(' › '),
            message: text,
            path,
            line: line === undefined ? undefined : line + 1,
            duration_ms: state.duration,
            failed: failed.length,
        }, { at: path, component: test.id, correlationId, durationMs: state.duration });
    }
}

// The tests that failed themselves, not the files and suites above them.
function failures(roots) {
    const found = [];
    const left = roots.map((test) => ({ test, above: [] }));
    for (let looked = 0; left.length && looked < LOOKED_AT; looked += 1) {
        const { test, above } = left.pop();
        const below = test.children ?? [];
        for (const child of below)
            left.push({ test: child, above: [...above, test.label] });
        if (!below.length && test.taskStates?.some(bad))
            found.push({ ...plain(test), above });
    }
    return found.reverse();
}

function plain(test) {
    const { id, uri, label, range, taskStates } = test;
    return { id, uri, label, range, taskStates };
}

function bad(state) {
    return state.state === FAILED || state.state === ERRORED;
}

module.exports = { watchResults };
