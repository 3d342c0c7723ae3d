// A client of the official TypeScript SDK over streamable HTTP, for the tests of the server.

const [url, folder] = process.argv.slice(2);
const sdk = `${folder}/dist/esm/client`;
const { Client } = await import(`${sdk}/index.js`);
const { StreamableHTTPClientTransport } = await import(`${sdk}/streamableHttp.js`);

const client = new Client({ name: "typescript-peer", version: "1" });
const transport = new StreamableHTTPClientTransport(new URL(url));
await client.connect(transport);

const tools = [];
let cursor;
do {
    const page = await client.listTools({ cursor });
    tools.push(...page.tools.map((tool) => tool.name));
    cursor = page.nextCursor;
} while (cursor);
// With the tools listed it checks the result against the tool's output schema.
const added = await client.callTool({ name: "add", arguments: { a: 2, b: 3 } });
const failed = await client.callTool({ name: "fails", arguments: {} });
const unknown = await client.callTool({ name: "no such", arguments: {} }).catch((error) => error.code);
await client.ping();
const revision = transport.protocolVersion;
await transport.terminateSession();
await client.close();

const report = {
    tools,
    revision,
    structured: added.structuredContent,
    text: added.content[0].text,
    failed: [failed.isError, failed.content[0].text],
    unknown,
};
console.log(JSON.stringify([report]));
