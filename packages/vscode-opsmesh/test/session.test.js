'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');
const { editorSession, session, workspace } = require('../src/session');

const TABLE = path.join(__dirname, '../../../tests/data/sessions.json');
const table = JSON.parse(fs.readFileSync(TABLE, 'utf8'));

for (const row of table.workspace) {
    test(`workspace: ${row.what}`, () => {
        const root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'opsmesh-session-')));
        fs.mkdirSync(path.join(root, 'home'));
        for (const made of row.made) {
            const [name, target] = made.split(' -> ');
            const place = path.join(root, name);
            fs.mkdirSync(path.dirname(place), { recursive: true });
            if (target)
                fs.symlinkSync(target, place);
            else if (name.endsWith('/'))
                fs.mkdirSync(place, { recursive: true });
            else
                fs.writeFileSync(place, '');
        }
        const is = row.is.startsWith('=') ? row.is.slice(1) : path.join(root, row.is);
        assert.equal(workspace(path.join(root, row.path), { HOME: path.join(root, 'home'), ...row.env }), is);
        fs.rmSync(root, { recursive: true });
    });
}

// VS Code's one difference: what is no person's word does not count for it, whatever it was started from.
for (const row of table.session) {
    test(`session: ${row.what}`, () => {
        const said = row.env.OPSMESH_SESSION;
        assert.equal(session(row.env, '1f2e3d4c-aaaa'), said ? row.is : 'vscode:1f2e3d4c');
    });
}

test('terminals and tasks are told the session as the table reads it', () => {
    const row = table.session.find((one) => one.what === "an editor's terminal");
    assert.equal(editorSession('1f2e3d4c-aaaa'), row.env.OPSMESH_EDITOR_SESSION);
});

test('a path that no system call takes is its own workspace', () => {
    assert.equal(workspace('/no\0path', { HOME: '/' }), '/no\0path');
    assert.equal(workspace('', { HOME: '/' }), '');
});
