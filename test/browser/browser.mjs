// What tests in a real browser share: a Chromium, and what every page has to keep to.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const installed = createRequire(process.env.DETOUR_NODE_MODULES + "/"); // where hack/browser has installed them
const { chromium } = installed("playwright-core");
const axe = installed.resolve("axe-core/axe.min.js");

// launch starts the Chromium of the environment. In a sandbox of its own it would not run as root.
export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });

// open opens a page that may ask nobody but its own server for anything, and fails the test for what the browser
// complains of, violations of the content policy among it.
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  await page.addInitScript({ path: axe });
  const complaints = [];
  page.on("console", (m) => m.type() === "error" && !m.text().includes("404") && complaints.push(m.text()));
  page.on("pageerror", (e) => complaints.push(String(e)));
  page.on("request", (r) => new URL(r.url()).origin === new URL(url).origin || complaints.push(`a request to ${r.url()}`));
  await page.goto(url);
  return {
    page,
    close: async () => {
      await context.close();
      assert.deepEqual(complaints, [], url);
    },
  };
}

// accessible runs every rule of axe, and holds the page to the width of the screen.
export async function accessible(page, where) {
  const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
  const found = violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html).join(" | ")}`);
  assert.deepEqual(found, [], where);
  assert.ok(passes.length > 10, `${where}: axe has tried ${passes.length} rules`);
  const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(content <= screen, `${where}: ${content} pixels on a screen of ${screen}`);
}

// tabThrough presses Tab until the focus leaves the page, and returns what had it, each of which must show that.
export async function tabThrough(page, where) {
  const stops = [];
  for (let i = 0; i < 500; i++) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const e = document.activeElement;
      if (e === document.body) return null;
      const { outlineStyle, outlineWidth } = getComputedStyle(e);
      return { text: e.textContent.trim() || e.id, shown: outlineStyle !== "none" && outlineWidth !== "0px" && e.checkVisibility() };
    });
    if (!stop) return stops;
    assert.ok(stop.shown, `${where}: the focus on "${stop.text}" cannot be seen`);
    stops.push(stop.text);
  }
  assert.fail(`${where}: Tab never leaves the page`);
}
