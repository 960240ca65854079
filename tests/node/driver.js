// Carries out the calls of a test: a line of JSON for each call, and for each answer and event.
'use strict';

const path = require('node:path');
const readline = require('node:readline');

const write = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const emit = (channel, event, value) => write({ channel, event, value: value ?? null });
const describe = (error) => ({
  name: error.name ?? error.condition, // an error of AMQP has no name
  message: String(error.message ?? error.description),
});

async function carryOut({ id, program, call, args }) {
  try {
    const value = await require(path.join(__dirname, `${program}.js`))[call](args, emit);
    write({ id, value: value ?? null });
  } catch (error) {
    write({ id, error: describe(error) });
  }
}

process.on('uncaughtException', (error) => emit('driver', 'uncaught', error.stack));
process.on('unhandledRejection', (error) => emit('driver', 'uncaught', String(error)));

readline
  .createInterface({ input: process.stdin })
  .on('line', (line) => carryOut(JSON.parse(line)))
  .on('close', () => process.exit());
