// The WebSocket peer of TestWebSocket that is built on npm's ws.
//
//	node peer.cjs serve HOST:PORT NAME      converses like serveConversation, and prints how each connection was closed
//	node peer.cjs call URL KEY NAME DEFLATE  converses like holdConversation, with the server that must have NAME
//
// KEY may be empty; DEFLATE is true or false. An error ends the process with status 1.
'use strict';
const {WebSocket, WebSocketServer} = require('ws');
const assert = require('node:assert');

const deflate = {threshold: 0};
const floods = 200;

function serve(address, name) {
  const [host, port] = address.split(':');
  const server = new WebSocketServer({host, port: Number(port), perMessageDeflate: deflate});
  server.on('listening', () => console.log('listening'));
  server.on('connection', (ws) => {
    ws.on('pong', () => ws.send('ponged'));
    ws.on('close', (code, reason) => console.log(`${code} ${reason}`));
    ws.on('message', (data, binary) => {
      switch (binary ? '' : data.toString()) {
        case 'ping':
          return ws.ping();
        case 'flood':
          for (let i = 0; i < floods; i++) ws.send(`push ${i}`);
          return;
        case 'close':
          return ws.close(4001, 'bye');
      }
      ws.send(data, {binary});
    });
    ws.send(name);
  });
}

async function call(url, key, name, compress) {
  const headers = key ? {'Detour-Key': key} : {};
  const ws = new WebSocket(url, {headers, perMessageDeflate: compress ? deflate : false});
  const got = [];
  let wake = () => {};
  ws.on('message', (data, binary) => { got.push({data, binary}); wake(); });
  const closed = new Promise((resolve) => ws.on('close', (code, reason) => resolve(`${code} ${reason}`)));
  const served = new Promise((resolve) => ws.on('upgrade', (r) => resolve(r.headers['detour-served-by'])));
  const receive = async () => {
    while (got.length === 0) await new Promise((resolve) => { wake = resolve; });
    return got.shift();
  };
  const text = async () => {
    const {data, binary} = await receive();
    assert(!binary);
    return data.toString();
  };

  assert.strictEqual(await text(), name);
  assert.strictEqual(await served, key ? 'shop/api-pr-1-0' : undefined);
  assert.strictEqual(ws.extensions.includes('permessage-deflate'), compress);
  for (const size of [0, 1, 125, 126, 65535, 65536, 3 << 19]) {
    for (const binary of [false, true]) {
      const sent = Buffer.from(Array.from({length: size}, (_, i) => 32 + (i * 31 + (i >> 8)) % 90));
      ws.send(sent, {binary});
      const echo = await receive();
      assert.strictEqual(echo.binary, binary);
      assert(sent.equals(echo.data), `an echo of ${size} bytes differs`);
    }
  }
  for (const piece of ['in ', '', 'many ']) ws.send(piece, {fin: false});
  ws.send('pieces', {fin: true});
  assert.strictEqual(await text(), 'in many pieces');

  const pong = new Promise((resolve) => ws.on('pong', (data) => resolve(data.toString())));
  ws.ping('are you there');
  assert.strictEqual(await pong, 'are you there');
  ws.send('ping');
  assert.strictEqual(await text(), 'ponged');

  ws.send('flood');
  const block = 'x'.repeat(16 << 10);
  for (let i = 0; i < floods; i++) ws.send(`echo ${i} ${block}`);
  let pushes = 0, echoes = 0;
  while (pushes < floods || echoes < floods) {
    const m = await text();
    if (m.startsWith('push')) assert.strictEqual(m, `push ${pushes++}`);
    else assert.strictEqual(m, `echo ${echoes++} ${block}`);
  }

  if (compress) ws.close(4002, 'done');
  else ws.send('close');
  assert.strictEqual(await closed, compress ? '4002 done' : '4001 bye');
}

const [command, ...args] = process.argv.slice(2);
if (command === 'serve') serve(args[0], args[1]);
else {
  call(args[0], args[1], args[2], args[3] === 'true').catch((e) => {
    console.error(e);
    process.exit(1);
  });
}
