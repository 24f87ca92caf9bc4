'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { stub } = require('./stub');
const { Outbox } = require('../src/outbox');
const { crc32 } = require('../src/spool');

function outbox(place, more = {}) {
    const made = new Outbox({ socketPath: place.socket, spoolDir: place.spool, ...more });
    made.many = (from, to) => {
        for (let number = from; number < to; number += 1)
            made.add(`id-${number}`, Buffer.from(JSON.stringify({ topic: 'a.b', id: `id-${number}`, n: number })));
    };
    return made;
}

const numbers = (events) => events.map((event) => event.n);
const range = (from, to) => Array.from({ length: to - from }, (_, at) => from + at);

test('the checksum is the one of zlib', () => {
    assert.equal(crc32(Buffer.from('123456789')), 0xcbf43926);
});

test('events reach the agent in order', async () => {
    const place = stub.home();
    const agent = await new stub.Agent(place.socket).start();
    const box = outbox(place);
    box.many(0, 200);
    await stub.until(() => box.waiting === 0);
    assert.deepEqual(numbers(agent.events), range(0, 200));
    assert.deepEqual(box.counts, { sent: 200, spooled: 0, dropped: 0, refused: 0 });
    await box.finish(100);
    await agent.stop();
});

test('with no agent the spool takes them in order, in files that are private and whole', async () => {
    const place = stub.home();
    const box = outbox(place);
    box.many(0, 10);
    await stub.until(() => box.waiting === 0);
    box.many(10, 20);
    await stub.until(() => box.waiting === 0);
    assert.deepEqual(numbers(stub.spooled(place.spool)), range(0, 20));
    assert.equal(box.counts.spooled, 20);
    const names = fs.readdirSync(place.spool).filter((name) => name.endsWith('.spool'));
    assert.ok(names.every((name) => /^\d{20}-\d+-\d+\.spool$/.test(name)), names.join());
    assert.equal(fs.statSync(path.join(place.spool, names[0])).mode & 0o777, 0o600);
    assert.equal(fs.statSync(path.join(place.spool, '.used')).size, names.length);
    await box.finish(100);
});

test('what had no answer when the agent went is sent again with the same id', async () => {
    const place = stub.home();
    const quiet = await new stub.Agent(place.socket, (event) => (event.n < 3 ? { ok: true } : undefined)).start();
    const box = outbox(place);
    box.many(0, 6);
    await stub.until(() => quiet.events.length === 6 && box.waiting === 3);
    await quiet.stop();
    await stub.until(() => box.waiting === 0);
    assert.deepEqual(numbers(stub.spooled(place.spool)), [3, 4, 5]);
    const agent = await new stub.Agent(place.socket).start();
    box.many(6, 8);
    await stub.until(() => box.waiting === 0);
    assert.deepEqual(numbers(agent.events), [6, 7]);
    await box.finish(100);
    await agent.stop();
});

test('an agent that hangs is given up, and left alone for a while', async () => {
    const place = stub.home();
    const agent = await new stub.Agent(place.socket, () => undefined).start();
    const box = outbox(place, { patience: 50 });
    box.many(0, 3);
    await stub.until(() => box.waiting === 0);
    assert.deepEqual(numbers(stub.spooled(place.spool)), [0, 1, 2]);
    await box.finish(100);
    await agent.stop();
});

test('an agent that takes connections and ends them is not asked for ever', async () => {
    const place = stub.home();
    const agent = await new stub.Agent(place.socket, (_, socket) => void socket.destroy()).start();
    const box = outbox(place);
    box.many(0, 3);
    await stub.until(() => box.waiting === 0);
    assert.equal(box.counts.spooled, 3);
    await box.finish(100);
    await agent.stop();
});

test('with neither agent nor spool the newest are kept, and the rest is counted', async () => {
    const place = stub.home();
    fs.mkdirSync(path.dirname(place.spool), { recursive: true });
    fs.writeFileSync(place.spool, 'a file where the folder should be');
    const box = outbox(place, { limit: 10 });
    box.many(0, 3);
    await stub.until(() => box.lastError !== '');
    box.many(3, 25);
    assert.equal(box.waiting, 10);
    assert.equal(box.counts.dropped, 15);
    await box.finish(10);
});

test('a spool that is full refuses, or counts what its user lets go of', async () => {
    const place = stub.home();
    fs.mkdirSync(place.spool, { recursive: true });
    fs.writeFileSync(path.join(place.spool, '.limits'), '4096 refuse\n');
    fs.writeFileSync(path.join(place.spool, '.used'), 'x');
    const box = outbox(place);
    box.many(0, 1);
    await stub.until(() => /the spool is full/.test(box.lastError));
    assert.equal(box.waiting, 1);
    fs.writeFileSync(path.join(place.spool, '.limits'), '4096 drop_newest\n');
    await box.finish(10);
    assert.equal(box.counts.dropped, 1);
    const loss = JSON.parse(fs.readFileSync(path.join(place.spool, 'dropped.log'), 'utf8').trim().slice(9));
    assert.equal(loss.losses[0].events, 1);
    assert.deepEqual(stub.spooled(place.spool), []);
});

test('refused events are counted, and hold up nobody', async () => {
    const place = stub.home();
    const agent = await new stub.Agent(place.socket, (event) => ({ ok: event.n !== 1, error: 'no' })).start();
    const box = outbox(place);
    box.many(0, 3);
    await stub.until(() => box.waiting === 0);
    assert.deepEqual(box.counts, { sent: 2, spooled: 0, dropped: 0, refused: 1 });
    await box.finish(10);
    await agent.stop();
});

test('the end waits for answers, and no longer than it was told', async () => {
    const place = stub.home();
    const agent = await new stub.Agent(place.socket, () => undefined).start();
    const box = outbox(place);
    box.many(0, 2);
    const since = Date.now();
    await box.finish(50);
    assert.ok(Date.now() - since < 2000);
    assert.deepEqual(numbers(stub.spooled(place.spool)), [0, 1]);
    await agent.stop();
});

test('a socket with a path that is too long for an address is reached', async () => {
    const place = stub.home();
    place.socket = path.join(place.env.XDG_RUNTIME_DIR, 'x'.repeat(120), 'ingest.sock');
    fs.mkdirSync(path.dirname(place.socket));
    const short = path.join(place.folder, 's');
    fs.symlinkSync(path.dirname(place.socket), short);
    const agent = await new stub.Agent(path.join(short, 'ingest.sock')).start();
    const box = outbox(place);
    box.many(0, 1);
    await stub.until(() => box.waiting === 0);
    assert.equal(box.counts.sent, 1);
    await box.finish(10);
    await agent.stop();
});

test('telling costs the editor little, with the agent away too', async () => {
    const place = stub.home();
    const box = outbox(place);
    const since = process.hrtime.bigint();
    box.many(0, 500);
    assert.ok(Number(process.hrtime.bigint() - since) / 1e6 < 500);
    await box.finish(1000);
    assert.deepEqual(numbers(stub.spooled(place.spool)), range(0, 500));
});
