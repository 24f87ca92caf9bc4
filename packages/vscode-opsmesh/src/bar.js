'use strict';

// The item in the status bar: whether the agent is there, and how many questions wait. It changes
// when the ear hears something, and asks nobody.

const vscode = require('vscode');

function statusBar(ear, teller) {
    const item = vscode.window.createStatusBarItem('opsmesh', vscode.StatusBarAlignment.Right, 10);
    item.name = 'OpsMesh';
    const draw = teller.guarded('bar', () => {
        const waiting = ear.questions.length;
        item.command = waiting ? 'opsmesh.approve' : 'opsmesh.status';
        item.backgroundColor = waiting ? new vscode.ThemeColor('statusBarItem.warningBackground') : undefined;
        if (!ear.connected) {
            item.text = '$(debug-disconnect) opsmesh';
            item.tooltip = 'opsmesh: the agent is away; events are kept in the spool (opsmesh up)';
        } else if (ear.trouble) {
            item.text = '$(warning) opsmesh';
            item.tooltip = `opsmesh: ${ear.trouble}`;
        } else if (waiting) {
            item.text = `$(bell-dot) opsmesh ${waiting}`;
            item.tooltip = ear.questions.slice(0, 5).map((one) => `${one.profile}: ${one.prompt}`).join('\n');
        } else {
            item.text = '$(pulse) opsmesh';
            item.tooltip = 'opsmesh: the agent is there, nothing waits for you';
        }
    });
    ear.on('changed', draw);
    draw();
    item.show();
    return { dispose: () => {
        ear.off('changed', draw);
        item.dispose();
    } };
}

module.exports = { statusBar };
