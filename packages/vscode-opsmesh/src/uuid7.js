'use strict';

// RFC 9562, version 7: milliseconds, a counter within one, and chance. Ids of one process grow.

const { randomBytes } = require('node:crypto');

let last = 0;
let count = 0;

function uuid7() {
    const now = Date.now();
    if (now > last) {
        last = now;
        count = randomBytes(2).readUInt16BE() & 0x3ff;
    } else if (++count > 0xfff) {
        last += 1;
        count = 0;
    }
    const chance = randomBytes(8);
    chance[0] = (chance[0] & 0x3f) | 0x80;
    const ms = last.toString(16).padStart(12, '0');
    const rest = chance.toString('hex');
    const counted = count.toString(16).padStart(3, '0');
    return `${ms.slice(0, 8)}-${ms.slice(8)}-7${counted}-${rest.slice(0, 4)}-${rest.slice(4)}`;
}

module.exports = { uuid7 };
