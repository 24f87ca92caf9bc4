'use strict';

// editor.save, for files on this machine.

const vscode = require('vscode');

function watchSaves(teller, wanted) {
    const saved = (document) => {
        if (document.uri.scheme !== 'file' || !wanted('save'))
            return;
        const payload = { path: document.uri.fsPath, language: document.languageId, lines: document.lineCount };
        teller.tell('editor.save', payload, { at: document.uri.fsPath });
    };
    return [vscode.workspace.onDidSaveTextDocument(teller.guarded('saves', saved))];
}

module.exports = { watchSaves };
