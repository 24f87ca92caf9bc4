'use strict';

// Where the mesh's files lie, after the XDG base directory specification; as opsmesh.router.paths.

const os = require('node:os');

function folder(value) {
    return typeof value === 'string' && value.startsWith('/') ? value : '';
}

function state(env = process.env) {
    return `${folder(env.XDG_STATE_HOME) || `${env.HOME || os.homedir()}/.local/state`}/opsmesh`;
}

function runtime(env = process.env) {
    const told = folder(env.XDG_RUNTIME_DIR);
    return told ? `${told}/opsmesh` : `${state(env)}/run`;
}

// What `opsmesh install vscode` leaves beside the packed extension: which opsmesh it was.
function command(env = process.env) {
    return `${folder(env.XDG_DATA_HOME) || `${env.HOME || os.homedir()}/.local/share`}/opsmesh/vscode/command`;
}

module.exports = {
    command,
    state,
    socket: (env) => `${runtime(env)}/ingest.sock`,
    spool: (env) => `${state(env)}/spool`,
    hosts: (env) => `${state(env)}/producers/vscode/hosts`,
};
