// Appends by Emmett's client for Node, or by node-postgres and append(): the
// connection comes from the environment, the data from DATA.
//
//	node client.js emmett|event_store ROUND SECONDS CLIENTS
//
// Prints appends per second, and how many there were.  Clients are loops over one
// pool, each with streams of its own, and expected versions.
const [store, round, seconds, clients] = process.argv.slice(2);
const data = JSON.parse(process.env.DATA);
const streams = 100;

async function emmett() {
    const { getPostgreSQLEventStore } = require('@event-driven-io/emmett-postgresql');
    const socket = `socket://${process.env.PGUSER}@${process.env.PGHOST}?db=${process.env.PGDATABASE}`;
    const events = getPostgreSQLEventStore(socket, { schema: { autoMigration: 'None' } });
    return {
        append: (stream, version) =>
            events.appendToStream(stream, [{ type: 'OrderPlaced', data }], version ? { expectedStreamVersion: BigInt(version) } : {}),
        close: () => events.close(),
    };
}

async function eventStore() {
    const { Pool } = require('pg');
    const pool = new Pool({ max: Number(clients) });
    return {
        append: (stream, version) =>
            pool.query({
                name: 'append',
                text: "SELECT * FROM event_store.append('ev', $1, 'OrderPlaced', $2, expected_version => $3)",
                values: [stream, JSON.stringify(data), version],
            }),
        close: () => pool.end(),
    };
}

async function main() {
    const { append, close } = await (store === 'emmett' ? emmett() : eventStore());
    const start = process.hrtime.bigint();
    const end = start + BigInt(Math.round(seconds * 1e9));
    let count = 0;
    await Promise.all(Array.from({ length: Number(clients) }, async (_, client) => {
        for (let n = 0; process.hrtime.bigint() < end; n++, count++)
            await append(`order${client}-${round}-${n % streams}`, Math.floor(n / streams));
    }));
    console.log(count / (Number(process.hrtime.bigint() - start) / 1e9), count);
    await close();
}

main().catch((error) => { console.error(error); process.exit(1); });
