// usage: node gateway.mjs LINK EXPIRED DASHBOARD PLAIN
// Opens the shop by the link to a preview, and the page of its namespace; test/e2e/gateway_test.go starts it on a cluster.
// PLAIN is where the shop is without a key. What it measures goes to stdout.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { accessible, launch, open } from "./browser.mjs";

const [link, expired, dashboard, plain] = process.argv.slice(2);
const banner = "Free shipping on every order";
const host = new URL(link).host;
const detour = (...args) => execFileSync("kubectl", ["detour", "-n", "shop", ...args], { stdio: ["ignore", "ignore", "inherit"] });

const tests = {
  async "the shop shows the preview, and without its URL the baseline"(browser) {
    const { page, close } = await open(browser, link);
    assert.equal(page.url(), `http://${host}/`);
    assert.ok((await page.textContent("body")).includes(banner));
    await close();
    const other = await open(browser, plain);
    assert.ok(!(await other.page.textContent("body")).includes(banner));
    await other.close();
  },

  async "a login stays on the host"(browser) {
    const { page, close } = await open(browser, link);
    await page.evaluate(() => {
      const form = document.createElement("form");
      form.method = "post";
      form.action = "/login";
      document.body.append(form);
      form.submit();
    });
    await page.waitForURL(`http://${host}/me`);
    assert.match(await page.textContent("body"), /Hello, "Ada"/);
    await close();
  },

  async "a WebSocket, an upload and a stream"(browser) {
    const { page, close } = await open(browser, link);
    const echoed = await page.evaluate(() => new Promise((resolve, reject) => {
      const socket = new WebSocket(`ws://${location.host}/ws`);
      socket.onerror = () => reject(new Error("the WebSocket broke"));
      socket.onopen = () => socket.send("hello");
      socket.onmessage = (m) => m.data === "hello" && (socket.close(), resolve(m.data));
    }));
    assert.equal(echoed, "hello");
    const size = 32 << 20;
    const counted = await page.evaluate(async (n) => (await fetch("/upload", { method: "POST", body: new Uint8Array(n) })).text(), size);
    assert.equal(Number(counted), size);
    const events = await page.evaluate(() => new Promise((resolve) => {
      const seen = [];
      const source = new EventSource("/events");
      source.onmessage = (m) => seen.push([m.data, performance.now()]) === 3 && (source.close(), resolve(seen));
    }));
    assert.deepEqual(events.map(([data]) => data), ["0", "1", "2"]);
    assert.ok(events[2][1] - events[0][1] > 400, "the events came all at once");
    await close();
  },

  async "an expired link is refused"(browser) {
    const page = await browser.newPage();
    const response = await page.goto(expired);
    assert.equal(response.status(), 403);
    assert.match(await page.textContent("body"), /expired/);
    await page.close();
  },

  async "the dashboard turns while previews come, fail and go"(browser) {
    const { page, close } = await open(browser, dashboard);
    await accessible(page, dashboard);
    const row = page.locator("tr.preview", { hasText: "shown" });
    const timed = async (what, seen) => {
      const start = performance.now();
      await seen;
      console.log(`the page shows that a preview ${what} after ${Math.round(performance.now() - start)} ms`);
    };
    detour("create", "api", "--key=shown", "--tag=none", "--wait=false");
    await timed("comes", row.waitFor());
    await timed("fails", row.filter({ hasText: /ErrImage|ImagePull/ }).waitFor());
    await accessible(page, dashboard);
    detour("create", "api", "--key=shown", "--env=VERSION=shown");
    await timed("is routed", row.getByText("routed", { exact: true }).waitFor());
    detour("delete", "shown");
    await timed("goes", row.waitFor({ state: "detached" }));
    await close();
  },
};

const browser = await launch();
try {
  for (const [name, test] of Object.entries(tests)) {
    await test(browser);
    console.log(`ok: ${name}`);
  }
} finally {
  await browser.close();
}
