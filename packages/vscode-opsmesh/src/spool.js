'use strict';

// The spool's files, as docs/architecture.md describes them and opsmesh.router.spool writes them.
// The one rule: what `write` resolves for is on disk, whole; nothing here blocks the editor.

const fs = require('node:fs/promises');
const path = require('node:path');

//: The unit in which the spool is measured, and what it may hold unless its `.limits` say otherwise.
const BLOCK = 4096;
const MAX_BYTES = 2 ** 30;

let files = 0;
let lastNs = 0n;

class Full extends Error {}

// Put lines into one new file. Gives 'spooled', or 'dropped' where the user lets go of new events
// when there is no room (ADR 0012). Full, or a system error, when they cannot be kept.
async function write(folder, lines) {
    await fs.mkdir(folder, { mode: 0o700, recursive: true });
    const data = Buffer.concat([...lines, Buffer.from(`=${lines.length}`)].map(record));
    const { used, limit, policy } = await room(folder);
    const blocks = Math.ceil(data.length / BLOCK);
    if (used + blocks * BLOCK > limit && policy !== 'drop_oldest') {
        if (policy !== 'drop_newest')
            throw new Full(`the spool is full: ${used} bytes of spool.max_bytes ${limit}`);
        await countLost(folder, lines, policy);
        return 'dropped';
    }
    const name = nextName();
    const hidden = path.join(folder, `.${name}`);
    try {
        await onDisk(hidden, data, 'wx');
        await fs.rename(hidden, path.join(folder, name));
    } catch (error) {
        await fs.rm(hidden, { force: true });
        throw error;
    }
    await syncFolder(folder);
    await fs.appendFile(path.join(folder, '.used'), Buffer.alloc(blocks), { mode: 0o600 }).catch(() => {});
    return 'spooled';
}

async function room(folder) {
    const found = { used: 0, limit: MAX_BYTES, policy: 'refuse' };
    const gauge = await fs.stat(path.join(folder, '.used')).catch(() => null);
    found.used = gauge === null ? 0 : gauge.size * BLOCK;
    const told = await fs.readFile(path.join(folder, '.limits'), 'utf8').catch(() => '');
    const [size, policy] = told.trim().split(/\s+/);
    if (Number(size) > 0 && ['refuse', 'drop_oldest', 'drop_newest'].includes(policy)) {
        found.limit = Number(size);
        found.policy = policy;
    }
    return found;
}

// What nobody keeps is in the spool's log of losses, for the agent to tell.
async function countLost(folder, lines, policy) {
    const now = new Date().toISOString().replace('Z', '000Z');
    const loss = {
        source: 'vscode',
        events: lines.length,
        bytes: lines.reduce((sum, line) => sum + line.length, 0),
        reasons: [policy],
        from_time: now,
        to_time: now,
    };
    const entry = record(Buffer.from(JSON.stringify({ name: nextName(), losses: [loss] })));
    await onDisk(path.join(folder, 'dropped.log'), Buffer.concat([Buffer.from('\n'), entry]), 'a');
}

async function onDisk(name, data, flags) {
    const file = await fs.open(name, flags, 0o600);
    try {
        await file.writeFile(data);
        await file.sync();
    } finally {
        await file.close();
    }
}

async function syncFolder(folder) {
    const file = await fs.open(folder, 'r');
    try {
        await file.sync();
    } finally {
        await file.close();
    }
}

// Names of one process always grow, even when the clock is set back.
function nextName() {
    const now = BigInt(Date.now()) * 1000000n;
    lastNs = now > lastNs ? now : lastNs + 1n;
    files += 1;
    return `${String(lastNs).padStart(20, '0')}-${process.pid}-${files}.spool`;
}

function record(line) {
    return Buffer.concat([Buffer.from(`${crc32(line).toString(16).padStart(8, '0')} `), line, Buffer.from('\n')]);
}

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit += 1)
        value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value;
});

// node:zlib has one from 20.15 on; remote hosts may run an older Node.
function crc32(data) {
    let value = -1;
    for (const byte of data)
        value = TABLE[(value ^ byte) & 0xff] ^ (value >>> 8);
    return (value ^ -1) >>> 0;
}

module.exports = { write, crc32, Full };
