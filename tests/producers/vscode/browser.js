'use strict';

// A headless Chromium that opens code-server, and does what stdin says, one JSON array a line:
// ["shot", path], ["palette", text], ["pick", text], ["type", text], ["press", key], ["text", selector],
// ["gone", selector], ["click", selector], ["reload"].
// Each is answered by one line. argv: playwright-core's folder, Chromium, the address.

const readline = require('node:readline');

const [playwright, executablePath, address] = process.argv.slice(2);
const { chromium } = require(playwright);
//: Milliseconds that anything may take to appear.
const PATIENCE = 45000;

const WORKBENCH = '.monaco-workbench .part.statusbar';
const QUICK = '.quick-input-widget:not([style*="display: none"])';

async function main() {
    const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    page.setDefaultTimeout(PATIENCE);
    await page.goto(address);
    await page.waitForSelector(WORKBENCH);
    const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
    answer('ready');
    const does = {
        shot: (path) => page.screenshot({ path }),
        palette: async (text) => {
            await page.keyboard.press('F1');
            await page.waitForSelector(`${QUICK} input`);
            await page.keyboard.type(text);
            await page.waitForSelector(`${QUICK} .monaco-list-row.focused`);
            await page.keyboard.press('Enter');
        },
        row: (text) => page.waitForSelector(`${QUICK} .monaco-list-row:has-text(${JSON.stringify(text)})`).then(() => text),
        pick: (text) => page.click(`${QUICK} .monaco-list-row:has-text(${JSON.stringify(text)})`),
        input: async (text) => {
            await page.waitForSelector(`${QUICK} input`);
            await page.keyboard.type(text);
            await page.keyboard.press('Enter');
        },
        type: (text) => page.keyboard.type(text),
        press: (key) => page.keyboard.press(key),
        click: (selector) => page.click(selector),
        text: (selector) => page.waitForSelector(selector).then((found) => found.innerText()),
        gone: (selector) => page.waitForSelector(selector, { state: 'detached' }).then(() => true),
        reload: async () => {
            await page.reload();
            await page.waitForSelector(WORKBENCH);
        },
    };
    for await (const line of readline.createInterface({ input: process.stdin })) {
        const [what, ...args] = JSON.parse(line);
        try {
            const given = await does[what](...args);
            answer(typeof given === 'string' ? given : true);
        } catch (error) {
            answer({ error: String(error).slice(0, 500) });
        }
    }
    await browser.close();
}

main().catch((error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
});
