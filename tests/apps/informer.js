// Interim answers, expectations and trailers, in HTTP/1 and HTTP/2: `node informer.js serve <port> <h2 port>` has them,
// `node informer.js call 1|2 <host> <path> <wait|send|none>` says what comes of a request whose body waits for 100
// Continue, is sent at once, or is not there.
'use strict';
const http = require('node:http');
const http2 = require('node:http2');

const [mode, ...args] = process.argv.slice(2);
(mode === 'serve' ? serve : call)(...args);

function serve(...ports) {
  [http, http2].forEach((module, at) => {
    const server = module.createServer();
    server.on('request', answer);
    server.on('checkContinue', (request, response) => {
      switch (request.url) {
        case '/refused':
          response.writeHead(417, { 'content-length': 2 });
          return response.end('no');
        case '/early':
          return response.end('early');
        case '/silent':
          return answer(request, response);
      }
      response.writeContinue();
      return answer(request, response);
    });
    server.listen(Number(ports[at]), '::', () => console.log('serving'));
  });
}

function answer(request, response) {
  if (request.url === '/hints') {
    response.writeEarlyHints({ link: '</a.css>; rel=preload', 'l5d-proxy-error': 'forged', 'x-kept': 'yes' });
    response.writeEarlyHints({ link: '</b.css>; rel=preload' });
  }
  let bytes = 0;
  request.on('data', (data) => (bytes += data.length));
  request.on('end', () => {
    const up = JSON.stringify(request.trailers);
    response.write(`${request.method} of ${bytes} bytes, expecting ${request.headers.expect}, trailers ${up}`);
    if (request.url === '/trailers') response.addTrailers({ 'x-sum': 'down', 'content-type': 'forged' });
    response.end();
  });
}

function call(version, where, path, body) {
  const seen = [];
  const fields = body === 'wait' ? { expect: '100-continue' } : {};
  const request = (version === '1' ? ask1 : ask2)(where, path, body, fields, seen);
  request.on('error', (error) => say(seen, `failed: ${error.code}`));
  if (body === 'none') return request.end();
  if (body === 'send') return upload(request);
  request.on('continue', () => upload(request));
  // Whoever waits may give it up (RFC 9110 §10.1.1).
  if (path === '/silent') setTimeout(() => upload(request), 300);
}

function upload(request) {
  request.write('hello');
  request.addTrailers?.({ 'x-sum': 'up' });
  request.end();
}

function ask1(where, path, body, headers, seen) {
  const url = new URL(`http://${where}${path}`);
  const request = http.request(url, { method: body === 'none' ? 'GET' : 'POST', headers });
  if (body !== 'none') request.flushHeaders();
  request.on('information', (head) => seen.push(interim(head.statusCode, head.headers)));
  request.on('response', (response) => finish(seen, response.statusCode, response, () => response.trailers));
  return request;
}

function ask2(where, path, body, fields, seen) {
  const session = http2.connect(`http://${where}`);
  const head = { ':path': path, ':method': body === 'none' ? 'GET' : 'POST', ...fields };
  const stream = session.request(head, { endStream: false });
  let trailers = {};
  stream.on('headers', (head) => head[':status'] === 100 || seen.push(interim(head[':status'], head)));
  stream.on('continue', () => seen.push('100'));
  stream.on('trailers', (fields) => (trailers = fields));
  stream.on('response', (head) => finish(seen, head[':status'], stream, () => ({ ...trailers })));
  return stream;
}

function interim(status, fields) {
  const kept = ['link', 'x-kept', 'l5d-proxy-error'].filter((name) => fields[name]);
  return [status, ...kept.map((name) => fields[name])].join(' ');
}

function finish(seen, status, body, trailers) {
  let text = '';
  body.on('data', (data) => (text += data));
  body.on('end', () => say(seen, `${status} ${text} ${JSON.stringify(trailers())}`));
}

function say(seen, last) {
  console.log([...seen, last].join('\n'));
  process.exit(0);
}
