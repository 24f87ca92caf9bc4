'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { Teller } = require('../src/teller');

test('half of a surrogate pair is shown by its number: no reader of JSON takes it', () => {
    const lines = [];
    const outbox = { add: (_id, line) => lines.push(line.toString()) };
    const teller = new Teller({ outbox, session: 's', workspace: () => '' });
    teller.tell('editor.save', { path: '/a/\udce9 \\udce9 😀', detail: { deep: '\ud83d' } });
    assert.equal(lines[0].includes('\\\\udce9 \\\\udce9 😀'), true);
    assert.equal(/(?<!\\)\\ud/.test(lines[0]), false);
    const said = JSON.parse(lines[0]);
    assert.deepEqual([said.payload.path, said.payload.detail.deep], ['/a/\\udce9 \\udce9 😀', '\\ud83d']);
});
