// usage: node dashboard.mjs URL [FOLDER]
// Looks at the dashboard at URL as a person would; router/dashboard/browser_test.go serves it. Screenshots go into FOLDER.
import assert from "node:assert/strict";
import { accessible, launch, open, tabThrough } from "./browser.mjs";

const [url, folder] = process.argv.slice(2);
const shop = `${url}/namespaces/shop`;
const paths = [
  "/", "/x", "/namespaces/shop", "/namespaces/empty", "/namespaces/hundred",
  "/namespaces/shop/previews/api/pr-42", "/namespaces/shop/previews/api/pr-57", "/namespaces/shop/previews/checkout/pr-61",
];

const tests = {
  async "every page is accessible, and fits"(browser) {
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [1280, 320]) {
        for (const path of paths) {
          const { page, close } = await open(browser, url + path, { colorScheme, viewport: { width, height: 800 } });
          await page.evaluate(() => document.querySelectorAll("details").forEach((d) => (d.open = true)));
          await accessible(page, `${path}, ${colorScheme}, ${width}`);
          await close();
        }
      }
    }
  },

  async "a page is used with the keyboard"(browser) {
    const { page, close } = await open(browser, shop, { permissions: ["clipboard-read", "clipboard-write"] });
    const stops = await tabThrough(page, shop);
    assert.deepEqual(stops.slice(0, 8), [
      "Skip to content", "Detour", "shop", "filter", "pr-42", "Copy header", "Copy curl command", "pr-42--api--shop.preview.example.com",
    ]);
    await page.reload();
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
    await page.getByRole("button", { name: "Copy curl command" }).first().focus();
    await page.keyboard.press("Enter");
    await page.getByRole("log").filter({ hasText: "Copied the curl command" }).waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "curl -H 'Detour-Key: pr-42' http://api.shop/");
    await close();
  },

  async "a screen reader finds tables, heads and landmarks"(browser) {
    for (const width of [1280, 320]) {
      const { page, close } = await open(browser, shop, { viewport: { width, height: 800 } });
      const table = page.getByRole("table", { name: "Previews" });
      assert.equal(await table.getByRole("columnheader").count(), 4);
      assert.ok((await table.getByRole("rowheader").count()) > 5);
      for (const landmark of ["banner", "navigation", "main", "search", "contentinfo"]) {
        assert.equal(await page.getByRole(landmark).count(), 1, landmark);
      }
      await page.getByRole("img", { name: /^\d+ requests and \d+ errors in the last 15 minutes/ }).first().waitFor();
      await close();
    }
  },

  async "a filter leaves what meets it"(browser) {
    const { page, close } = await open(browser, `${url}/namespaces/hundred`);
    const rows = page.locator("tr.preview:visible");
    assert.equal(await rows.count(), 100);
    await page.getByLabel("Filter").fill("pr-7 PENDING");
    await page.getByRole("log").filter({ hasText: "previews" }).waitFor();
    for (const row of await rows.all()) assert.match(await row.innerText(), /pr-7[^]*pending/);
    assert.equal(await rows.count(), 5);
    await page.getByLabel("Filter").fill("nothing like it");
    await page.getByText("No preview meets the filter.").waitFor();
    await close();
  },

  // What turns while the page is open shows without a reload, and takes neither the focus nor what was typed.
  async "a page stays up to date"(browser) {
    const { page, close } = await open(browser, shop);
    await page.getByText("Live", { exact: true }).waitFor();
    const filter = page.getByLabel("Filter");
    await filter.fill("pr-57");
    const row = page.locator("tr.preview:visible");
    assert.equal(await row.locator(".state").innerText(), "pending");
    await page.evaluate(() => (window.same = true));
    await fetch(`${url}/turn`, { method: "POST" });
    await row.getByText("routed", { exact: true }).waitFor();
    await page.getByRole("log").filter({ hasText: "pr-57 of api is routed" }).waitFor();
    assert.equal(await filter.inputValue(), "pr-57");
    assert.equal(await row.count(), 1);
    assert.ok(await filter.evaluate((e) => e === document.activeElement));
    assert.ok(await page.evaluate(() => window.same), "the page was loaded again");
    await close();
  },

  async "a page without its script is whole, and loads itself again"(browser) {
    const { page, close } = await open(browser, shop, { javaScriptEnabled: false });
    assert.equal(await page.locator("meta[http-equiv=refresh]").count(), 1);
    assert.ok((await page.locator("tr.preview:visible").count()) > 5);
    assert.equal(await page.locator("button:visible, input:visible").count(), 0);
    await page.getByText("curl -H 'Detour-Key: pr-42' http://api.shop/").first().waitFor();
    await close();
  },
};

const browser = await launch();
if (folder) {
  for (const colorScheme of ["light", "dark"]) {
    const { page, close } = await open(browser, shop, { colorScheme, viewport: { width: 1280, height: 940 } });
    await page.getByText("Live", { exact: true }).waitFor();
    await page.screenshot({ path: `${folder}/dashboard-${colorScheme}.png` });
    await close();
  }
}
let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test(browser);
    console.log(`ok: ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAILED: ${name}\n${error.stack}`);
  }
}
await browser.close();
process.exitCode = failed;
