// A reverse proxy as one writes it with Node: `node relay.js <port> <port of the application>`.
const http = require('http');
const [port, to] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true });
http.createServer((request, response) => {
  const { method, url: path, headers } = request;
  const onward = http.request({ host: '127.0.0.1', port: to, method, path, headers, agent }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on('error', () => response.destroy());
  request.on('error', () => onward.destroy());
  request.on('aborted', () => onward.destroy());
  request.pipe(onward);
}).listen(port, () => console.log('serving'));
