// A server and its client in one program, at a pace that work has, with files and child processes now and then.
const { execFileSync } = require("child_process");
const fs = require("fs");
const http = require("http");

const body = "x".repeat(2000);
const server = http.createServer((request, answer) => {
    answer.setHeader("Content-Type", "application/json");
    answer.end(JSON.stringify({ path: request.url, body }));
});

async function main() {
    const address = "http://127.0.0.1:" + server.address().port;
    for (let round = 1; ; round++) {
        for (let n = 0; n < 200; n++) {
            const got = await (await fetch(address + "/" + n)).json();
            if (got.path !== "/" + n) throw new Error("the wrong answer");
            await new Promise((done) => setTimeout(done, 5));
        }
        for (let n = 0; n < 20; n++) fs.writeFileSync("out-" + n, body);
        execFileSync("sh", ["-c", "ls | wc -l"]);
        console.log("round " + round);
    }
}

server.listen(0, "127.0.0.1", () => main().catch((error) => { console.error(error); process.exit(1); }));
