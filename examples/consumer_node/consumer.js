#!/usr/bin/env node
// A consumer of an event table's feed, in Node with pg, made to be copied.  It
// keeps a read model up to date: how many events each stream has, and the
// version of its last one.
//
//	npm install
//	node consumer.js [--once] EVENT_TABLE
//
// EVENT_TABLE is a name as in SQL.  The environment says where the database is
// (PGHOST, PGDATABASE and so on); tables.sql makes there what the consumer
// writes.  It runs until SIGTERM or SIGINT, with --once until it has caught up.
//
// No event is lost and none is counted twice, because
//
// * the checkpoint is a row of the same database, and moves in the transaction
//   that writes the read model.  Whoever dies, and whenever, both have happened
//   or neither has.  Where the answer to a COMMIT was lost, the row tells; so it
//   is read anew for each batch, and nothing is kept here;
// * the checkpoint moves only from where the batch began.  Of two consumers that
//   run by mistake, one waits for the other, and then begins anew.
//
// It listens before it catches up, so that whatever comes too late for that
// notifies it.  A notification is a hint, which can get lost: so it looks once a
// second in any case.  That also finds out a connection that has died without a
// word, since each answer must come in time.
'use strict';

const { Client } = require('pg');

// Milliseconds.
const POLL_INTERVAL = 1000;
const ANSWER_TIMEOUT = 10000;
const FIRST_BACK_OFF = 100;
const LAST_BACK_OFF = 5000;

const args = process.argv.slice(2);
const once = args[0] === '--once';
if (once) args.shift();
const [table] = args;
if (args.length !== 1 || table === '' || table.startsWith('-')) {
  console.error('usage: consumer.js [--once] EVENT_TABLE');
  process.exit(2);
}

let stopping = false;    // somebody has told us to, or there is no hope
let backOff = FIRST_BACK_OFF;
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => { stopping = true; wake(); });
}

// Sleeps until wake() is called, or was called since the last sleep.
let woken = false;
let wakeSleeper = () => {};
function wake() {
  woken = true;
  wakeSleeper();
}
async function sleep(ms) {
  if (!woken) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wakeSleeper = () => { clearTimeout(timer); resolve(); };
    });
  }
  woken = false;
}

// Connects, listens, and goes on until it is told to stop.  Throws any error.
async function consume(client) {
  client.on('notification', wake);
  client.on('error', wake);    // a connection lost while idle; the next query says so
  await client.connect();

  // Asked at every connect: a table that was restored has another channel.
  const { rows: [{ listen }] } = await client.query(
    `SELECT format('LISTEN %I', event_store.channel($1::text::regclass)) AS listen`, [table]);
  await client.query(listen);
  await client.query(
    `INSERT INTO events_per_stream_checkpoint (event_table, position)
     VALUES ($1, 0) ON CONFLICT DO NOTHING`, [table]);

  while (!stopping) {
    await catchUp(client);
    backOff = FIRST_BACK_OFF;
    if (once) stopping = true;
    if (!stopping) await sleep(POLL_INTERVAL);
  }
}

// Handles all that is new, batch by batch.  The end is where the checkpoint does
// not move.  A batch without an event is not the end: a feed with a filter moves
// on past what the filter does not let through.
//
// pg gives a bigint as a string, and so it stays: a number is exact up to 2^53
// only.  In the JSON of the events positions and versions are numbers all the
// same, since positions stay below 2^47.
async function catchUp(client) {
  while (!stopping) {
    const { rows: [batch] } = await client.query(
      `SELECT c.position, b.checkpoint, b.checkpoint_event_id, b.events
         FROM events_per_stream_checkpoint c
        CROSS JOIN event_store.read_batch($1::text::regclass, after => c.position,
                                          after_event_id => c.event_id, max_count => 500) b
        WHERE c.event_table = $1`, [table]);
    if (!batch) throw new Error('the checkpoint was removed: starting from the first event');
    if (batch.checkpoint === batch.position) return;

    await client.query('BEGIN');
    const { rowCount: moved } = await client.query(
      `UPDATE events_per_stream_checkpoint SET position = $3, event_id = $4
        WHERE event_table = $1 AND position = $2`,
      [table, batch.position, batch.checkpoint, batch.checkpoint_event_id]);
    if (moved) {
      for (const event of batch.events) await handle(client, event);
    }
    await client.query(moved ? 'COMMIT' : 'ROLLBACK');
  }
}

// What is done with an event: exactly once, being part of the transaction.  What
// cannot be, a mail for example, can happen twice; there event.event_id must tell
// the second from the first.
async function handle(client, event) {
  await client.query(
    `INSERT INTO events_per_stream AS m VALUES ($1, $2, 1, $3)
     ON CONFLICT (event_table, stream) DO UPDATE SET events = m.events + 1, version = $3`,
    [table, event.stream, event.version]);
}

async function main() {
  while (!stopping) {
    const client = new Client({
      connectionTimeoutMillis: ANSWER_TIMEOUT,
      query_timeout: ANSWER_TIMEOUT,
      fallback_application_name: 'consumer_node',
    });
    try {
      await consume(client);
    } catch (error) {
      console.error('consumer: ' + (error.message || error.code));
      if (error.detail) console.error('DETAIL:  ' + error.detail);
      if (error.hint) console.error('HINT:  ' + error.hint);

      // These do not pass by themselves.  SE009 says that the event table is
      // not, or not any more, the one that the read model was made of.  That has
      // to be made anew, by somebody who knows what happened; to go on would be
      // to guess.
      if (/^(SE|0A|22|3F|42)...$/.test(error.code)) {
        process.exitCode = 1;
        stopping = true;
      }
    }

    // What comes from this connection later must not wake the next one, and an
    // error that nobody hears would end the process.
    client.removeAllListeners();
    client.on('error', () => {});
    client.end().catch(() => {});

    // At random, lest all consumers of a server come back at once.
    woken = stopping;
    await sleep(backOff / 2 + Math.random() * backOff);
    backOff = Math.min(backOff * 2, LAST_BACK_OFF);
  }
  // Does not wait for a server that does not take leave.
  setTimeout(() => process.exit(), 1000).unref();
}

main();
