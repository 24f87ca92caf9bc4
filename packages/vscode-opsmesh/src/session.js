'use strict';

// Which session and which project an event belongs to: the rule of docs/sessions.md, as
// opsmesh.router.session has it. tests/data/sessions.json holds every port of it to one table.

const fs = require('node:fs');
const path = require('node:path');

//: Characters of VS Code's own session id that are kept: they tell the windows of one machine apart.
const KEPT = 8;

// VS Code is always a session of its own, whatever terminal it was started from, unless a person says so.
function session(env, sessionId) {
    return env.OPSMESH_SESSION || editorSession(sessionId);
}

// What terminals and tasks are told by OPSMESH_EDITOR_SESSION.
function editorSession(sessionId) {
    return `vscode:${String(sessionId || process.pid).slice(0, KEPT)}`;
}

function workspace(place, env = process.env) {
    if (env.OPSMESH_WORKSPACE)
        return env.OPSMESH_WORKSPACE;
    if (!place)
        return '';
    try {
        const real = realpath(path.resolve(place));
        const folder = isFolder(real) ? real : path.dirname(real);
        const home = realpath(env.HOME || '/');
        for (let found = folder; found !== '/'; found = path.dirname(found)) {
            if (there(path.join(found, '.git')))
                return found === home ? folder : found;
        }
        return folder;
    } catch {
        return place; // a path that no system call takes
    }
}

// Links resolved as far as the path exists.
function realpath(place) {
    try {
        return fs.realpathSync.native(place);
    } catch (error) {
        if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR')
            throw error;
        const above = path.dirname(place);
        return above === place ? place : path.join(realpath(above), path.basename(place));
    }
}

function isFolder(place) {
    return fs.statSync(place, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function there(place) {
    return fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined;
}

module.exports = { session, editorSession, workspace };
