// Tunnels over HTTP/2 (RFC 8441, RFC 9113 §8.5): `node tunnel.js serve <port>` sends back what comes through them,
// `node tunnel.js call <host> websocket|none` opens one to it and says what came of it.
'use strict';
const http2 = require('node:http2');
const { randomBytes } = require('node:crypto');

const [mode, where, protocol] = process.argv.slice(2);
(mode === 'serve' ? serve : call)();

function serve() {
  const server = http2.createServer({ settings: { enableConnectProtocol: true } });
  server.on('stream', (stream, head) => {
    stream.on('error', (error) => console.log(`a tunnel failed: ${error}`));
    stream.respond({ ':status': 200, 'x-is': `${head[':method']} ${head[':protocol']} ${head[':path']}` });
    stream.pipe(stream);
  });
  server.listen(Number(where), '::', () => console.log('serving'));
}

function call() {
  const session = http2.connect(`http://${where}`);
  session.on('error', fail);
  session.on('remoteSettings', (settings) => {
    if (!settings.enableConnectProtocol) fail('the proxy does not offer extended CONNECT');
    const connect = { ':method': 'CONNECT', ':authority': 'elsewhere:5432' };
    const extended = { ':protocol': protocol, ':scheme': 'http', ':path': '/chat', ':authority': where };
    const stream = session.request(protocol === 'none' ? connect : { ...connect, ...extended });
    stream.on('error', fail);
    stream.on('response', (head) => {
      if (head[':status'] !== 200) {
        console.log(`${head[':status']} ${head['l5d-proxy-error']}`);
        session.destroy();
        return;
      }
      exchange(stream, (text) => {
        console.log(`${head['x-is']}: ${text}`);
        session.close();
      });
    });
  });
}

// A word and its echo; then a megabyte, its end, and both back.
function exchange(stream, done) {
  const large = randomBytes(1 << 20);
  const received = [];
  stream.write('knock');
  stream.once('data', (word) => {
    stream.on('data', (bytes) => received.push(bytes));
    stream.on('end', () => {
      const same = Buffer.concat(received).equals(large);
      done(`${word}, and ${same ? 'the same' : 'other'} bytes`);
    });
    stream.end(large);
  });
}

function fail(why) {
  console.log(`failed: ${why}`);
  process.exit(1);
}
