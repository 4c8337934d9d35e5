// HTTP/2 CONNECT by Node.js: h2_connect.mjs PORT CA TOKEN DESTINATION COUNT sends "stream N" on each of COUNT streams of one
// connection, ends its half, and prints what came back, a line a stream; or the status of a refusal.
import { readFileSync } from "node:fs";
import { connect } from "node:http2";

const [port, ca, token, destination, count] = process.argv.slice(2);
const session = connect(`https://localhost:${port}`, { ca: readFileSync(ca) });

const one = (number) =>
  new Promise((resolve, reject) => {
    const stream = session.request({
      ":method": "CONNECT",
      ":authority": destination,
      authorization: `Pomerium ${token}`,
    });
    let heard = "";
    let status = 0;
    stream.setEncoding("utf8");
    stream.on("response", (headers) => {
      status = headers[":status"];
      stream.end(status === 200 ? `stream ${number} ` : "");
    });
    stream.on("data", (text) => (heard += text));
    stream.on("end", () => resolve(status === 200 ? heard : String(status)));
    stream.on("error", reject);
  });

const all = await Promise.all(Array.from({ length: Number(count) }, (_, number) => one(number)));
console.log(all.join("\n"));
session.close();
